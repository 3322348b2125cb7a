"""Folders that ship with segkd."""

from __future__ import annotations

from pathlib import Path


def locate_shipped_folder(name: str) -> Path:
    """Return the path of a folder that ships with segkd: inside the wheel, or beside `src` in a checkout."""
    inside = Path(__file__).parents[1] / name
    return inside if inside.is_dir() else Path(__file__).parents[3] / name


CONFIGS = locate_shipped_folder("configs")
PRETRAINED = locate_shipped_folder("pretrained")


def list_options(group: str, configs: Path = CONFIGS) -> list[str]:
    """Return the options of a config group in a folder of configs, sorted by name."""
    folder = configs / group
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))
