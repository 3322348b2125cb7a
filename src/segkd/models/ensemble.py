"""Teachers whose classes are not ours, and several teachers at once: what they say, made into one answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from segkd.errors import UserError
from segkd.models.base import Normalization, SegmentationModel
from segkd.types import FeatureInfo, NetworkOutput

ClassMap = Mapping[str, Sequence[int]]
"""Our class → the classes of a network that are it."""

_NOTHING = 1e-12  # the logarithm of a probability of zero is no number


class ClassRemap(SegmentationModel):
    """A network whose classes are gathered into ours.

        Q_k = log Σ_{j in map(k)} exp Q_j

    so that softmax over ours is the sum of the network's probabilities, over what is mapped at all: its other classes
    are left out and the rest is scaled to 1. Its features stay; `kd_logits` becomes the answer.

    Args:
        network: what answers.
        class_map: for every one of our classes, the network's.
        classes: ours, in order.

    Raises:
        UserError: one of our classes is left out, or a class of the network is in two, or there is no such class.
    """

    def __init__(self, network: SegmentationModel, class_map: ClassMap, classes: Sequence[str]) -> None:
        groups = _groups(class_map, classes, network.num_classes)
        features = {**network.features, "kd_logits": FeatureInfo(len(classes), network.features["kd_logits"].stride)}
        super().__init__(len(classes), _untouched(), features)
        self.align_corners = network.align_corners
        self.network = network
        self.groups = groups

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        answer: NetworkOutput = self.network(images)
        scores = answer.logits.float()
        logits = torch.stack([scores[:, group].logsumexp(1) for group in self.groups], 1)
        return logits, {**answer.features, "kd_logits": logits}


class Ensemble(SegmentationModel):
    """Several networks that answer as one.

        Q = log Σ_i w_i softmax(Q_i),   Σ w_i = 1

    at the size of the first network's answer, whose features they share.

    Args:
        members: by name, all of the same classes.
        weights: by name; 1 where not given.

    Raises:
        UserError: there is no member, a weight of no member or a negative one, or members of unequal classes.
    """

    def __init__(
        self, members: Mapping[str, SegmentationModel] | None, weights: Mapping[str, float] | None = None
    ) -> None:
        if not members:
            raise UserError("an ensemble has members; give teacher.members.NAME={…} (docs/how-to/custom-network.md)")
        given = dict.fromkeys(members, 1.0) | dict(weights or {})
        if strangers := given.keys() - members.keys():
            raise UserError(f"there is no member {', '.join(sorted(strangers))}; the members are {', '.join(members)}")
        if min(given.values()) < 0 or sum(given.values()) == 0:
            raise UserError(f"the members' weights must be positive, not {given}")
        first, *others = members.values()
        if any(other.num_classes != first.num_classes for other in others):
            counts = ", ".join(f"{name} {member.num_classes}" for name, member in members.items())
            raise UserError(f"the members score unequal classes ({counts}); give class_map to those that differ")
        features = {**first.features, "kd_logits": FeatureInfo(first.num_classes, first.features["kd_logits"].stride)}
        super().__init__(first.num_classes, _untouched(), features)
        self.align_corners = first.align_corners
        self.members = nn.ModuleDict(members)
        self.shares = [given[name] / sum(given.values()) for name in members]

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        answers: list[NetworkOutput] = [member(images) for member in self.members.values()]
        first = answers[0]
        size = (first.logits.shape[-2], first.logits.shape[-1])
        probabilities = sum(
            share * answer._replace(logits=answer.logits.float()).logits_at(size).softmax(1)
            for share, answer in zip(self.shares, answers, strict=True)
        )
        assert isinstance(probabilities, Tensor)
        logits = probabilities.clamp(min=_NOTHING).log()
        return logits, {**first.features, "kd_logits": logits}


def _untouched() -> Normalization:
    """Members normalise for themselves."""
    return Normalization((0, 0, 0), (1, 1, 1))


def _groups(class_map: ClassMap, classes: Sequence[str], theirs: int) -> list[list[int]]:
    if strangers := class_map.keys() - set(classes):
        raise UserError(f"class_map names {', '.join(sorted(strangers))}; the classes are {', '.join(classes)}")
    left_out = [name for name in classes if not class_map.get(name)]
    if left_out:
        raise UserError(
            f"class_map leaves out {', '.join(left_out)}; say which of the network's classes each of ours is"
        )
    groups = [list(class_map[name]) for name in classes]
    flat = [index for group in groups for index in group]
    if twice := sorted({index for index in flat if flat.count(index) > 1}):
        raise UserError(
            f"class_map has {', '.join(map(str, twice))} in two classes; each class of the network is one of ours"
        )
    if beyond := [index for index in flat if not 0 <= index < theirs]:
        raise UserError(f"class_map has {', '.join(map(str, beyond))}; the network's classes are 0 to {theirs - 1}")
    return groups
