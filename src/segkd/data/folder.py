"""Anybody's images and labels in a folder, with their facts in a yaml beside them: a data set without Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from segkd.data.base import FileDataset
from segkd.data.image_io import LABEL_ENCODINGS, LabelEncoding, read_bytes, voc_color
from segkd.data.unlabelled import SUFFIXES
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX

METADATA_FILE = "classes.yaml"
_KEYS = ("name", "labels", "classes", "ignore", "mean", "std", "size")
_MOST = 250  # classes; 254 and 255 have meanings of their own
_MIDDLE = (127.5, 127.5, 127.5)

Color = tuple[int, int, int]


class Folder(FileDataset):
    """`images/SPLIT/**` (PNG or JPEG), `labels/SPLIT/**` (PNG, the same names) and `classes.yaml`:

        classes: [{name: soil, id: 0, color: [120, 80, 40]}, …]     without id, the place in the list; without colour, any
        size: [360, 480]          height and width of most images
        labels: ids               or palette (places in a PNG's palette), or colors
        ignore: [255]             ids, or colours, that are no class
        mean: [R, G, B]           0..255, and std: what `python -m segkd.stats` finds; without them, 127.5
        name: …                   to print; without it, the folder's

    Raises:
        UserError: as `FileDataset`; or `classes.yaml` is missing or says something else.
    """

    download_hint = f"make images/train, images/val, labels/train, labels/val and {METADATA_FILE} there (docs/how-to/custom-dataset.md)"

    def __init__(self, root: str | Path | None, split: str, complete: bool = True) -> None:
        place = self.there(root)
        self._read(place / METADATA_FILE, place.resolve().name)
        self.splits = tuple(sorted(path.name for path in (place / "images").glob("*/")))
        if not self.splits:
            raise UserError(f"{place / 'images'} has no folder of a split; {self.download_hint}")
        super().__init__(root, split, complete)

    def display_name(self) -> str:
        return self._title

    def image_label_pairs(self, part: str) -> list[tuple[Path, Path]]:
        images, labels = self.root / "images" / part, self.root / "labels" / part
        found = sorted(path for path in images.rglob("*") if path.suffix.lower() in SUFFIXES)
        return [(image, labels / image.relative_to(images).with_suffix(".png")) for image in found]

    def labels_without_image(self, part: str) -> list[Path]:
        mine = {label for _, label in self.image_label_pairs(part)}
        return [label for label in sorted((self.root / "labels" / part).rglob("*.png")) if label not in mine]

    def source_files(self) -> list[Path]:
        return [self.root / METADATA_FILE, *super().source_files()]

    def name(self, index: int) -> str:
        # Own data are often numbered from 0 in each split.
        return self.files[index][0].relative_to(self.root / "images").with_suffix("").as_posix()

    def _read(self, path: Path, name: str) -> None:
        facts = _loaded(path)
        self._title: str = _expected(path, facts, "name", str(facts.get("name", name)), lambda v: v.strip(), "a name")
        self.coding: LabelEncoding = _expected(
            path, facts, "labels", "ids", LABEL_ENCODINGS.__contains__, "ids, palette or colors"
        )
        self.size = _expected(path, facts, "size", None, lambda v: _whole(v, 2, least=1), "[height, width]")
        self.mean = _expected(path, facts, "mean", _MIDDLE, _statistic, "[R, G, B] between 0 and 255")
        self.std = _expected(path, facts, "std", _MIDDLE, _statistic, "[R, G, B] between 0 and 255")
        given = _expected(
            path, facts, "classes", None, _classes, "a list of two to 250 {name: …, id: …, color: [R, G, B]}"
        )
        self.classes = tuple(entry["name"] for entry in given)
        self.colors = tuple(tuple(entry.get("color", voc_color(i + 1))) for i, entry in enumerate(given))
        if self.coding == "colors":
            codes = [_code(color) for color in self.colors]
            void = _expected(path, facts, "ignore", [], lambda v: all(map(_is_color, v)), "a list of colours")
        else:
            codes = [entry.get("id", i) for i, entry in enumerate(given)]
            void = _expected(path, facts, "ignore", [255], lambda v: _whole(v, len(v)), "a list of ids 0–255")
        for what, values in {"name": self.classes, "color": self.colors, "id": tuple(codes)}.items():
            if len(set(values)) < len(values):
                twice = next(value for value in values if values.count(value) > 1)
                raise UserError(f"{path}: two classes have the {what} {twice}; give each its own")
        ignored = [_code(tuple(color)) for color in void] if self.coding == "colors" else void
        if both := set(ignored) & set(codes):
            raise UserError(
                f"{path}: '{given[codes.index(min(both))]['name']}' is a class and in 'ignore'; leave out one"
            )
        self.ids = {**dict.fromkeys(ignored, IGNORE_INDEX), **{code: i for i, code in enumerate(codes)}}


def _loaded(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"there is no {path}; it says which classes there are (docs/how-to/custom-dataset.md)")
    try:
        facts = yaml.safe_load(read_bytes(path))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(facts, dict) or (strangers := [str(key) for key in facts if key not in _KEYS]):
        given = f"has the keys {', '.join(strangers)}" if isinstance(facts, dict) else "holds no keys"
        raise UserError(f"{path} {given}; it takes {', '.join(_KEYS)} (docs/how-to/custom-dataset.md)")
    return facts


def _expected(path: Path, facts: dict[str, Any], key: str, default: Any, holds: Any, what: str) -> Any:
    """A value of the yaml, lists as tuples of it, or the default; None for one that must be given."""
    value = facts.get(key, default)
    try:
        if value is not None and holds(value):
            return tuple(value) if isinstance(value, list) else value
    except (TypeError, AttributeError):
        pass
    given = "is missing" if key not in facts else f"is {value!r}"
    raise UserError(f"{path}: '{key}' {given}; give {what}")


def _classes(given: Any) -> bool:
    return 2 <= len(given) <= _MOST and all(
        isinstance(entry.get("name"), str)
        and set(entry) <= {"name", "id", "color"}
        and _whole([entry.get("id", 0)], 1)
        and _is_color(entry.get("color", (0, 0, 0)))
        for entry in given
    )


def _whole(values: Any, length: int, least: int = 0) -> bool:
    """Whether these are whole numbers, of a byte where zero is allowed."""
    most = 255 if least == 0 else 1 << 16
    return len(values) == length and all(type(value) is int and least <= value <= most for value in values)


def _is_color(value: Any) -> bool:
    return _whole(value, 3)


def _statistic(values: Any) -> bool:
    return len(values) == 3 and all(type(value) in (int, float) and 0 < value < 255 for value in values)


def _code(color: tuple[int, ...]) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]
