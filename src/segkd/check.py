"""`python -m segkd.check`: what is wrong with the files of a data set, before a training finds it."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig
from pydantic import PositiveInt
from rich.console import Console
from rich.table import Column, Table

from segkd.build.datasets import open_splits
from segkd.cli.launch import launch
from segkd.config.schema import Settings, SpecNode, load_settings
from segkd.data.base import FileDataset
from segkd.data.folder import METADATA_FILE
from segkd.data.integrity import Issue, SampleReport, cross_split_issues, inspect_sample
from segkd.utils.files import atomic_write, make_dir
from segkd.utils.threads import thread_map

MAX_SHOWN = 40
"""Faults in print; check.json has all."""


class CheckSettings(Settings):
    """`python -m segkd.check`."""

    dataset: SpecNode
    splits: list[str] | None
    output_dir: Path | None
    workers: PositiveInt


def check(cfg: DictConfig) -> None:
    """Print a table and the faults, write `check.json` if a folder is given; exit code 1 where there are faults."""
    settings = load_settings(cfg, CheckSettings)
    splits = open_splits(settings.dataset, settings.splits, complete=False)
    directory = None if settings.output_dir is None else make_dir(settings.output_dir)
    seen = {
        name: list(thread_map(partial(inspect_sample, split), range(len(split)), settings.workers, f"checking {name}"))
        for name, split in splits.items()
    }
    facts = _facts(splits, seen, _faults(splits, seen))
    if directory is not None:
        with atomic_write(directory / "check.json") as part:
            part.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    _show(facts)
    images, faults = sum(map(len, seen.values())), len(facts["faults"])
    print(f"{facts['dataset']}: {images} images, {faults or 'no'} fault{'s' * (faults != 1)}")
    if faults:
        raise SystemExit(1)


def _faults(splits: Mapping[str, FileDataset], seen: Mapping[str, Sequence[SampleReport]]) -> list[Issue]:
    """All of them, by path, the notes last; what a file of two splits has is met twice."""
    faults = [fault for samples in seen.values() for sample in samples for fault in sample.faults]
    orphans = {label for name, split in splits.items() for label in split.labels_without_image(name)}
    faults += [Issue(label, "no image", f"{label} has no image") for label in orphans]
    faults += cross_split_issues(seen)
    return sorted(dict.fromkeys(faults), key=lambda fault: (fault.note, fault.path))


def propose_classes(dataset: FileDataset, samples: Iterable[SampleReport]) -> dict[str, Any] | None:
    """Where labels are coded in another way than the data set says: how, and the classes by code, as `dataset=folder` takes them.

    Classes that the data set has the colour of are named after it.
    """
    otherwise = [seen for seen in samples if seen.coding]
    if not otherwise:
        return None
    coding = Counter(seen.coding for seen in otherwise).most_common(1)[0][0]
    colors = {code: color for seen in otherwise if seen.coding == coding for code, color in seen.colors.items()}
    known = dict(zip(dataset.colors, dataset.classes, strict=True))
    classes = [
        {"name": known.get(color, f"class {i}"), **({"id": code} if coding == "palette" else {}), "color": list(color)}
        for i, (code, color) in enumerate(sorted(colors.items()))
    ]
    return {"labels": coding, "classes": classes}


def _facts(
    splits: Mapping[str, FileDataset], seen: Mapping[str, Sequence[SampleReport]], faults: list[Issue]
) -> dict[str, Any]:
    first = next(iter(splits.values()))
    return {
        "dataset": first.display_name(),
        "root": str(first.root),
        "splits": {name: {"images": len(samples), "sizes": dict(_sizes(samples))} for name, samples in seen.items()},
        "faults": [_plain(fault) for fault in faults if not fault.note],
        "notes": [_plain(fault) for fault in faults if fault.note],
        "proposal": propose_classes(first, itertools.chain(*seen.values())),
    }


def _plain(fault: Issue) -> dict[str, str]:
    return {"file": str(fault.path), "kind": fault.kind, "what": fault.what}


def _sizes(samples: Sequence[SampleReport]) -> list[tuple[str, int]]:
    """How many images there are of each size, height × width, the commonest first."""
    return Counter(f"{seen.size[0]}×{seen.size[1]}" for seen in samples if seen.size).most_common()


def _show(facts: dict[str, Any]) -> None:
    table = Table(Column("split"), Column("images", justify="right"), Column("height × width"), title=facts["dataset"])
    for name, split in facts["splits"].items():
        sizes = [f"{size} ({count})" for size, count in split["sizes"].items()]
        more = f" and {len(sizes) - 3} more" if len(sizes) > 3 else ""
        table.add_row(name, str(split["images"]), ", ".join(sizes[:3]) + more)
    Console().print(table)
    said = [*(fault["what"] for fault in facts["faults"]), *(f"note: {note['what']}" for note in facts["notes"])]
    print(*said[:MAX_SHOWN], sep="\n", end="\n" * bool(said))
    if len(said) > MAX_SHOWN:
        print(f"and {len(said) - MAX_SHOWN} more; output_dir=DIR writes all to check.json")
    if facts["proposal"] is not None:
        print(
            f"proposed for {METADATA_FILE} of dataset=folder (docs/how-to/custom-dataset.md):",
            f"labels: {facts['proposal']['labels']}",
            sep="\n",
        )
        lines = (
            yaml.safe_dump(entry, default_flow_style=True, sort_keys=False) for entry in facts["proposal"]["classes"]
        )
        print("classes:", *(f"  - {line.strip()}" for line in lines), sep="\n")


if __name__ == "__main__":
    launch("check")
