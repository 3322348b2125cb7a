"""A dataset decoded into one memory-mapped file per split; training on it is bit-identical to training on its files."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segkd.data.base import FileDataset, Sample, SegmentationDataset
from segkd.data.discovery import find_images
from segkd.data.image_io import Array
from segkd.errors import UserError
from segkd.utils.files import sha256
from segkd.utils.threads import thread_map

INDEX_FILE = "pack.json"
_FORMAT = 1
_ATTRIBUTES = {
    "classes": "classes",
    "colors": "colors",
    "ids": "label_map",
    "mean": "mean",
    "std": "std",
    "size": "size",
}
"""Key in the index file → attribute of a dataset."""
_CURE = "pack it again with `python -m segkd.pack`"


class SampleOffset(NamedTuple):
    """Location of a sample in a pack: the image, H W 3 bytes, then its label, H W bytes of class indices."""

    file: Path
    start: int
    height: int
    width: int
    name: str


class Packed(SegmentationDataset):
    """A pack that `write_pack` made of another dataset, with all its metadata.

    The original files may be gone. If their folder still exists, they must be unchanged.

    Args:
        root: Folder of the pack.
        split: One of `splits`.

    Raises:
        UserError: There is no pack, it is damaged, or the original files have changed since.
    """

    def __init__(self, root: str | Path | None, split: str) -> None:
        if root is None:
            raise UserError("dataset=packed needs dataset.root=DIR, a folder that `python -m segkd.pack` made")
        self.root = Path(root)
        try:
            self._open(_read_index(self.root), split)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError):
            raise UserError(f"{self.root / INDEX_FILE} is damaged or of another version of segkd; {_CURE}") from None

    def _open(self, index: dict[str, Any], split: str) -> None:
        metadata = index["facts"]
        self._display_name = str(metadata["title"])
        self.classes, self.splits = tuple(metadata["classes"]), tuple(metadata["splits"])
        self.colors = tuple((color[0], color[1], color[2]) for color in metadata["colors"])
        self.label_map = {int(value): index for value, index in metadata["ids"].items()}
        self.mean, self.std, self.size = tuple(metadata["mean"]), tuple(metadata["std"]), tuple(metadata["size"])
        self.combined_splits = {name: tuple(parts) for name, parts in metadata["together"].items()}
        super().__init__(split)
        self.offsets: list[SampleOffset] = []
        self._contents: list[str] | None = []
        for part in self.combined_splits.get(split, (split,)):
            _check_unchanged(self.root, Path(index["source"]), index["parts"][part])
            self.offsets += _locate_samples(self.root / f"{part}.bin", index["parts"][part]["samples"])
            lines = index["parts"][part].get("contents")
            self._contents = None if self._contents is None or lines is None else [*self._contents, *lines]

    @property
    def display_name(self) -> str:
        """Name of the original dataset."""
        return self._display_name

    def __len__(self) -> int:
        return len(self.offsets)

    def list_contents(self) -> list[str] | None:
        """Return the lines of the original dataset; None for a pack of an earlier version."""
        return self._contents

    def __getitem__(self, index: int) -> Sample:
        offset = self.offsets[index]
        pixels = offset.height * offset.width
        image = self._read(offset, 0, 3 * pixels).reshape(offset.height, offset.width, 3)
        return Sample(image, self.load_label(index))

    def load_label(self, index: int) -> Array:
        """Load the label alone, H W."""
        offset = self.offsets[index]
        pixels = offset.height * offset.width
        return self._read(offset, 3 * pixels, pixels).reshape(offset.height, offset.width)

    def get_name(self, index: int) -> str:
        """Return the name in the original dataset."""
        return self.offsets[index].name

    @staticmethod
    def _read(offset: SampleOffset, skip: int, count: int) -> Array:
        # Opened for each read: an open memory map would be copied whole into a worker that is spawned, not forked.
        return np.array(np.memmap(offset.file, np.uint8, "r", offset.start + skip, (count,)))


def write_pack(directory: Path, splits: Sequence[FileDataset], workers: int) -> int:
    """Write splits of a dataset to a folder that does not exist yet.

    Args:
        directory: The folder to make.
        splits: Opened splits of one dataset, none of its `combined_splits`.
        workers: Threads that read.

    Returns:
        Size of the pack in bytes.

    Raises:
        UserError: A file of the dataset is damaged.
        OSError: The folder cannot be written.
    """
    directory.mkdir(parents=True)
    index = {
        "format": _FORMAT,
        "source": str(splits[0].root.resolve()),
        "facts": _collect_metadata(splits),
        "parts": {split.split: _write_split(directory, split, workers) for split in splits},
    }
    text = json.dumps(index, ensure_ascii=False) + "\n"
    (directory / INDEX_FILE).write_text(text, encoding="utf-8", errors="backslashreplace")
    return sum(path.stat().st_size for path in directory.iterdir())


def _write_split(directory: Path, dataset: FileDataset, workers: int) -> dict[str, Any]:
    """Write the pixels of a split and return its entry in the index."""
    name, fingerprint = dataset.split, partial(_fingerprint, dataset.root)
    sources = list(thread_map(fingerprint, dataset.list_source_files(), workers, f"hashing {name}"))
    samples = []
    with (directory / f"{name}.bin").open("wb") as file:
        loaded = thread_map(dataset.__getitem__, range(len(dataset)), workers, f"packing {name}")
        for i, sample in enumerate(loaded):
            file.write(sample.image.tobytes())
            file.write(sample.label.tobytes())
            samples.append([*sample.label.shape, dataset.get_name(i)])
    folders = sorted({image.parent for image, _ in dataset.files})
    counts = {os.path.relpath(folder, dataset.root): _count_images(folder) for folder in folders}
    return {"samples": samples, "sources": sources, "folders": counts, "contents": list(dataset.list_contents())}


def _collect_metadata(splits: Sequence[FileDataset]) -> dict[str, Any]:
    dataset, names = splits[0], [split.split for split in splits]
    combined = {name: list(parts) for name, parts in dataset.combined_splits.items() if set(parts) <= set(names)}
    attributes = {key: getattr(dataset, attribute) for key, attribute in _ATTRIBUTES.items()}
    return {"title": dataset.display_name, **attributes, "splits": [*names, *combined], "together": combined}


def _fingerprint(root: Path, path: Path) -> tuple[str, int, int, str]:
    """Return path relative to root, size, modification time and SHA-256 of a file."""
    stat = path.stat()
    return os.path.relpath(path, root), stat.st_size, stat.st_mtime_ns, sha256(path)


def _count_images(folder: Path) -> int:
    return len(find_images(folder, recursive=False).paths)


def _read_index(root: Path) -> dict[str, Any]:
    if not (root / INDEX_FILE).is_file():
        raise UserError(f"there is no pack at {root} (no {INDEX_FILE}); give a folder that `python -m segkd.pack` made")
    index: dict[str, Any] = json.loads((root / INDEX_FILE).read_bytes())
    if index["format"] != _FORMAT:
        raise ValueError
    return index


def _check_unchanged(root: Path, source: Path, split: dict[str, Any]) -> None:
    """Compare a pack with the original files, if these still exist.

    A file of another modification time is hashed, so copying a dataset does not count as a change.

    Args:
        root: Folder of the pack, for the error message.
        source: Folder of the original dataset.
        split: The split's entry in the index.

    Raises:
        UserError: The original files have changed.
    """
    if not source.is_dir():
        return
    for name, size, modified, digest in split["sources"]:
        path = source / name
        if not path.is_file():
            raise _make_stale_error(root, f"{path} is gone")
        stat = path.stat()
        if stat.st_size != size or (stat.st_mtime_ns != modified and sha256(path) != digest):
            raise _make_stale_error(root, f"{path} has changed")
    for name, expected in split["folders"].items():
        if (count := _count_images(source / name)) != expected:
            raise _make_stale_error(root, f"{source / name} held {expected} images and holds {count}")


def _make_stale_error(root: Path, reason: str) -> UserError:
    return UserError(f"the pack {root} is stale: since it was made, {reason}; {_CURE}, or open the files themselves")


def _locate_samples(file: Path, samples: list[tuple[int, int, str]]) -> list[SampleOffset]:
    offsets, start = [], 0
    for height, width, name in samples:
        offsets.append(SampleOffset(file, start, height, width, name))
        start += 4 * height * width
    size = file.stat().st_size if file.is_file() else 0
    if size != start:
        raise UserError(f"{file} has {size} bytes instead of {start}; copy the pack again, or {_CURE}")
    return offsets
