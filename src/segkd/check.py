"""`python -m segkd.check`: find faults in the files of a dataset."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pydantic import Field, NonNegativeInt, PositiveInt

from segkd.builders.datasets import open_splits
from segkd.cli.launch import launch
from segkd.config.schema import DatasetSpec, Settings, load_settings
from segkd.data.base import FileDataset
from segkd.data.class_table import find_near_names
from segkd.data.coverage import find_class_issues
from segkd.data.file_issues import find_file_issues, find_size_issue
from segkd.data.folder import METADATA_FILE, Folder
from segkd.data.integrity import Issue, SampleReport, find_cross_split_issues, inspect_sample
from segkd.data.label_issues import find_conversions, find_palette_issues
from segkd.data.label_pictures import draw_label_pictures
from segkd.data.proposal import format_proposal, propose_class_table, propose_classes
from segkd.data.split_issues import find_near_duplicate_issues
from segkd.data.statistics import sum_counts
from segkd.errors import UserError
from segkd.utils.files import atomic_write, make_dir, write_json
from segkd.utils.tables import print_table
from segkd.utils.threads import thread_map

MAX_PRINTED = 10
"""Number of issues printed of each kind; check.json lists all."""
_MAX_SIZES = 3  # per split, in the table


class CheckSettings(Settings):
    """Settings of `python -m segkd.check`."""

    dataset: DatasetSpec = Field(description="the dataset")
    splits: list[str] | None = Field(
        description="splits to check; null: all that exist", json_schema_extra={"values": "[NAME,…]|null"}
    )
    output_dir: Path | None = Field(
        description="folder for check.json, which lists every fault; null: it is not written",
        json_schema_extra={"values": "DIR|null"},
    )
    pictures: NonNegativeInt = Field(
        description="images of each split whose labels are drawn over them, in output_dir/pictures"
    )
    workers: PositiveInt = Field(description="threads")


def check(cfg: DictConfig) -> None:
    """Print a table and the faults, and write `check.json` and pictures of labels if a folder is given.

    Raises:
        UserError: The dataset cannot be opened, or a file cannot be written.
        SystemExit: With code 1 if there are faults.
    """
    settings = load_settings(cfg, CheckSettings)
    if settings.pictures and settings.output_dir is None:
        raise UserError(f"pictures={settings.pictures} needs a folder; give output_dir=DIR")
    _check_has_classes(settings)
    splits = open_splits(settings.dataset, settings.splits, complete=False)
    directory = None if settings.output_dir is None else make_dir(settings.output_dir)
    samples = {
        name: list(thread_map(partial(inspect_sample, split), range(len(split)), settings.workers, f"checking {name}"))
        for name, split in splits.items()
    }
    report = _build_report(splits, samples, is_complete=settings.splits is None)
    if directory is not None:
        with atomic_write(directory / "check.json") as partial_file:
            write_json(partial_file, report)
        _draw_pictures(splits, samples, settings.pictures, directory / "pictures")
    _print_report(report)
    images, faults = sum(map(len, samples.values())), len(report["faults"])
    print(f"{report['dataset']}: {images} images, {faults or 'no'} fault{'s' * (faults != 1)}")
    if faults:
        raise SystemExit(1)


def _draw_pictures(
    splits: Mapping[str, FileDataset], samples: Mapping[str, Sequence[SampleReport]], count: int, folder: Path
) -> None:
    """Draw labels of each split over their images, of samples without faults."""
    for name, split in splits.items() if count else ():
        is_faulty = [any(issue.severity == "fault" for issue in sample.issues) for sample in samples[name]]
        draw_label_pictures(split, [i for i, faulty in enumerate(is_faulty) if not faulty], count, make_dir(folder))


def _check_has_classes(settings: CheckSettings) -> None:
    """Print a proposal for a `classes.yaml` that is missing, or empty since this output is redirected to it.

    Raises:
        UserError: It is, and labels are there to propose one from.
    """
    if not issubclass(settings.dataset.target, Folder):
        return
    path = Folder.resolve_root(settings.dataset.arguments.get("root")) / METADATA_FILE
    is_empty = path.is_file() and path.stat().st_size == 0
    if (is_empty or not find_near_names(path)) and (proposal := propose_class_table(path.parent, settings.workers)):
        print(format_proposal(proposal))
        layout = "" if (path.parent / "images").is_dir() else f"; {Folder.download_hint}"
        state = f"{path} is empty" if is_empty else f"there is no {path}"
        raise UserError(
            f"{state}; the lines on stdout are a proposal: name the classes, move what is void to "
            f"'ignore', and save them there{layout}"
        )


def _build_report(
    splits: Mapping[str, FileDataset], samples: Mapping[str, Sequence[SampleReport]], is_complete: bool
) -> dict[str, Any]:
    """Return the content of `check.json`."""
    issues = _collect_issues(splits, samples, is_complete)
    dataset = next(iter(splits.values()))
    return {
        "dataset": dataset.display_name,
        "root": str(dataset.root),
        "splits": {
            name: {"images": len(reports), "sizes": dict(_count_sizes(reports)), **_count_pixels(dataset, reports)}
            for name, reports in samples.items()
        },
        "faults": [_to_dict(issue) for issue in issues if issue.severity == "fault"],
        "notes": [_to_dict(issue) for issue in issues if issue.severity == "note"],
        "proposal": propose_classes(
            ((sample.label_encoding, sample.colors) for sample in itertools.chain(*samples.values())),
            dict(zip(dataset.colors, dataset.classes, strict=True)),
        ),
    }


def _collect_issues(
    splits: Mapping[str, FileDataset], samples: Mapping[str, Sequence[SampleReport]], is_complete: bool
) -> list[Issue]:
    """Return all issues, faults first, each sorted by path; a file in two splits has its issues twice, so they are deduplicated."""
    issues = [issue for reports in samples.values() for report in reports for issue in report.issues]
    misnamed = {image for split in splits.values() for image in split.misnamed_labels}  # one issue for all
    issues = [issue for issue in issues if issue.kind != "no label" or issue.path not in misnamed]
    issues += find_file_issues(splits)
    issues += find_cross_split_issues(samples)
    issues += find_near_duplicate_issues(next(iter(splits.values())).root, samples)
    issues += find_class_issues(next(iter(splits.values())), samples, is_complete)
    issues += find_size_issue(next(iter(splits.values())), samples)
    issues += find_palette_issues(next(iter(splits.values())), [*itertools.chain(*samples.values())])
    issues += find_conversions([*itertools.chain(*samples.values())])
    return sorted(dict.fromkeys(issues), key=lambda issue: (issue.severity == "note", issue.path))


def _to_dict(issue: Issue) -> dict[str, str]:
    return {"file": str(issue.path), "kind": issue.kind, "what": issue.message}


def _count_sizes(samples: Sequence[SampleReport]) -> list[tuple[str, int]]:
    """Return the number of images of each size, height × width, most common first."""
    return Counter(f"{sample.size[0]}×{sample.size[1]}" for sample in samples if sample.size).most_common()


def _count_pixels(dataset: FileDataset, samples: Sequence[SampleReport]) -> dict[str, Any]:
    """Return the pixels of each class, and of each ignored value, in the labels that can be read."""
    counts = sum_counts((sample.counts for sample in samples if sample.counts), len(dataset.classes))
    return {"pixels": dict(zip(dataset.classes, counts.pixels, strict=False)), "ignored": counts.ignored}


def _print_report(report: dict[str, Any]) -> None:
    rows = [["split", "images", "height × width"]]
    for name, split in report["splits"].items():
        sizes = [f"{size} ({count})" for size, count in split["sizes"].items()]
        hidden = f" and {len(sizes) - _MAX_SIZES} more" if len(sizes) > _MAX_SIZES else ""
        rows.append([name, str(split["images"]), ", ".join(sizes[:_MAX_SIZES]) + hidden])
    print_table(rows, "table", report["dataset"])
    _print_issues(report["faults"], "fault", "")
    _print_issues(report["notes"], "note", "note: ")
    if report["proposal"] is not None:
        print(f"proposed for {METADATA_FILE} of dataset=folder (docs/how-to/custom-dataset.md):")
        print(format_proposal(report["proposal"]))


def _print_issues(issues: Sequence[dict[str, str]], severity: str, prefix: str) -> None:
    """Print the first issues of each kind, and how many more there are."""
    counts: Counter[str] = Counter()
    for issue in issues:
        counts[issue["kind"]] += 1
        if counts[issue["kind"]] <= MAX_PRINTED:
            print(f"{prefix}{issue['what']}")
    for kind, count in counts.items():
        if (hidden := count - MAX_PRINTED) > 0:
            print(
                f"{prefix}{hidden} more {severity}{'s' * (hidden > 1)} of the kind '{kind}'; output_dir=DIR writes all to check.json"
            )


if __name__ == "__main__":
    launch("check")
