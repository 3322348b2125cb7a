"""Intra-class feature variation: a place is as typical of its class to the student as it is to the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from segkd.losses.base import FeatureLoss
from segkd.losses.distributed import global_mean
from segkd.losses.features import align_features, require_teacher
from segkd.losses.functional import safe_normalize
from segkd.losses.regions import check_class_source, downsample_classes, one_hot_membership
from segkd.types import IGNORE_INDEX, Step


class IFVD(FeatureLoss):
    """Squared difference of the two networks' cosines between a place's feature and the centre of its class.

        L = mean over places i of (v_i^student − v_i^teacher)²,   v_i = cos(f_i, μ_c(i)),   μ_c = mean of the f_j of class c

    Wang et al., *Intra-class Feature Variation Distillation for Semantic Segmentation*, ECCV 2020 (no arXiv version known).
    Maps are B C h w; only cosines are compared, so the channels may differ. The teacher's map is resized to the student's.
    A class has a centre in each image, as in the authors' code (utils/criterion.py, CriterionIFV), so that an image is
    worth the same in any batch and process. The student's gradient goes through its centres too.

    A place counts that has a class. The authors' code gives void places the similarity 1 on both sides and counts them, so
    its value is ours times the share of labelled places. Memory is B·(C + K)·h·w numbers.

    Args:
        weight: 50, the paper's. The authors' code has 200, CIRKD's 20.
        class_source: who says which places are of one class, `labels` or `teacher` (its answer; unlabelled images count then).
        feature: the features that are compared, of both networks.
    """

    exemptions: ClassVar[Mapping[str, str]] = {
        "labels_do_not_matter": "regions are of one label, unless the teacher says what is of one class"
    }

    def __init__(self, weight: float = 50.0, class_source: str = "labels", feature: str = "encoder") -> None:
        super().__init__(weight, feature)
        self.class_source = check_class_source(class_source)

    def forward(self, step: Step) -> Tensor:
        ours, theirs, _ = align_features(step, self.feature, self.feature)
        classes = downsample_classes(step, (ours.shape[-2], ours.shape[-1]), self.class_source).flatten(1)
        of_class = one_hot_membership(classes, require_teacher(step).logits.shape[1])
        # Similarities are near one, and bfloat16 would keep two digits of their difference from it.
        with torch.autocast(ours.device.type, enabled=False):
            difference = similarity_to_class_center(ours.flatten(2), of_class) - similarity_to_class_center(
                theirs.flatten(2), of_class
            )
            return global_mean(difference.square().sum(), (classes != IGNORE_INDEX).sum())


def similarity_to_class_center(features: Tensor, of_class: Tensor) -> Tensor:
    """Cosine of each place's feature, of B C n, with the centre of its class, by B n K; B n, zero where it has none."""
    chosen = of_class.to(features)
    centres = features @ chosen  # sums: only their direction is used, and it is the mean's
    return (safe_normalize(features).mT @ safe_normalize(centres) * chosen).sum(2)
