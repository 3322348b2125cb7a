"""COCO's run-length encoding, against pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco

from segkd.import_labels.rle import decode_rle, parse_compressed_runs

MASK = np.array([[0, 1, 1], [0, 1, 0]], bool)
RUNS = [2, 3, 1]  # down the columns


def test_runs_go_down_the_columns() -> None:
    np.testing.assert_array_equal(decode_rle(RUNS, (2, 3)), MASK)
    np.testing.assert_array_equal(decode_rle([0, 6], (2, 3)), np.ones((2, 3)))


@pytest.mark.parametrize("seed", range(8))
def test_compressed_runs_are_those_of_pycocotools(seed: int) -> None:
    generator = np.random.default_rng(seed)
    mask = (
        np.zeros((200, 300), np.uint8) if seed == 0 else (generator.random((200, 300)) < 10.0**-seed).astype(np.uint8)
    )
    mask[50:150, 20 : 20 + 10 * seed] = 1
    text = coco.encode(np.asfortranarray(mask))["counts"].decode()
    np.testing.assert_array_equal(decode_rle(text, mask.shape), mask)


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ([2, 3], "its runs have 5 pixels"),
        ([2, 3, 9], "its runs have 14 pixels"),
        ([], "its runs have 0 pixels"),
        ("", "its runs have 0 pixels"),
        ([2, -1, 5], "no whole numbers"),
        ([2.0, 4.0], "no whole numbers"),
        ([True, 5], "no whole numbers"),
        ("P", "damaged"),
        ("é", "damaged"),
        ("oooooooooooo1", "damaged"),
    ],
)
def test_runs_that_do_not_fill_the_mask_are_refused(counts: str | list[int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode_rle(counts, (2, 3))


def test_large_runs() -> None:
    text = coco.encode(np.asfortranarray(np.zeros((4000, 6000), np.uint8)))["counts"].decode()
    assert parse_compressed_runs(text) == [24_000_000]
