"""`python -m segkd.pack`: decode a dataset into one memory-mapped file per split, for `dataset=packed`."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig
from pydantic import Field, PositiveInt

from segkd.builders.datasets import open_splits
from segkd.cli.launch import launch
from segkd.cli.quoting import format_shell_override
from segkd.config.schema import DatasetSpec, Settings, load_settings
from segkd.data.packed import write_pack
from segkd.errors import UserError
from segkd.utils.files import atomic_write, make_dir


class PackSettings(Settings):
    """Settings of `python -m segkd.pack`."""

    dataset: DatasetSpec = Field(description="the dataset")
    splits: list[str] | None = Field(
        description="splits to pack; null: all that exist", json_schema_extra={"values": "[NAME,…]|null"}
    )
    output_dir: Path | None = Field(
        description="new folder for the packed dataset; dataset=packed dataset.root=DIR opens it",
        json_schema_extra={"values": "DIR", "required": True},
    )
    workers: PositiveInt = Field(description="threads")


def pack(cfg: DictConfig) -> None:
    """Write a pack; if that fails, nothing is left under its name.

    Raises:
        UserError: No output folder is given, it is not empty, or the dataset cannot be opened.
    """
    settings = load_settings(cfg, PackSettings)
    directory = settings.output_dir
    if directory is None:
        raise UserError("pack needs a folder to write to: give output_dir=DIR")
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise UserError(f"{directory} already holds something; delete it, or give another output_dir")
    splits = open_splits(settings.dataset, settings.splits, complete=True)
    make_dir(directory.parent)
    with atomic_write(directory) as partial_dir:
        size = write_pack(partial_dir, list(splits.values()), settings.workers)
    images = sum(map(len, splits.values()))
    root = format_shell_override("dataset.root", directory)
    print(f"{images} images, {size / 1e6:.0f} MB → {directory}; open it with dataset=packed {root}")


if __name__ == "__main__":
    launch("pack")
