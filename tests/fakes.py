"""Writes tiny data sets in the true layout: coloured rectangles, the same at every call."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.uint8]


def write_camvid(root: Path, train: int = 4, val: int = 2, test: int = 2, size: tuple[int, int] = (144, 160)) -> None:
    """CamVid in the SegNet split: ids 0–11, 11 is void."""
    for number, (split, count) in enumerate({"train": train, "val": val, "test": test}.items()):
        for index in range(count):
            image, label = _scene(1000 * number + index, range(12), size)
            _write(root / split / f"0001TP_{number}{index:05d}.png", image)
            _write(root / f"{split}annot" / f"0001TP_{number}{index:05d}.png", label)


def write_cityscapes(
    root: Path,
    train: int = 4,
    val: int = 2,
    test: int = 0,
    extra: int = 0,
    size: tuple[int, int] = (144, 288),
    kind: str = "labelIds",
) -> None:
    """Cityscapes with all its raw label ids (`labelIds`), or with training ids (`labelTrainIds`)."""
    ids = (*range(34 if kind == "labelIds" else 19), 255)
    splits = {
        "train": (train, "gtFine", "aachen"),
        "val": (val, "gtFine", "lindau"),
        "test": (test, "gtFine", "berlin"),
        "train_extra": (extra, "gtCoarse", "bayreuth"),
    }
    for number, (split, (count, truth, city)) in enumerate(splits.items()):
        for index in range(count):
            image, label = _scene(1000 * number + index, ids, size)
            stem = f"{city}_{index:06d}_000019"
            _write(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", image)
            _write(root / truth / split / city / f"{stem}_{truth}_{kind}.png", label)


def _scene(seed: int, ids: Iterable[int], size: tuple[int, int]) -> tuple[Array, Array]:
    """A picture in which every id has its place and its colour, and noise."""
    rng = np.random.default_rng(seed)
    columns = rng.permutation(np.array([*ids], np.uint8))
    label = columns[np.arange(size[1]) * len(columns) // size[1]][None].repeat(size[0], 0)
    colors = np.random.default_rng(0).integers(0, 256, (256, 3))
    image = np.clip(colors[label] + rng.normal(0, 10, (*size, 3)), 0, 255).astype(np.uint8)
    return image, np.ascontiguousarray(label)


def _write(path: Path, content: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), content)
