"""`python -m segkd.stats`: color statistics, class frequencies and class weights of a split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pydantic import Field, PositiveInt

from segkd.builders.datasets import open_dataset
from segkd.cli.launch import launch
from segkd.config.schema import DatasetSpec, Settings, load_settings
from segkd.data.coverage import explain_absent, find_absent_classes
from segkd.data.statistics import compute_class_weights, compute_color_statistics, count_classes
from segkd.utils.files import atomic_write, make_dir, write_json
from segkd.utils.tables import print_table

_WEIGHT_RULES = ("enet", "median_frequency")


class StatsSettings(Settings):
    """Settings of `python -m segkd.stats`."""

    dataset: DatasetSpec = Field(description="the dataset")
    split: str = Field(description="split to measure", json_schema_extra={"values": "NAME"})
    output_dir: Path | None = Field(
        description="folder for stats.json; null: it is not written", json_schema_extra={"values": "DIR|null"}
    )
    workers: PositiveInt = Field(description="threads")


def stats(cfg: DictConfig) -> None:
    """Print a table, then mean and std as lines for `classes.yaml`; write `stats.json` if a folder is given."""
    settings = load_settings(cfg, StatsSettings)
    dataset = open_dataset(settings.dataset, settings.split)
    directory = None if settings.output_dir is None else make_dir(settings.output_dir)
    colors = compute_color_statistics(dataset, settings.workers, f"colors of {settings.split}")
    counts = count_classes(dataset, settings.workers, f"classes of {settings.split}")
    all_pixels = sum(counts.pixels)
    report: dict[str, Any] = {
        "dataset": dataset.display_name,
        "split": settings.split,
        "images": len(dataset),
        **colors._asdict(),
        "classes": [*dataset.classes, "void"],
        **counts._asdict(),
        "shares": [pixels / all_pixels for pixels in counts.pixels],
        "weights": {rule: compute_class_weights(rule, counts) for rule in _WEIGHT_RULES if any(counts.pixels[:-1])},
    }
    if directory is not None:
        with atomic_write(directory / "stats.json") as partial_file:
            write_json(partial_file, report)
    _print_report(report)
    if absent := find_absent_classes(counts):
        print(explain_absent(dataset, absent, f"no label of {settings.split}", counts))
    for key in ("mean", "std"):
        print(f"{key}: [{', '.join(f'{value:.3f}' for value in report[key])}]")


def _print_report(report: dict[str, Any]) -> None:
    rows = [["class", "pixels %", "images", *report["weights"]]]
    for i, name in enumerate(report["classes"]):
        weights = [f"{values[i]:.4f}" if i < len(values) else "" for values in report["weights"].values()]
        rows.append([name, f"{100 * report['shares'][i]:.3f}", str(report["images_with"][i]), *weights])
    print_table(rows, "table", f"{report['dataset']} {report['split']}, {report['images']} images")


if __name__ == "__main__":
    launch("stats")
