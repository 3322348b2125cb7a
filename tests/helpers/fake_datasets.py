"""Writes tiny data sets in the true layout: coloured rectangles, the same at every call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from segkd.data.camvid import CamVid
from segkd.data.packed import write_pack
from segkd.data.voc import VOC

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


def write_ade20k(root: Path, size: tuple[int, int] = (40, 302)) -> None:
    """ADE20K: ids 0–150, 0 is no class."""
    for number, (split, folder) in enumerate({"train": "training", "val": "validation"}.items()):
        for index in range(2):
            image, label = _scene(1000 * number + index, range(151), size)
            _write(root / "images" / folder / f"ADE_{split}_{index + 1:08d}.jpg", image)
            _write(root / "annotations" / folder / f"ADE_{split}_{index + 1:08d}.png", label)


def write_voc(root: Path) -> None:
    """PASCAL VOC: PNGs with a palette, ids 0–20 and 255, photographs of two sizes, lists of names."""
    colors = VOC.colors + ((0, 0, 0),) * (255 - len(VOC.colors)) + ((224, 224, 192),)
    for number, split in enumerate(("train", "val")):
        names = [f"2007_{number}{index:05d}" for index in range(2)]
        for index, name in enumerate(names):
            image, label = _scene(1000 * number + index, (*range(21), 255), (40 + 8 * index, 60))
            _write(root / "JPEGImages" / f"{name}.jpg", image)
            write_palette(root / "SegmentationClass" / f"{name}.png", label, colors)
        lists = root / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{split}.txt").write_text("\n".join(names) + "\n")


def write_folder(root: Path, labels: str = "ids") -> None:
    """Own data: three classes and void, as ids 10, 20, 30 and 255, or as their colours."""
    colors = np.array([(200, 0, 0), (0, 200, 0), (0, 0, 200), (255, 255, 255)], np.uint8)
    for number, split in enumerate(("train", "val")):
        for index in range(2):
            image, label = _scene(1000 * number + index, (10, 20, 30, 255), (40, 60))
            _write(root / "images" / split / "field" / f"{index}.png", image)
            if labels == "colors":
                label = colors[np.searchsorted((10, 20, 30, 255), label)][..., ::-1]
            _write(root / "labels" / split / "field" / f"{index}.png", label)
    ignore = "[[255, 255, 255]]" if labels == "colors" else "[255]"
    (root / "classes.yaml").write_text(
        "classes:\n"
        "  - {name: soil, id: 10, color: [200, 0, 0]}\n"
        "  - {name: crop, id: 20, color: [0, 200, 0]}\n"
        "  - {name: weed, id: 30, color: [0, 0, 200]}\n"
        f"labels: {labels}\nignore: {ignore}\nsize: [40, 60]\n"
    )


def write_packed(root: Path) -> None:
    """A pack of CamVid, whose files are gone."""
    with TemporaryDirectory() as files:
        write_camvid(Path(files))
        write_pack(root / "pack", [CamVid(files, "train"), CamVid(files, "val")], 1)
    for path in (root / "pack").iterdir():
        path.rename(root / path.name)


def write_palette(path: Path, label: Array, colors: Sequence[tuple[int, int, int]]) -> None:
    """A PNG of places in a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.frombytes("P", label.shape[::-1], label.tobytes())
    picture.putpalette([value for color in colors for value in color])
    picture.save(path)


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
