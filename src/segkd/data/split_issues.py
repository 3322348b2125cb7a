"""Images that show nearly the same in two splits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from segkd.data.integrity import Issue, SampleReport
from segkd.data.near_duplicates import MAX_DISTANCE, find_nearest


def find_near_duplicate_issues(root: Path, samples: Mapping[str, Sequence[SampleReport]]) -> Iterator[Issue]:
    """Note once for two splits how many images of one are near-duplicates of some of the other; equal pixels are faults elsewhere.

    Args:
        root: Folder of the dataset.
        samples: Split → reports on its samples.
    """
    known = {
        split: [(report, row) for report in reports if (row := report.fingerprint) is not None]
        for split, reports in samples.items()
    }
    for one, other in itertools.combinations(known, 2):
        if not known[one] or not known[other]:
            continue
        rows = [np.stack([row for _, row in known[split]]) for split in (other, one)]
        nearest = zip(known[other], find_nearest(*rows), strict=True)
        pairs = [(known[one][i][0], report) for (report, _), (i, distance) in nearest if distance <= MAX_DISTANCE]
        pairs = [(first, second) for first, second in pairs if first.digest != second.digest]
        if pairs:
            first, second = pairs[0]
            count = len(pairs)
            shown = "shows nearly the same as an image" if count == 1 else "show nearly the same as images"
            yield Issue(
                root,
                "near-duplicate",
                f"{count} of {len(known[other])} images of {other} {shown} of {one}, such as {second.path} and {first.path}; the frames "
                "of a sequence belong in one split, or scores are too high",
                "note",
            )
