"""A data set in one file for each split, decoded: a memory map of bytes, which trains bit for bit as its files do."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segkd.data.base import FileDataset, Sample, SegmentationDataset
from segkd.data.image_io import Array
from segkd.data.unlabelled import SUFFIXES
from segkd.errors import UserError
from segkd.utils.threads import thread_map

INDEX_FILE = "pack.json"
_FORMAT = 1
_ANEW = "pack it anew with `python -m segkd.pack`"


class SampleOffset(NamedTuple):
    """Where a sample lies: its image, H W 3 bytes, and behind it its label, H W bytes of classes."""

    file: Path
    start: int
    height: int
    width: int
    name: str


class Packed(SegmentationDataset):
    """What `write_pack` wrote of another data set, with all its facts.

    The files that were packed may be gone. Where their folder is still there, they must be the same.

    Raises:
        UserError: there is no pack, it is damaged, or older than the files.
    """

    def __init__(self, root: str | Path | None, split: str) -> None:
        if root is None:
            raise UserError("Packed needs dataset.root=DIR, a folder that `python -m segkd.pack` made")
        self.root = Path(root)
        try:
            self._open(_index(self.root), split)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError):
            raise UserError(f"{self.root / INDEX_FILE} is damaged or of another version of segkd; {_ANEW}") from None

    def _open(self, index: dict[str, Any], split: str) -> None:
        facts = index["facts"]
        self._title = str(facts["title"])
        self.classes, self.splits = tuple(facts["classes"]), tuple(facts["splits"])
        self.colors = tuple((color[0], color[1], color[2]) for color in facts["colors"])
        self.ids = {int(code): meaning for code, meaning in facts["ids"].items()}
        self.mean, self.std, self.size = tuple(facts["mean"]), tuple(facts["std"]), tuple(facts["size"])
        self.combined_splits = {name: tuple(parts) for name, parts in facts["together"].items()}
        super().__init__(split)
        self.places: list[SampleOffset] = []
        for part in self.combined_splits.get(split, (split,)):
            _check_unchanged(self.root, Path(index["source"]), index["parts"][part])
            self.places += _places(self.root / f"{part}.bin", index["parts"][part]["samples"])

    def display_name(self) -> str:
        return self._title

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Sample:
        place = self.places[index]
        pixels = place.height * place.width
        image = self._bytes(place, 0, 3 * pixels).reshape(place.height, place.width, 3)
        return Sample(image, self.label(index))

    def label(self, index: int) -> Array:
        place = self.places[index]
        pixels = place.height * place.width
        return self._bytes(place, 3 * pixels, pixels).reshape(place.height, place.width)

    def name(self, index: int) -> str:
        return self.places[index].name

    @staticmethod
    def _bytes(place: SampleOffset, skip: int, count: int) -> Array:
        # Opened anew each time: a map that is kept would be copied whole into a worker that is started, not forked.
        return np.array(np.memmap(place.file, np.uint8, "r", place.start + skip, (count,)))


def write_pack(directory: Path, parts: Sequence[FileDataset], workers: int) -> int:
    """Write splits of a data set, none of `together`, to a folder that is not there yet; returns how many bytes.

    Raises:
        UserError: a file of the data set is damaged.
        OSError: the folder cannot be written.
    """
    directory.mkdir(parents=True)
    index = {"format": _FORMAT, "source": str(parts[0].root.resolve()), "facts": _facts(parts), "parts": {}}
    for part in parts:
        sources = list(thread_map(_Fingerprint(part.root), part.source_files(), workers, f"hashing {part.split}"))
        samples = []
        with (directory / f"{part.split}.bin").open("wb") as file:
            for i, sample in enumerate(
                thread_map(part.__getitem__, range(len(part)), workers, f"packing {part.split}")
            ):
                file.write(sample.image.tobytes())
                file.write(sample.label.tobytes())
                samples.append([*sample.label.shape, part.name(i)])
        folders = {_relative(folder, part.root): _images_in(folder) for folder in _folders(part)}
        index["parts"][part.split] = {"samples": samples, "sources": sources, "folders": folders}  # type: ignore[index]
    (directory / INDEX_FILE).write_text(json.dumps(index, ensure_ascii=False) + "\n")
    return sum(path.stat().st_size for path in directory.iterdir())


def _facts(parts: Sequence[FileDataset]) -> dict[str, Any]:
    first, names = parts[0], [part.split for part in parts]
    together = {name: list(those) for name, those in first.combined_splits.items() if set(those) <= set(names)}
    kept = ("classes", "colors", "ids", "mean", "std", "size")
    facts = {key: getattr(first, key) for key in kept}
    return {"title": first.display_name(), **facts, "splits": [*names, *together], "together": together}


class _Fingerprint:
    """Of a source: its path from the root, size, time of change and SHA-256."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, path: Path) -> tuple[str, int, int, str]:
        state = path.stat()
        return _relative(path, self.root), state.st_size, state.st_mtime_ns, _sha256(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _relative(path: Path, root: Path) -> str:
    return os.path.relpath(path, root)


def _folders(part: FileDataset) -> list[Path]:
    return sorted({image.parent for image, _ in part.files})


def _images_in(folder: Path) -> int:
    return sum(path.suffix.lower() in SUFFIXES for path in folder.iterdir()) if folder.is_dir() else 0


def _index(root: Path) -> dict[str, Any]:
    if not (root / INDEX_FILE).is_file():
        raise UserError(f"there is no pack at {root} (no {INDEX_FILE}); give a folder that `python -m segkd.pack` made")
    index: dict[str, Any] = json.loads((root / INDEX_FILE).read_bytes())
    if index["format"] != _FORMAT:
        raise ValueError
    return index


def _check_unchanged(root: Path, source: Path, part: dict[str, Any]) -> None:
    """A file of another time is read and compared; copying a data set is no change.

    Raises:
        UserError: the pack no longer is what the files are.
    """
    if not source.is_dir():
        return
    for name, size, changed, digest in part["sources"]:
        path = source / name
        if not path.is_file():
            raise _stale(root, f"{path} is gone")
        state = path.stat()
        if state.st_size != size or (state.st_mtime_ns != changed and _sha256(path) != digest):
            raise _stale(root, f"{path} has changed")
    for name, count in part["folders"].items():
        if (there := _images_in(source / name)) != count:
            raise _stale(root, f"{source / name} held {count} images and holds {there}")


def _stale(root: Path, why: str) -> UserError:
    return UserError(f"the pack {root} is stale: since it was made, {why}; {_ANEW}, or open the files themselves")


def _places(file: Path, samples: list[tuple[int, int, str]]) -> list[SampleOffset]:
    places, start = [], 0
    for height, width, name in samples:
        places.append(SampleOffset(file, start, height, width, name))
        start += 4 * height * width
    there = file.stat().st_size if file.is_file() else 0
    if there != start:
        raise UserError(f"{file} has {there} bytes instead of {start}; copy the pack again, or {_ANEW}")
    return places
