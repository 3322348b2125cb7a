"""Select, check and align the feature maps that losses compare."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segkd.errors import UserError
from segkd.losses.tensors import at_least_float32, downsample_mask, get_size
from segkd.types import FeatureInfo, FeatureInfos, NetworkOutput, Step, resize


def get_feature(features: FeatureInfos, name: str, network: str) -> FeatureInfo:
    """Return the declared feature of this name.

    Args:
        features: all features that the network declares.
        name: the feature.
        network: `student` or `teacher`, for the message.

    Raises:
        UserError: it does not exist; the message lists those that do.
    """
    if name not in features:
        raise UserError(f"the {network} has no feature '{name}'; it has {', '.join(features)}")
    return features[name]


def require_teacher(step: Step) -> NetworkOutput:
    """Return the teacher's output.

    Raises:
        ValueError: the step has none.
    """
    if step.teacher is None:
        raise ValueError("this loss compares with a teacher, and the step has none")
    return step.teacher


def check_same_num_classes(student: FeatureInfos, teacher: FeatureInfos, feature: str) -> int:
    """Return the number of classes, after checking that the student's feature has as many channels as the teacher classes.

    Raises:
        UserError: they differ, or the feature does not exist.
    """
    student_feature = get_feature(student, feature, "student")
    teacher_logits = get_feature(teacher, "kd_logits", "teacher")
    if student_feature.channels != teacher_logits.channels:
        raise UserError(
            f"the student's feature '{feature}' has {student_feature.channels} channels, and the teacher has "
            f"{teacher_logits.channels} classes; choose a feature that holds class logits, and a teacher with the same classes, "
            "or map them with teacher.class_map (docs/how-to/teachers.md)"
        )
    return student_feature.channels


def align_features(step: Step, student_feature: str, teacher_feature: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return the student's map, the teacher's at its size, detached, and the mask of valid positions, B h w bool.

    Both maps are in float32 or wider. The teacher's `kd_logits` are its logits: an inner classifier of a teacher may never
    have been trained.
    """
    teacher_output = require_teacher(step)
    student = at_least_float32(step.student.features[student_feature])
    size = get_size(student)
    teacher = teacher_output.logits if teacher_feature == "kd_logits" else teacher_output.features[teacher_feature]
    teacher = resize(at_least_float32(teacher), size, teacher_output.align_corners).detach().to(student)
    return student, teacher, downsample_mask(step.batch.valid, size)


class Projector(nn.Conv2d):
    """A linear map of channels, B C h w → B C' h w, that computes in float32 or wider, also under autocast."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Map the channels."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(at_least_float32(input))


def make_projector(student: FeatureInfo, teacher: FeatureInfo) -> Projector:
    """Create a linear map from the student's channels to the teacher's, to be trained with the student."""
    return Projector(student.channels, teacher.channels)
