"""Normalization and the renaming of keys."""

from __future__ import annotations

import pytest
import torch

from segkd.models.base import Normalization, add_num_batches_tracked, rename_keys


def test_normalization_matches_hand_computed_values() -> None:
    """Mean and std are in RGB order, whatever order the network reads."""
    pixel = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1)
    rgb = Normalization((4, 10, 20), (2, 5, 10))
    bgr = Normalization((4, 10, 20), (2, 5, 10), bgr=True)
    assert rgb(pixel).flatten().tolist() == [3, 2, 1]
    assert bgr(pixel).flatten().tolist() == [1, 2, 3]
    assert rgb(pixel + 0.5).flatten().tolist() == pytest.approx([3.25, 2.1, 1.05]), (
        "an integer mean must not round the images"
    )


def test_normalization_survives_to_dict_bit_for_bit() -> None:
    images = torch.rand(2, 3, 4, 5) * 255
    normalization = Normalization((105.03321838378906, 0.1, 1 / 3), (69.9, 1e-3, 255 * 0.1), bgr=True)
    assert torch.equal(Normalization(**normalization.to_dict())(images), normalization(images))
    assert not normalization.state_dict(), "it belongs to the spec of a network, not to its weights"


def test_rename_keys_replaces_the_longest_prefix() -> None:
    zero = torch.zeros(())
    state = dict.fromkeys(("bn.weight", "bn.bn.weight", "act.weight", "inner.bn.weight"), zero)
    renamed = rename_keys(state, {"bn.": "norm.", "bn.bn.": "norm.norm."})
    assert list(renamed) == ["norm.weight", "norm.norm.weight", "act.weight", "inner.bn.weight"]


def test_num_batches_tracked_is_added_only_where_missing() -> None:
    state = {
        "a.running_mean": torch.zeros(2),
        "b.running_mean": torch.zeros(2),
        "b.num_batches_tracked": torch.tensor(7),
    }
    completed = add_num_batches_tracked(state)
    assert completed["a.num_batches_tracked"] == 0
    assert completed["b.num_batches_tracked"] == 7
    assert len(completed) == 4
