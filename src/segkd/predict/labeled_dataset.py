"""Predictions as a `dataset=folder`, so that a student can be trained on what its teacher labels."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from segkd.data.folder import METADATA_FILE
from segkd.data.folder_splits import SPLIT_NAMES
from segkd.data.image_io import IMAGE_SUFFIXES
from segkd.predict.label_values import LabelValues
from segkd.predict.palette import Palette
from segkd.predict.pipeline import FramePrediction, Output
from segkd.predict.rendering import STUDENT
from segkd.predict.sources import Frame
from segkd.predict.writers import Write, write_folder
from segkd.utils.files import atomic_write, dump_yaml, make_dir

_SPLITS = {"val": 0.1, "seed": 0}


@contextmanager
def write_dataset(root: Path, source: Path | None, palette: Palette, values: LabelValues) -> Iterator[Output]:
    """Write `images/`, `labels/` and, at the end, `classes.yaml`, which splits the images unless their folders do.

    An image is copied as it is, and a frame of a video or a camera is written as PNG.

    Args:
        root: the folder of the dataset.
        source: where the images come from; those that lie in `root/images` stay there. None for a split of a dataset.
        palette: classes and colors.
        values: what the labels hold.
    """
    sizes: Counter[tuple[int, int]] = Counter()
    folders: set[str] = set()
    with ExitStack() as stack:
        write_label = stack.enter_context(write_folder(root / "labels"))
        is_in_place = is_images_of(root, source)
        write_image = None if is_in_place else stack.enter_context(write_folder(root / "images"))

        def write(prediction: FramePrediction) -> None:
            frame = prediction.frame
            write_label(frame.name, values.apply(prediction.labels[STUDENT]))
            if write_image is not None:
                _write_image(root / "images", frame, write_image)
            sizes[frame.image.shape[0], frame.image.shape[1]] += 1
            folders.add(frame.name.rpartition("/")[0].partition("/")[0].lower())

        yield write
    if sizes:
        content = _describe_classes(palette, values, sizes.most_common(1)[0][0])
        if not folders & SPLIT_NAMES:
            content["splits"] = _SPLITS
        with atomic_write(root / METADATA_FILE, "output") as part:
            part.write_text(dump_yaml(content), encoding="utf-8")


def is_images_of(root: Path, source: Path | None) -> bool:
    """Return whether a source of images is the folder `images` of a dataset."""
    return source is not None and source.is_dir() and source.resolve() == (root / "images").resolve()


def _write_image(folder: Path, frame: Frame, write: Write) -> None:
    if frame.path is None or frame.path.suffix.lower() not in IMAGE_SUFFIXES:
        write(frame.name, frame.image)
        return
    path = folder / f"{frame.name}{frame.path.suffix}"
    make_dir(path.parent, "output")
    with atomic_write(path, "output") as part:
        shutil.copyfile(frame.path, part)


def _describe_classes(palette: Palette, values: LabelValues, size: tuple[int, int]) -> dict[str, Any]:
    classes = [
        {"name": str(name), "id": value, "color": list(color)}
        for (name, color), value in zip(palette.classes.items(), values.classes, strict=True)
    ]
    return {"classes": classes, "size": list(size), "ignore": [values.ignored]}
