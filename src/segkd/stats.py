"""`python -m segkd.stats`: colours and classes of a split in numbers, and the class weights that follow from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pydantic import PositiveInt
from rich.console import Console
from rich.table import Column, Table

from segkd.build.datasets import open_dataset
from segkd.cli.launch import launch
from segkd.config.schema import Settings, SpecNode, load_settings
from segkd.data.statistics import compute_class_weights, compute_color_statistics, count_classes
from segkd.utils.files import atomic_write, make_dir


class StatsSettings(Settings):
    """`python -m segkd.stats`."""

    dataset: SpecNode
    split: str
    output_dir: Path | None
    workers: PositiveInt


def stats(cfg: DictConfig) -> None:
    """Print a table and, last, two lines of mean and deviation as `classes.yaml` takes them; write `stats.json` if a folder is given."""
    settings = load_settings(cfg, StatsSettings)
    dataset = open_dataset(settings.dataset, settings.split)
    directory = None if settings.output_dir is None else make_dir(settings.output_dir)
    colors = compute_color_statistics(dataset, settings.workers, f"colours of {settings.split}")
    counts = count_classes(dataset, settings.workers, f"classes of {settings.split}")
    all_pixels = sum(counts.pixels)
    facts: dict[str, Any] = {
        "dataset": dataset.display_name(),
        "split": settings.split,
        "images": len(dataset),
        **colors._asdict(),
        "classes": [*dataset.classes, "void"],
        **counts._asdict(),
        "shares": [pixels / all_pixels for pixels in counts.pixels],
        "weights": {rule: compute_class_weights(rule, counts) for rule in ("enet", "median_frequency")},
    }
    if directory is not None:
        with atomic_write(directory / "stats.json") as part:
            part.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    _show(facts)
    print(*(f"{key}: [{', '.join(f'{value:.3f}' for value in facts[key])}]" for key in ("mean", "std")), sep="\n")


def _show(facts: dict[str, Any]) -> None:
    title = f"{facts['dataset']} {facts['split']}, {facts['images']} images"
    numbers = ("pixels %", "images", *facts["weights"])
    table = Table(Column("class"), *(Column(name, justify="right") for name in numbers), title=title)
    for i, name in enumerate(facts["classes"]):
        weights = [f"{values[i]:.4f}" if i < len(values) else "" for values in facts["weights"].values()]
        table.add_row(name, f"{100 * facts['shares'][i]:.3f}", str(facts["images_with"][i]), *weights)
    Console().print(table)


if __name__ == "__main__":
    launch("stats")
