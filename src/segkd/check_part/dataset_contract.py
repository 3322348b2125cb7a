"""The contract of a dataset, line by line; `data/base.py` says it in words.

In a test of one's own, on a few files in the dataset's layout:

    def test_my_dataset_keeps_the_contract():
        findings = check_dataset(partial(MyDataset, "tests/data"))
        assert [str(finding) for finding in findings if finding.is_fault] == []
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from segkd.check_part import dataset_metadata, dataset_samples
from segkd.check_part.dataset_metadata import DatasetCase
from segkd.check_part.findings import Finding, check_line
from segkd.data.base import SegmentationDataset
from segkd.errors import UserError

CHECKS: Mapping[str, Callable[[DatasetCase], None]] = {
    "splits": dataset_metadata.check_splits,
    "classes": dataset_metadata.check_classes,
    "colors": dataset_metadata.check_colors,
    "label_map": dataset_metadata.check_label_map,
    "statistics": dataset_metadata.check_statistics,
    "size": dataset_metadata.check_size,
    "unknown_split": dataset_metadata.check_unknown_split,
    "samples": dataset_samples.check_samples,
    "names": dataset_samples.check_names,
    "repeatable_reads": dataset_samples.check_repeatable_reads,
    "labels_alone": dataset_samples.check_labels_alone,
    "workers": dataset_samples.check_workers,
    "missing_label": dataset_samples.check_missing_label,
    "damaged_file": dataset_samples.check_damaged_file,
}
"""Line of the contract → its check, which raises a `ContractFault`."""


def check_dataset(
    open_split: Callable[..., SegmentationDataset], lines: Iterable[str] = tuple(CHECKS)
) -> list[Finding]:
    """Return a finding for each line of the contract.

    Args:
        open_split: the class, or a function that opens a split; it is called with `split=NAME`, and with `complete=False`.
        lines: what to check; by default everything.

    Raises:
        UserError: what it opens is no `SegmentationDataset`, or cannot be opened.
    """
    dataset: object = open_split(split="train")
    if not isinstance(dataset, SegmentationDataset):
        raise UserError(
            f"{type(dataset).__name__} is no dataset; make it a subclass of segkd.data.base.SegmentationDataset or FileDataset"
        )
    case = DatasetCase(open_split, dataset)
    return [check_line(line, partial(CHECKS[line], case)) for line in lines]
