"""Run-length encoded masks of COCO.

pycocotools returns memory that it has not set for runs that do not fill the mask, so they are decoded here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segkd.import_labels.annotations import Mask

_MAX_DIGITS = 7  # of five bits each: more than a run within the largest image needs


def decode_rle(counts: str | Sequence[int], size: tuple[int, int]) -> Mask:
    """Return the mask of alternating runs of 0 and 1 down the columns, the first of 0.

    Args:
        counts: Lengths of the runs, or their compressed form.
        size: Height and width.

    Raises:
        ValueError: The runs do not fill the mask exactly, or are no whole numbers.
    """
    runs = parse_compressed_runs(counts) if isinstance(counts, str) else list(counts)
    if not all(type(run) is int and run >= 0 for run in runs):
        raise ValueError("it holds runs that are no whole numbers from 0")
    height, width = size
    if sum(runs) != height * width:
        raise ValueError(f"its runs have {sum(runs)} pixels")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def parse_compressed_runs(text: str) -> list[int]:
    """Return the runs that a text encodes: digits of five bits from the lowest, and from the fourth on differences to the last but one.

    Raises:
        ValueError: The text is no such code.
    """
    runs: list[int] = []
    digits: list[int] = []
    for character in text:
        digit = ord(character) - 48
        if not 0 <= digit < 64 or len(digits) == _MAX_DIGITS:
            raise ValueError("its compressed runs are damaged")
        digits.append(digit & 31)
        if digit & 32:  # more digits follow
            continue
        value = sum(part << 5 * i for i, part in enumerate(digits))
        if digit & 16:  # negative
            value -= 1 << 5 * len(digits)
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        digits.clear()
    if digits:
        raise ValueError("its compressed runs are damaged")
    return runs
