"""Intra-class feature variation: a position is as similar to its class center as it is in the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from segkd.losses.base import FeatureLoss
from segkd.losses.checks import prepare_maps, prepare_target, prepare_valid
from segkd.losses.distributed import global_mean
from segkd.losses.features import align_features, require_teacher
from segkd.losses.regions import check_class_source, downsample_classes, encode_membership
from segkd.losses.tensors import downsample_labels, get_size, safe_normalize
from segkd.types import IGNORE_INDEX, Step


def ifvd_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    num_classes: int,
    valid: Tensor | None = None,
    ignore_index: int = IGNORE_INDEX,
) -> Tensor:
    """Return the mean over positions i of (v_i^student − v_i^teacher)², with v_i = cos(f_i, mean of f over the class of i).

    Wang et al., ECCV 2020; each image has its own means.

    Args:
        student: a feature, B C h w.
        teacher: a feature, B C' h w.
        target: what class a position has, B H W at any resolution: labels, or a prediction of the teacher.
        num_classes: K.
        valid: the positions that count, B H W bool at any resolution, by default all.
        ignore_index: the label of a pixel without a class.

    Raises:
        ValueError: the tensors do not fit each other.

    Example:
        >>> student, teacher = torch.randn(2, 64, 45, 60), torch.randn(2, 512, 45, 60)
        >>> ifvd_loss(student, teacher, torch.randint(0, 11, (2, 360, 480)), num_classes=11).shape
        torch.Size([])
    """
    student, teacher = prepare_maps(student, teacher)
    target = downsample_labels(prepare_target(target, len(student), num_classes, ignore_index), get_size(student))
    has_class = ((target != ignore_index) & prepare_valid(valid, student)).flatten(1)
    membership = encode_membership(target.flatten(1), num_classes) & has_class[..., None]
    # Similarities are near one, and bfloat16 would keep two digits of their difference from it.
    with torch.autocast(student.device.type, enabled=False):
        difference = compute_similarity_to_class_center(
            student.flatten(2), membership
        ) - compute_similarity_to_class_center(teacher.flatten(2), membership)
        return global_mean(difference.square().sum(), has_class.sum())


def compute_similarity_to_class_center(features: Tensor, membership: Tensor) -> Tensor:
    """Return the cosine of each feature with the center of its class, B n; zero where it has no class.

    Args:
        features: B C n.
        membership: B n K bool, see `encode_membership`.
    """
    weights = membership.to(features)
    centers = features @ weights  # sums: only the direction is used, and it is that of the mean
    return (safe_normalize(features).mT @ safe_normalize(centers) * weights).sum(2)


class IFVD(FeatureLoss):
    """Squared difference of the two networks' cosines between a feature and the center of its class.

        L = mean over positions i of (v_i^student − v_i^teacher)²,   v_i = cos(f_i, μ_c(i)),   μ_c = mean of the f_j of class c

    Wang et al., *Intra-class Feature Variation Distillation for Semantic Segmentation*, ECCV 2020 (no arXiv version known).
    Only cosines are compared, so the channels may differ. The teacher's map is resized to the student's. A class has a
    center in each image, as in the authors' code (utils/criterion.py, CriterionIFV), so that the loss of an image does not
    depend on its batch and process. The student's gradient flows through its centers too.

    A position counts if it has a class. The authors' code gives void positions the similarity 1 in both networks and counts
    them, so its value is this one times the fraction of labeled positions. Memory is B·(C + K)·h·w numbers.

    Shape:
        - student feature: B C h w; teacher feature: B C' h' w'.
        - output: scalar.

    Example:
        >>> IFVD(class_source="teacher")(step).shape
        torch.Size([])

    Args:
        weight: 50, the paper's. The authors' code has 200, CIRKD's 20.
        class_source: what decides the class of a position, `labels` or `teacher` (its prediction; then unlabeled images
            count too).
        feature: name of the compared feature, in both networks.
    """

    needs_teacher_classes = True
    exemptions: ClassVar[Mapping[str, str]] = {
        "labels_do_not_matter": "regions come from the labels, unless class_source is teacher"
    }

    def __init__(self, weight: float = 50.0, class_source: str = "labels", feature: str = "encoder") -> None:
        super().__init__(weight, feature)
        self.class_source = check_class_source(class_source)

    def forward(self, step: Step) -> Tensor:
        """Compute the loss, a scalar."""
        student, teacher, _ = align_features(step, self.feature, self.feature)
        classes = downsample_classes(step, get_size(student), self.class_source)
        return ifvd_loss(student, teacher, classes, num_classes=require_teacher(step).logits.shape[1])
