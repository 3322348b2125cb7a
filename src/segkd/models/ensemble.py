"""Teachers with other classes, and several teachers combined into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from segkd.errors import UserError
from segkd.models.base import Normalization, SegmentationModel
from segkd.models.class_names import find_by_name
from segkd.types import FeatureInfo, NetworkOutput

ClassMap = Mapping[str, Sequence[int | str]]
"""Class of the dataset → classes of the network that are merged into it, by index or, where its file says them, by name."""

_MIN_PROBABILITY = 1e-12  # the logarithm of zero is not finite


class ClassRemap(SegmentationModel):
    """A network whose classes are merged into those of the dataset.

        Q_k = log Σ_{j in map(k)} exp Q_j

    so that the softmax is the sum of the network's probabilities over each class's group. Classes of the network that are in
    no group are dropped, and the remaining probabilities are renormalized. Its features stay; `kd_logits` becomes the logits.

    Args:
        network: the network to wrap.
        class_map: class of the dataset → the network's classes.
        classes: names of the dataset's classes, in order.

    Raises:
        UserError: a class of the dataset is missing, a class of the network is in two groups, or does not exist.
    """

    can_be_student = False

    def __init__(self, network: SegmentationModel, class_map: ClassMap, classes: Sequence[str]) -> None:
        groups = _parse_class_map(class_map, classes, network)
        features = {**network.features, "kd_logits": FeatureInfo(len(classes), _find_logits_stride(network))}
        super().__init__(len(classes), _make_identity_normalization(), features)
        self.align_corners, self.min_size = network.align_corners, network.min_size
        self.network = network
        self.groups = groups
        self.classes = tuple(classes)

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return merged logits and the network's features of images in 0..255."""
        output: NetworkOutput = self.network(images)
        network_logits = output.logits.float()
        logits = torch.stack([network_logits[:, group].logsumexp(1) for group in self.groups], 1)
        return logits, {**output.features, "kd_logits": logits}


class Ensemble(SegmentationModel):
    """Several networks whose probabilities are averaged.

        Q = log Σ_i w_i softmax(Q_i),   Σ w_i = 1

    at the size of the first network's logits. The other features are the first network's.

    Args:
        members: networks by name, all of the same classes.
        weights: by name; 1 where not given.

    Raises:
        UserError: there is no member, a weight without a member or a negative one, or members of different classes.
    """

    can_be_student = False
    has_members = True

    def __init__(
        self, members: Mapping[str, SegmentationModel] | None, weights: Mapping[str, float] | None = None
    ) -> None:
        if not members:
            raise UserError("an ensemble has members; give teacher.members.NAME={…} (docs/how-to/teachers.md)")
        all_weights = dict.fromkeys(members, 1.0) | dict(weights or {})
        if unknown := all_weights.keys() - members.keys():
            raise UserError(f"there is no member {', '.join(sorted(unknown))}; the members are {', '.join(members)}")
        total = sum(all_weights.values())
        if min(all_weights.values()) < 0 or total == 0:
            raise UserError(f"the members' weights must be positive, not {all_weights}")
        first, *others = members.values()
        if any(other.num_classes != first.num_classes for other in others):
            counts = ", ".join(f"{name} {member.num_classes}" for name, member in members.items())
            raise UserError(f"the members have unequal classes ({counts}); give class_map to those that differ")
        features = {**first.features, "kd_logits": FeatureInfo(first.num_classes, _find_logits_stride(first))}
        super().__init__(first.num_classes, _make_identity_normalization(), features)
        self.align_corners = first.align_corners
        self.min_size = max(member.min_size for member in members.values())
        self.members = nn.ModuleDict(members)
        self.weights = [all_weights[name] / total for name in members]

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the logarithm of the mean probabilities and the first network's features of images in 0..255."""
        outputs: list[NetworkOutput] = [member(images) for member in self.members.values()]
        first = outputs[0]
        size = (first.logits.shape[-2], first.logits.shape[-1])
        probabilities = sum(
            weight * output._replace(logits=output.logits.float()).logits_at(size).softmax(1)
            for weight, output in zip(self.weights, outputs, strict=True)
        )
        assert isinstance(probabilities, Tensor)
        logits = probabilities.clamp(min=_MIN_PROBABILITY).log()
        return logits, {**first.features, "kd_logits": logits}


def _find_logits_stride(network: SegmentationModel) -> int:
    if "kd_logits" not in network.features:
        raise UserError(
            f"{type(network).__name__} has no feature 'kd_logits', which every network has; declare it in its class"
        )
    return network.features["kd_logits"].stride


def _make_identity_normalization() -> Normalization:
    """Return a normalization without effect: the wrapped networks normalize their images themselves."""
    return Normalization((0, 0, 0), (1, 1, 1))


def _parse_class_map(class_map: ClassMap, classes: Sequence[str], network: SegmentationModel) -> list[list[int]]:
    """Return the network's classes for each class of the dataset, in order."""
    if unknown := class_map.keys() - set(classes):
        raise UserError(f"class_map names {', '.join(sorted(unknown))}; the classes are {', '.join(classes)}")
    if missing := [name for name in classes if not class_map.get(name)]:
        raise UserError(
            f"class_map leaves out {', '.join(missing)}; give the network's classes for each class of the dataset"
        )
    groups = [_parse_group(class_map[name], network) for name in classes]
    flat = [index for group in groups for index in group]
    if repeated := sorted({index for index in flat if flat.count(index) > 1}):
        raise UserError(
            f"class_map has {', '.join(map(str, repeated))} in two classes; put each class of the network into one. A network "
            "of coarser classes cannot be mapped: take one that tells them apart, or losses of features alone (pairwise, hint, …)"
        )
    if invalid := [index for index in flat if not 0 <= index < network.num_classes]:
        raise UserError(
            f"class_map has {', '.join(map(str, invalid))}; the network's classes are 0 to {network.num_classes - 1}"
        )
    return groups


def _parse_group(group: Sequence[int | str] | int | str, network: SegmentationModel) -> list[int]:
    """Return the indices of the network's classes that are merged into one."""
    entries = [group] if isinstance(group, (int, str)) else list(group)
    indices = [entry if type(entry) is int else find_by_name(network.classes or (), str(entry)) for entry in entries]
    if None in indices:
        known = ", ".join(network.classes or ()) or f"not known by name: give indices, 0 to {network.num_classes - 1}"
        raise UserError(f"class_map names {entries[indices.index(None)]!r}; the network's classes are {known}")
    return [index for index in indices if index is not None]
