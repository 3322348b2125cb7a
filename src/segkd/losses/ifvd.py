"""Intra-class feature variation: a place is as typical of its class to the student as it is to the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from segkd.losses.base import FeatureLoss, directions, global_mean, side_by_side, teacher_of
from segkd.losses.places import check_regions, classes_at, members
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
        regions: who says which places are of one class, `labels` or `teacher` (its answer; unlabelled images count then).
        tap: the features that are compared, of both networks.
    """

    exemptions: ClassVar[Mapping[str, str]] = {
        "labels_do_not_matter": "regions are of one label, unless the teacher says what is of one class"
    }

    def __init__(self, weight: float = 50.0, regions: str = "labels", tap: str = "encoder") -> None:
        super().__init__(weight, tap)
        self.regions = check_regions(regions)

    def forward(self, step: Step) -> Tensor:
        ours, theirs, _ = side_by_side(step, self.tap, self.tap)
        classes = classes_at(step, (ours.shape[-2], ours.shape[-1]), self.regions).flatten(1)
        of_class = members(classes, teacher_of(step).logits.shape[1])
        # Similarities are near one, and bfloat16 would keep two digits of their difference from it.
        with torch.autocast(ours.device.type, enabled=False):
            difference = typicality(ours.flatten(2), of_class) - typicality(theirs.flatten(2), of_class)
            return global_mean(difference.square().sum(), (classes != IGNORE_INDEX).sum())


def typicality(features: Tensor, of_class: Tensor) -> Tensor:
    """Cosine of each place's feature, of B C n, with the centre of its class, by B n K; B n, zero where it has none."""
    chosen = of_class.to(features)
    centres = features @ chosen  # sums: only their direction is used, and it is the mean's
    return (directions(features).mT @ directions(centres) * chosen).sum(2)
