"""Find images by the names that an export gives them."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from segkd.data.discovery import find_images
from segkd.data.folder import METADATA_FILE
from segkd.errors import UserError
from segkd.import_labels.annotations import Notes
from segkd.import_labels.splits import normalize_split


class FoundImage(NamedTuple):
    """An image file, and its name in the output."""

    path: Path
    name: str
    """The part of the given name that was found: with `/`, without suffix."""


class ImageFinder:
    """The images below some folders, which are looked up by name; a name never leads out of the folders."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = tuple(folders)
        found = [find_images(folder) for folder in folders]
        self.paths = list(dict.fromkeys(path for images in found for path in images.paths))
        self._leave_out_datasets()
        self._unread = {_normalize(path.name) for images in found for path in images.left_out}
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in self.paths:
            self._by_name[_normalize(path.name)].append(path)
            self._by_stem[_normalize(path.stem)].append(path)
        self._used: set[Path] = set()

    def _leave_out_datasets(self) -> None:
        """Leave out what earlier imports wrote beside the annotations: images of the same names."""
        folders = {parent for path in self.paths for parent in path.parents} - {*self.folders}
        folders -= {parent for folder in self.folders for parent in folder.parents}
        datasets = {folder for folder in folders if (folder / METADATA_FILE).is_file()}
        if datasets:
            self.paths = [path for path in self.paths if not datasets & {*path.parents}]

    def find(self, name: str, notes: Notes, near: Path | None = None, split: str | None = None) -> FoundImage | None:
        """Return the image whose path ends like a name, with as many of its folders as possible; a miss is noted.

        Args:
            name: Name or path, relative or absolute, with either kind of slashes, with or without the suffix of an image.
            notes: Gets the names that are not found.
            near: Of several such images, one below this folder is taken,
            split: and then one that has a folder of this split in its path.

        Raises:
            UserError: Several images have this name.
        """
        parts = _split_path(name)
        for start in range(len(parts)):
            tail = parts[start:]
            named = self._by_name[tail[-1]] or self._by_stem[tail[-1]]
            paths = [path for path in named if _get_folders(path, len(tail) - 1) == tail[:-1]]
            if paths := _prefer(paths, near, split):
                if len(paths) > 1:
                    raise UserError(
                        f"{paths[0]} and {paths[1]} both may be the image '{name}'; keep one, or give image_folder=DIR"
                    )
                self._used.add(paths[0])
                return FoundImage(paths[0], PurePosixPath(*tail[:-1], _normalize(paths[0].stem)).as_posix())
        if parts and parts[-1] in self._unread:
            notes.add("images are left out, for segkd does not read their format", name)
        else:
            notes.add("images are missing and left out", name)
        return None

    def note_unused(self, notes: Notes) -> None:
        """Note the images that no name led to."""
        if unused := [path for path in self.paths if path not in self._used]:
            notes.add("images are left out, for the annotations do not name them", str(unused[0]), len(unused))


def _split_path(name: str) -> tuple[str, ...]:
    parts = _normalize(name).replace("\\", "/").split("/")
    return tuple(part for part in parts if part not in ("", ".", ".."))


def _get_folders(path: Path, count: int) -> tuple[str, ...]:
    """Return the last `count` folders of a file."""
    return tuple(map(_normalize, path.parent.parts[len(path.parent.parts) - count :]))


def _prefer(paths: list[Path], near: Path | None, split: str | None) -> list[Path]:
    if len(paths) > 1 and near is not None:
        paths = [path for path in paths if near in path.parents] or paths
    if len(paths) > 1 and split is not None:
        paths = [path for path in paths if normalize_split(split) in map(normalize_split, path.parts)] or paths
    return paths


def _normalize(name: str) -> str:
    # macOS may give names decomposed: e and an accent for é.
    return unicodedata.normalize("NFC", name)
