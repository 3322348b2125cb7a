"""`python -m segkd.pack`: a data set decoded into one file for each split, to be read without decoding (`dataset=packed`)."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig
from pydantic import PositiveInt

from segkd.build.datasets import open_splits
from segkd.cli.launch import launch
from segkd.config.schema import Settings, SpecNode, load_settings
from segkd.data.packed import write_pack
from segkd.errors import UserError
from segkd.utils.files import atomic_write, make_dir


class PackSettings(Settings):
    """`python -m segkd.pack`."""

    dataset: SpecNode
    splits: list[str] | None
    output_dir: Path | None
    workers: PositiveInt


def pack(cfg: DictConfig) -> None:
    """Write the pack: all of it, or nothing under its name."""
    settings = load_settings(cfg, PackSettings)
    directory = settings.output_dir
    if directory is None:
        raise UserError("say where the pack goes: output_dir=DIR")
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise UserError(f"{directory} already holds something; delete it, or give another output_dir")
    parts = open_splits(settings.dataset, settings.splits, complete=True)
    make_dir(directory.parent)
    with atomic_write(directory) as part:
        size = write_pack(part, list(parts.values()), settings.workers)
    images = sum(map(len, parts.values()))
    print(f"{images} images, {size / 1e6:.0f} MB → {directory}; open it with dataset=packed dataset.root={directory}")


if __name__ == "__main__":
    launch("pack")
