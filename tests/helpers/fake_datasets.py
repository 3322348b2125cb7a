"""Writers of tiny fake datasets in the original layouts: colored stripes, the same at every call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import numpy.typing as npt
import yaml
from PIL import Image

from segkd.data.camvid import CamVid
from segkd.data.packed import write_pack
from segkd.data.voc import VOC

Array = npt.NDArray[np.uint8]


def write_camvid(root: Path, train: int = 4, val: int = 2, test: int = 2, size: tuple[int, int] = (144, 160)) -> None:
    """Write CamVid in the SegNet split: ids 0–11, of which 11 is void."""
    for number, (split, count) in enumerate({"train": train, "val": val, "test": test}.items()):
        for index in range(count):
            image, label = _paint_scene(1000 * number + index, range(12), size)
            _write_image(root / split / f"0001TP_{number}{index:05d}.png", image)
            _write_image(root / f"{split}annot" / f"0001TP_{number}{index:05d}.png", label)


def write_cityscapes(
    root: Path,
    train: int = 4,
    val: int = 2,
    test: int = 0,
    extra: int = 0,
    size: tuple[int, int] = (144, 288),
    kind: str = "labelIds",
) -> None:
    """Write Cityscapes with all label ids (`labelIds`), or with training ids (`labelTrainIds`)."""
    ids = (*range(34 if kind == "labelIds" else 19), 255)
    splits = {
        "train": (train, "gtFine", "aachen"),
        "val": (val, "gtFine", "lindau"),
        "test": (test, "gtFine", "berlin"),
        "train_extra": (extra, "gtCoarse", "bayreuth"),
    }
    for number, (split, (count, label_folder, city)) in enumerate(splits.items()):
        for index in range(count):
            image, label = _paint_scene(1000 * number + index, ids, size)
            stem = f"{city}_{index:06d}_000019"
            _write_image(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", image)
            _write_image(root / label_folder / split / city / f"{stem}_{label_folder}_{kind}.png", label)


def write_ade20k(root: Path, size: tuple[int, int] = (40, 302)) -> None:
    """Write ADE20K: ids 0–150, of which 0 is no class."""
    for number, (split, folder) in enumerate({"train": "training", "val": "validation"}.items()):
        for index in range(2):
            image, label = _paint_scene(1000 * number + index, range(151), size)
            _write_image(root / "images" / folder / f"ADE_{split}_{index + 1:08d}.jpg", image)
            _write_image(root / "annotations" / folder / f"ADE_{split}_{index + 1:08d}.png", label)


def write_voc(root: Path) -> None:
    """Write PASCAL VOC: label PNGs with a palette, ids 0–20 and 255, images of two sizes, and lists of names."""
    colors = VOC.colors + ((0, 0, 0),) * (255 - len(VOC.colors)) + ((224, 224, 192),)
    for number, split in enumerate(("train", "val")):
        names = [f"2007_{number}{index:05d}" for index in range(2)]
        for index, name in enumerate(names):
            image, label = _paint_scene(1000 * number + index, (*range(21), 255), (40 + 8 * index, 60))
            _write_image(root / "JPEGImages" / f"{name}.jpg", image)
            write_palette(root / "SegmentationClass" / f"{name}.png", label, colors)
        lists = root / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{split}.txt").write_text("\n".join(names) + "\n")


def write_folder(root: Path, labels: str = "ids") -> None:
    """Write a `dataset=folder` of three classes and void: as ids 10, 20, 30 and 255, or as colors."""
    colors = np.array([(200, 0, 0), (0, 200, 0), (0, 0, 200), (255, 255, 255)], np.uint8)
    for number, split in enumerate(("train", "val")):
        for index in range(2):
            image, label = _paint_scene(1000 * number + index, (10, 20, 30, 255), (40, 60))
            _write_image(root / "images" / split / "field" / f"{index}.png", image)
            if labels == "colors":
                label = colors[np.searchsorted((10, 20, 30, 255), label)][..., ::-1]
            _write_image(root / "labels" / split / "field" / f"{index}.png", label)
    ignore = "[[255, 255, 255]]" if labels == "colors" else "[255]"
    (root / "classes.yaml").write_text(
        "classes:\n"
        "  - {name: soil, id: 10, color: [200, 0, 0]}\n"
        "  - {name: crop, id: 20, color: [0, 200, 0]}\n"
        "  - {name: weed, id: 30, color: [0, 0, 200]}\n"
        f"labels: {labels}\nignore: {ignore}\nsize: [40, 60]\n"
    )


def edit_metadata(root: Path, **changes: object) -> None:
    """Change keys of classes.yaml; None removes one."""
    metadata = {**yaml.safe_load((root / "classes.yaml").read_text()), **changes}
    kept = {key: value for key, value in metadata.items() if value is not None}
    (root / "classes.yaml").write_text(yaml.safe_dump(kept))


def write_packed(root: Path) -> None:
    """Write a pack of CamVid, and delete the original files."""
    with TemporaryDirectory() as source:
        write_camvid(Path(source))
        write_pack(root / "pack", [CamVid(source, "train"), CamVid(source, "val")], 1)
    for path in (root / "pack").iterdir():
        path.rename(root / path.name)


def write_palette(path: Path, label: Array, colors: Sequence[tuple[int, int, int]]) -> None:
    """Write a PNG of palette indices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.frombytes("P", label.shape[::-1], label.tobytes())
    image.putpalette([value for color in colors for value in color])
    image.save(path)


def _paint_scene(seed: int, ids: Iterable[int], size: tuple[int, int]) -> tuple[Array, Array]:
    """Return an image and a label with a stripe per id, each of its own color, with noise."""
    rng = np.random.default_rng(seed)
    stripes = rng.permutation(np.array([*ids], np.uint8))
    label = stripes[np.arange(size[1]) * len(stripes) // size[1]][None].repeat(size[0], 0)
    colors = np.random.default_rng(0).integers(0, 256, (256, 3))
    image = np.clip(colors[label] + rng.normal(0, 10, (*size, 3)), 0, 255).astype(np.uint8)
    return image, np.ascontiguousarray(label)


def _write_image(path: Path, content: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), content)
