"""`python -m segkd.check`: find faults in the files of a dataset."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig
from pydantic import Field, PositiveInt

from segkd.builders.datasets import open_splits
from segkd.cli.launch import launch
from segkd.config.schema import DatasetSpec, Settings, load_settings
from segkd.data.base import FileDataset
from segkd.data.folder import METADATA_FILE
from segkd.data.integrity import Issue, SampleReport, find_cross_split_issues, inspect_sample
from segkd.utils.files import atomic_write, make_dir, write_json
from segkd.utils.tables import print_table
from segkd.utils.threads import thread_map

MAX_PRINTED = 40
"""Number of issues printed; check.json lists all."""
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
    workers: PositiveInt = Field(description="threads")


def check(cfg: DictConfig) -> None:
    """Print a table and all faults, and write `check.json` if a folder is given.

    Raises:
        SystemExit: With code 1 if there are faults.
    """
    settings = load_settings(cfg, CheckSettings)
    splits = open_splits(settings.dataset, settings.splits, complete=False)
    directory = None if settings.output_dir is None else make_dir(settings.output_dir)
    samples = {
        name: list(thread_map(partial(inspect_sample, split), range(len(split)), settings.workers, f"checking {name}"))
        for name, split in splits.items()
    }
    report = _build_report(splits, samples)
    if directory is not None:
        with atomic_write(directory / "check.json") as partial_file:
            write_json(partial_file, report)
    _print_report(report)
    images, faults = sum(map(len, samples.values())), len(report["faults"])
    print(f"{report['dataset']}: {images} images, {faults or 'no'} fault{'s' * (faults != 1)}")
    if faults:
        raise SystemExit(1)


def propose_classes(dataset: FileDataset, samples: Iterable[SampleReport]) -> dict[str, Any] | None:
    """Propose `labels` and `classes` of a `classes.yaml` for labels in another encoding than the dataset's.

    Classes get the name that the dataset has for their color.

    Returns:
        The proposal, or None if no label has another encoding.
    """
    differing = [sample for sample in samples if sample.label_encoding]
    if not differing:
        return None
    encoding = Counter(sample.label_encoding for sample in differing).most_common(1)[0][0]
    colors = {
        value: color
        for sample in differing
        if sample.label_encoding == encoding
        for value, color in sample.colors.items()
    }
    names = dict(zip(dataset.colors, dataset.classes, strict=True))
    classes = [
        {
            "name": names.get(color, f"class {i}"),
            **({"id": value} if encoding == "palette" else {}),
            "color": list(color),
        }
        for i, (value, color) in enumerate(sorted(colors.items()))
    ]
    return {"labels": encoding, "classes": classes}


def _build_report(splits: Mapping[str, FileDataset], samples: Mapping[str, Sequence[SampleReport]]) -> dict[str, Any]:
    """Return the content of `check.json`."""
    issues = _collect_issues(splits, samples)
    dataset = next(iter(splits.values()))
    return {
        "dataset": dataset.display_name,
        "root": str(dataset.root),
        "splits": {
            name: {"images": len(reports), "sizes": dict(_count_sizes(reports))} for name, reports in samples.items()
        },
        "faults": [_to_dict(issue) for issue in issues if issue.severity == "fault"],
        "notes": [_to_dict(issue) for issue in issues if issue.severity == "note"],
        "proposal": propose_classes(dataset, itertools.chain(*samples.values())),
    }


def _collect_issues(splits: Mapping[str, FileDataset], samples: Mapping[str, Sequence[SampleReport]]) -> list[Issue]:
    """Return all issues, faults first, each sorted by path; a file in two splits has its issues twice, so they are deduplicated."""
    issues = [issue for reports in samples.values() for report in reports for issue in report.issues]
    unpaired = {label for name, split in splits.items() for label in split.find_labels_without_image(name)}
    issues += [Issue(label, "no image", f"{label} has no image") for label in unpaired]
    issues += find_cross_split_issues(samples)
    return sorted(dict.fromkeys(issues), key=lambda issue: (issue.severity == "note", issue.path))


def _to_dict(issue: Issue) -> dict[str, str]:
    return {"file": str(issue.path), "kind": issue.kind, "what": issue.message}


def _count_sizes(samples: Sequence[SampleReport]) -> list[tuple[str, int]]:
    """Return the number of images of each size, height × width, most common first."""
    return Counter(f"{sample.size[0]}×{sample.size[1]}" for sample in samples if sample.size).most_common()


def _print_report(report: dict[str, Any]) -> None:
    rows = [["split", "images", "height × width"]]
    for name, split in report["splits"].items():
        sizes = [f"{size} ({count})" for size, count in split["sizes"].items()]
        hidden = f" and {len(sizes) - _MAX_SIZES} more" if len(sizes) > _MAX_SIZES else ""
        rows.append([name, str(split["images"]), ", ".join(sizes[:_MAX_SIZES]) + hidden])
    print_table(rows, "table", report["dataset"])
    lines = [issue["what"] for issue in report["faults"]] + [f"note: {issue['what']}" for issue in report["notes"]]
    print(*lines[:MAX_PRINTED], sep="\n", end="\n" * bool(lines))
    if len(lines) > MAX_PRINTED:
        print(f"and {len(lines) - MAX_PRINTED} more; output_dir=DIR writes all to check.json")
    if report["proposal"] is not None:
        _print_proposal(report["proposal"])


def _print_proposal(proposal: dict[str, Any]) -> None:
    print(f"proposed for {METADATA_FILE} of dataset=folder (docs/how-to/custom-dataset.md):")
    print(f"labels: {proposal['labels']}", "classes:", sep="\n")
    for entry in proposal["classes"]:
        print(f"  - {yaml.safe_dump(entry, default_flow_style=True, sort_keys=False).strip()}")


if __name__ == "__main__":
    launch("check")
