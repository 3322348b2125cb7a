"""Check, before the first step, that the labels hold what the student is to learn."""

from __future__ import annotations

import logging

from segkd.data.base import SegmentationDataset
from segkd.data.coverage import count_unless_covered, explain_absent, explain_ignored, find_absent_classes, merge_counts
from segkd.data.statistics import ClassCounts
from segkd.errors import UserError

log = logging.getLogger(__name__)


def check_labels(train: SegmentationDataset, val: SegmentationDataset) -> None:
    """Warn of classes that no training label holds, and of a validation split without labels.

    Raises:
        UserError: no pixel of the training split is labeled.
    """
    counts = count_unless_covered(train)
    if counts is not None and not any(counts.pixels[:-1]):
        cause = explain_ignored(train, counts, "a class")
        raise UserError(
            f"none of the {len(train)} labels of {train.display_name} {train.split} has a labeled pixel: {cause}; "
            "correct the labels, or choose another data.train_split"
        )
    absent = [] if counts is None else find_absent_classes(counts)
    val_counts = count_unless_covered(val, absent)
    if val_counts is not None and not any(val_counts.pixels[:-1]):
        log.warning(
            "%s %s has no labeled pixel, so val mIoU will be undefined; choose another data.val_split to score the student",
            *(val.display_name, val.split),
        )
    if counts is not None:
        _warn_of_absent(train, val.split, counts, val_counts)


def _warn_of_absent(
    train: SegmentationDataset, val_split: str, counts: ClassCounts, val_counts: ClassCounts | None
) -> None:
    """Warn of the classes that neither split holds, and of those that the validation split alone holds."""
    absent = find_absent_classes(counts)
    nowhere = [] if val_counts is None else [i for i in absent if not val_counts.pixels[i]]
    if nowhere:
        assert val_counts is not None
        both = merge_counts([counts, val_counts])
        scope = f"no label of {' or '.join(dict.fromkeys((train.split, val_split)))}"
        log.warning("%s", explain_absent(train, nowhere, scope, both))
    if only_val := [i for i in absent if i not in nowhere]:
        scope = f"no label of {train.split}, only in those of {val_split}"
        log.warning("%s", explain_absent(train, only_val, scope, counts))
