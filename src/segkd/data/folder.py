"""A user's own images and labels in a folder, described by a yaml file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from segkd.data.base import FileDataset
from segkd.data.image_io import IMAGE_SUFFIXES, LABEL_ENCODINGS, LabelEncoding, make_voc_color, read_bytes
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX

METADATA_FILE = "classes.yaml"
_KEYS = ("name", "labels", "classes", "ignore", "mean", "std", "size")
_MAX_CLASSES = 250  # 254 and 255 are reserved
_DEFAULT_STATISTIC = (127.5, 127.5, 127.5)


class Folder(FileDataset):
    """Images `images/SPLIT/**` (PNG or JPEG), labels `labels/SPLIT/**` (PNG, same names) and `classes.yaml`.

    Keys of `classes.yaml`:

        classes: [{name: soil, id: 0, color: [120, 80, 40]}, …]     id: default is the list index; color: default is distinct
        size: [360, 480]          height and width of most images
        labels: ids               or palette (indices of a PNG palette), or colors
        ignore: [255]             ids, or colors, that are ignored
        mean: [R, G, B]           0..255; like std, as `python -m segkd.stats` prints it; default 127.5
        name: …                   name in results; default is the folder's name

    Raises:
        UserError: See `FileDataset`; or `classes.yaml` is missing or invalid.
    """

    download_hint = f"make images/train, images/val, labels/train, labels/val and {METADATA_FILE} there (docs/how-to/custom-dataset.md)"

    def __init__(self, root: str | Path | None, split: str, complete: bool = True) -> None:
        folder = self.resolve_root(root)
        self._read_metadata(folder / METADATA_FILE, folder.resolve().name)
        self.splits = tuple(sorted(path.name for path in (folder / "images").glob("*/")))
        if not self.splits:
            raise UserError(f"{folder / 'images'} has no folder of a split; {self.download_hint}")
        super().__init__(root, split, complete)

    @property
    def display_name(self) -> str:
        """The key `name`, or the folder's name."""
        return self._display_name

    def find_image_label_pairs(self, split: str) -> list[tuple[Path, Path]]:
        """Pair images with labels of the same relative path."""
        images, labels = self.root / "images" / split, self.root / "labels" / split
        paths = sorted(path for path in images.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        return [(image, labels / image.relative_to(images).with_suffix(".png")) for image in paths]

    def find_labels_without_image(self, split: str) -> list[Path]:
        """Return the files of `labels/SPLIT` that have no image."""
        paired = {label for _, label in self.find_image_label_pairs(split)}
        return [label for label in sorted((self.root / "labels" / split).rglob("*.png")) if label not in paired]

    def list_source_files(self) -> list[Path]:
        """Return `classes.yaml`, the images and the labels."""
        return [self.root / METADATA_FILE, *super().list_source_files()]

    def get_name(self, index: int) -> str:
        """Return the path below `images`, without suffix."""
        # Users often number the images of each split from 0, so the stem alone is ambiguous.
        return self.files[index][0].relative_to(self.root / "images").with_suffix("").as_posix()

    def _read_metadata(self, path: Path, default_name: str) -> None:
        metadata = _load_yaml(path)
        read = partial(_read_value, path, metadata)
        statistic = "[R, G, B] between 0 and 255"
        self._display_name: str = read("name", default_name, str.strip, "a name")
        self.label_encoding: LabelEncoding = read(
            "labels", "ids", LABEL_ENCODINGS.__contains__, "ids, palette or colors"
        )
        self.size = read("size", None, lambda v: _is_integer_list(v, 2, minimum=1), "[height, width]")
        self.mean = read("mean", _DEFAULT_STATISTIC, _is_statistic, statistic)
        self.std = read("std", _DEFAULT_STATISTIC, _is_statistic, statistic)
        entries = read("classes", None, _is_class_list, "a list of two to 250 {name: …, id: …, color: [R, G, B]}")
        self.classes = tuple(entry["name"] for entry in entries)
        self.colors = tuple(tuple(entry.get("color", make_voc_color(i + 1))) for i, entry in enumerate(entries))
        if self.label_encoding == "colors":
            values = [_pack_color(color) for color in self.colors]
            void = read("ignore", [], lambda v: all(map(_is_color, v)), "a list of colors")
            ignored = [_pack_color(tuple(color)) for color in void]
        else:
            values = [entry.get("id", i) for i, entry in enumerate(entries)]
            ignored = read("ignore", [255], lambda v: _is_integer_list(v, len(v)), "a list of ids 0–255")
        _check_unique(path, {"name": self.classes, "color": self.colors, "id": tuple(values)})
        if both := set(ignored) & set(values):
            name = entries[values.index(min(both))]["name"]
            raise UserError(f"{path}: '{name}' is a class and in 'ignore'; leave out one")
        self.label_map = {**dict.fromkeys(ignored, IGNORE_INDEX), **{value: i for i, value in enumerate(values)}}


def _load_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"there is no {path}; it defines the classes (docs/how-to/custom-dataset.md)")
    try:
        metadata = yaml.safe_load(read_bytes(path))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(metadata, dict) or (unknown := [str(key) for key in metadata if key not in _KEYS]):
        given = f"has the keys {', '.join(unknown)}" if isinstance(metadata, dict) else "holds no keys"
        raise UserError(f"{path} {given}; it takes {', '.join(_KEYS)} (docs/how-to/custom-dataset.md)")
    return metadata


def _read_value(
    path: Path, metadata: dict[str, Any], key: str, default: Any, is_valid: Callable[[Any], Any], expected: str
) -> Any:
    """Return a value of the yaml file, or its default; lists become tuples.

    Args:
        path: The yaml file, for the error message.
        metadata: Its content.
        key: The key to read.
        default: Value if the key is missing; None if it is required.
        is_valid: Check of the value; may raise TypeError or AttributeError for a wrong type.
        expected: Description of a valid value.

    Raises:
        UserError: The value is missing or invalid.
    """
    value = metadata.get(key, default)
    try:
        if value is not None and is_valid(value):
            return tuple(value) if isinstance(value, list) else value
    except (TypeError, AttributeError):
        pass
    given = "is missing" if key not in metadata else f"is {value!r}"
    raise UserError(f"{path}: '{key}' {given}; give {expected}")


def _check_unique(path: Path, values_by_key: dict[str, tuple[Any, ...]]) -> None:
    for key, values in values_by_key.items():
        if len(set(values)) < len(values):
            repeated = next(value for value in values if values.count(value) > 1)
            raise UserError(f"{path}: two classes have the {key} {repeated}; give each its own")


def _is_class_list(entries: Any) -> bool:
    return 2 <= len(entries) <= _MAX_CLASSES and all(
        isinstance(entry.get("name"), str)
        and set(entry) <= {"name", "id", "color"}
        and _is_integer_list([entry.get("id", 0)], 1)
        and _is_color(entry.get("color", (0, 0, 0)))
        for entry in entries
    )


def _is_integer_list(values: Any, length: int, minimum: int = 0) -> bool:
    """Return whether the values are integers: bytes if zero is allowed, otherwise sizes in pixels."""
    maximum = 255 if minimum == 0 else 1 << 16
    return len(values) == length and all(type(value) is int and minimum <= value <= maximum for value in values)


def _is_color(value: Any) -> bool:
    return _is_integer_list(value, 3)


def _is_statistic(values: Any) -> bool:
    return len(values) == 3 and all(type(value) in (int, float) and 0 < value < 255 for value in values)


def _pack_color(color: tuple[int, ...]) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]
