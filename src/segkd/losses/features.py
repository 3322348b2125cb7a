"""Select, check and align the feature maps that losses compare."""

from __future__ import annotations

from torch import Tensor, nn

from segkd.errors import UserError
from segkd.losses.functional import at_least_float32, downsample_mask
from segkd.types import FeatureInfo, FeatureInfos, NetworkOutput, Step, resize


def get_feature(features: FeatureInfos, name: str, whose: str) -> FeatureInfo:
    """The declared feature of a name.

    Raises:
        UserError: there is none; names those that there are.
    """
    if name not in features:
        raise UserError(f"the {whose} has no feature '{name}'; it has {', '.join(features)}")
    return features[name]


def require_teacher(step: Step) -> NetworkOutput:
    """The teacher's answer, which a distillation loss cannot do without."""
    if step.teacher is None:
        raise ValueError("this loss compares with a teacher, and the step has none")
    return step.teacher


def check_same_num_classes(student: FeatureInfos, teacher: FeatureInfos, feature: str) -> int:
    """How many classes both the student's feature and the teacher score.

    Raises:
        UserError: they differ, or there is no such feature.
    """
    ours, theirs = get_feature(student, feature, "student"), get_feature(teacher, "kd_logits", "teacher")
    if ours.channels != theirs.channels:
        raise UserError(
            f"the student's feature '{feature}' has {ours.channels} channels, and the teacher scores {theirs.channels} classes; "
            "take a feature that holds class scores, and a teacher of the same classes"
        )
    return ours.channels


def align_features(step: Step, student_feature: str, teacher_feature: str) -> tuple[Tensor, Tensor, Tensor]:
    """The student's map and the teacher's at its size, both wide, and the places that count, B h w bool.

    A teacher's `kd_logits` are its logits: an inner classifier of a teacher may never have been trained.
    """
    teacher = require_teacher(step)
    ours = at_least_float32(step.student.features[student_feature])
    size = (ours.shape[-2], ours.shape[-1])
    theirs = teacher.logits if teacher_feature == "kd_logits" else teacher.features[teacher_feature]
    theirs = resize(at_least_float32(theirs), size, teacher.align_corners).detach().to(ours)
    return ours, theirs, downsample_mask(step.batch.valid, size)


def make_projector(student: FeatureInfo, teacher: FeatureInfo) -> nn.Conv2d:
    """A linear map from the student's channels to the teacher's, to be learned with the student."""
    return nn.Conv2d(student.channels, teacher.channels, 1, bias=False)
