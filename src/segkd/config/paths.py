"""Folders that ship with segkd."""

from __future__ import annotations

from pathlib import Path


def package_dir(folder: str) -> Path:
    """Where a folder that comes with segkd lies: inside the wheel, or beside `src` in a checkout."""
    inside = Path(__file__).parents[1] / folder
    return inside if inside.is_dir() else Path(__file__).parents[3] / folder


CONFIGS = package_dir("configs")


PRETRAINED = package_dir("pretrained")
