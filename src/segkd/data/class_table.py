"""Read `classes.yaml`, the description of a user's own dataset."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from segkd.data.folder_splits import SplitRule, read_split_rule
from segkd.data.image_io import IMAGE_SUFFIXES, LABEL_ENCODINGS, Color, LabelEncoding, make_voc_color, read_bytes
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX
from segkd.utils.plugins import refuse_plugins_in_file

_KEYS = ("name", "labels", "label_suffix", "classes", "ignore", "mean", "std", "size", "splits")
_ENTRY_KEYS = ("name", "id", "color")
_MAX_CLASSES = 250  # 254 and 255 are reserved
_MAX_ID = 255
_DEFAULT_IGNORED = 255
_DEFAULT_STATISTIC = (127.5, 127.5, 127.5)
_COLOR_FORMS = "[R, G, B] with integers 0–255, or '#rrggbb'"
_DOCS = "docs/how-to/custom-dataset.md"


class ClassTable(NamedTuple):
    """Content of a `classes.yaml`."""

    name: str
    label_encoding: LabelEncoding
    label_suffix: str
    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    classes: tuple[str, ...]
    colors: tuple[Color, ...]
    given_colors: tuple[Color | None, ...]
    """The colors that the file gives; None where a class has a default."""
    label_map: dict[int, int]
    ignores_by_default: bool
    """Whether values are ignored although the file does not say so."""
    split_rule: SplitRule | None
    """How the images are split; None if they lie in folders of splits."""


def read_class_table(path: Path, default_name: str) -> ClassTable:
    """Read `classes.yaml`.

    Args:
        path: The file.
        default_name: Name of the dataset if the file has none.

    Raises:
        UserError: The file is missing or invalid.
    """
    metadata = _load_yaml(path)

    def read(key: str, default: Any, is_valid: Callable[[Any], Any], expected: str) -> Any:
        return _read_value(path, metadata, key, default, is_valid, expected)

    statistic = "[R, G, B] between 0 and 255"
    encoding = read("labels", "ids", LABEL_ENCODINGS.__contains__, "ids, palette or colors")
    entries = _read_entries(path, metadata)
    given = tuple(entry.get("color") for entry in entries)
    colors = _fill_colors(given)
    if encoding == "colors":
        values = [_pack_color(color) for color in colors]
        written = _parse_colors(metadata.get("ignore", []))
        metadata["ignore"] = written
        void = read("ignore", None, lambda v: all(map(_is_color, v)), f"a list of colors, each {_COLOR_FORMS}")
        ignored = [_pack_color(color) for color in void]
    else:
        values = [entry.get("id", i) for i, entry in enumerate(entries)]
        default = [] if _DEFAULT_IGNORED in values else [_DEFAULT_IGNORED]
        ignored = read("ignore", default, lambda v: _is_integer_list(v, len(v)), "a list of ids 0–255")
    names = tuple(entry["name"] for entry in entries)
    _check_unique(path, names, {"name": names, "color": colors, "id": tuple(values)})
    if both := set(ignored) & set(values):
        name = names[values.index(min(both))]
        raise UserError(f"{path}: '{name}' is a class and in 'ignore'; leave out one")
    return ClassTable(
        read("name", default_name, str.strip, "a name, in quotes if it is a number or a word such as no"),
        encoding,
        read("label_suffix", ".png", _is_label_suffix, "the end of the labels' names, such as _mask.png"),
        read("size", None, lambda v: _is_integer_list(v, 2, minimum=1), "[height, width]"),
        read("mean", _DEFAULT_STATISTIC, _is_statistic, statistic),
        read("std", _DEFAULT_STATISTIC, _is_statistic, statistic),
        names,
        colors,
        given,
        {**dict.fromkeys(ignored, IGNORE_INDEX), **{value: i for i, value in enumerate(values)}},
        "ignore" not in metadata and bool(ignored),
        _read_split_rule(path, metadata),
    )


def find_near_names(path: Path) -> list[Path]:
    """Return the files that may be meant by a `classes.yaml` that is missing: in upper case, or with the suffix .yml."""
    names = (path.name, path.with_suffix(".yml").name)
    return [other for other in sorted(path.parent.iterdir()) if other.name.lower() in names]


class _Loader(yaml.SafeLoader):
    """A loader that refuses a key given twice, of which PyYAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if repeated := [key for i, key in enumerate(keys) if key in keys[:i]]:
            raise yaml.MarkedYAMLError(None, None, f"the key {repeated[0]} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _load_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        near = find_near_names(path)
        instead = f"; rename {near[0].name}, which is there" if near else f"; it defines the classes ({_DOCS})"
        raise UserError(f"there is no {path}{instead}")
    content = read_bytes(path)
    try:
        metadata = yaml.load(content, _Loader)  # noqa: S506  a SafeLoader
    except (
        yaml.YAMLError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise UserError(f"{path} is no valid YAML: {_explain_yaml_error(error)}") from None
    if isinstance(metadata, dict):
        refuse_plugins_in_file(metadata, path)
    if not isinstance(metadata, dict) or (unknown := [str(key) for key in metadata if key not in _KEYS]):
        given = f"has the keys {', '.join(unknown)}" if isinstance(metadata, dict) else "holds no keys"
        raise UserError(f"{path} {given}; it takes {', '.join(_KEYS)} ({_DOCS})")
    return metadata


def _explain_yaml_error(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark or error.context_mark):
        place = f"line {mark.line + 1}, column {mark.column + 1}"
        return f"{' '.join(str(error.problem).split())} in {place}; correct the brackets, quotes or indentation there"
    if isinstance(error, yaml.reader.ReaderError | UnicodeDecodeError):
        return "it is not text in UTF-8; save it as UTF-8"
    return f"a value cannot be read ({type(error).__name__}); put it in quotes"


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


def _read_split_rule(path: Path, metadata: dict[str, Any]) -> SplitRule | None:
    if "splits" not in metadata:
        return None
    try:
        return read_split_rule(metadata["splits"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _read_entries(path: Path, metadata: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the entries of `classes`, with colors as tuples."""
    expected = f"a list of two to {_MAX_CLASSES} {{name: …, id: …, color: [R, G, B]}}"
    entries = metadata.get("classes")
    if isinstance(entries, list) and len(entries) > _MAX_CLASSES:
        raise UserError(f"{path}: 'classes' has {len(entries)} entries; give {expected}")
    entries = list(_read_value(path, metadata, "classes", None, _is_list_of_mappings, expected))
    for number, entry in enumerate(entries, 1):
        if problem := _find_problem(entry):
            raise UserError(f"{path}: entry {number} of 'classes' ({_quote(entry)}): {problem}")
    return [{**entry, "color": _parse_color(entry["color"])} if "color" in entry else entry for entry in entries]


def _is_list_of_mappings(entries: Any) -> bool:
    return isinstance(entries, list) and len(entries) > 1 and any(isinstance(entry, dict) for entry in entries)


def _find_problem(entry: Any) -> str | None:
    """Return what is wrong with an entry of `classes`, and the cure."""
    if not isinstance(entry, dict):
        return "it is no mapping; give {name: …, id: …, color: [R, G, B]}"
    if unknown := [str(key) for key in entry if key not in _ENTRY_KEYS]:
        return f"it has the key {unknown[0]}; an entry takes {', '.join(_ENTRY_KEYS)}"
    name, value = entry.get("name"), entry.get("id", 0)
    if isinstance(name, bool):
        return f"YAML reads the name as {str(name).lower()}; put it in quotes, as in name: 'no'"
    if not isinstance(name, str) or not name.strip():
        return (
            "it has no name; add name: …" if name in (None, "") else f"the name {name!r} is no text; put it in quotes"
        )
    if type(value) is not int:
        is_number = isinstance(value, str) and value.strip().isdigit()
        return (
            f"the id {value!r} is text; remove the quotes" if is_number else f"the id {value!r} is no integer; give one"
        )
    if not 0 <= value <= _MAX_ID:
        return f"the id {value} is not within 0–{_MAX_ID}, the values of 8-bit labels"
    if "color" in entry and not _is_color(_parse_color(entry["color"])):
        return f"the color {entry['color']!r} is none; give {_COLOR_FORMS}"
    return None


def _quote(entry: Any) -> str:
    text = yaml.safe_dump(entry, default_flow_style=True, sort_keys=False, allow_unicode=True, width=1 << 16)
    return text.removesuffix("...\n").strip()


def _check_unique(path: Path, names: Sequence[str], values_by_key: dict[str, tuple[Any, ...]]) -> None:
    for key, values in values_by_key.items():
        for second, value in enumerate(values):
            if (first := values.index(value)) < second:
                pair = f"entries {first + 1} and {second + 1} of 'classes' ({names[first]}, {names[second]})"
                raise UserError(f"{path}: {pair} have the {key} {value}; give each its own")


def _fill_colors(given: Sequence[Color | None]) -> tuple[Color, ...]:
    """Replace None by colors of PASCAL VOC's color map that no class has."""
    used = {color for color in given if color is not None}
    colors = []
    for i, color in enumerate(given):
        candidates = (make_voc_color(k) for k in (*range(i + 1, 256), *range(1, i + 1)))
        colors.append(color if color is not None else next(c for c in candidates if c not in used))
        used.add(colors[-1])
    return tuple(colors)


def _parse_colors(values: Any) -> Any:
    return [_parse_color(value) for value in values] if isinstance(values, list) else values


def _parse_color(value: Any) -> Any:
    """Return a list or a '#rrggbb' as a tuple, and anything else as it is."""
    if isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value.strip()):
        return tuple(bytes.fromhex(value.strip()[1:]))
    return tuple(value) if isinstance(value, list) else value


def _is_integer_list(values: Any, length: int, minimum: int = 0) -> bool:
    """Return whether the values are integers: bytes if zero is allowed, otherwise sizes in pixels."""
    maximum = 255 if minimum == 0 else 1 << 16
    return len(values) == length and all(type(value) is int and minimum <= value <= maximum for value in values)


def _is_color(value: Any) -> bool:
    return isinstance(value, tuple) and _is_integer_list(value, 3)


def _is_label_suffix(value: str) -> bool:
    return value.lower().endswith(IMAGE_SUFFIXES) and "/" not in value and "\\" not in value


def _is_statistic(values: Any) -> bool:
    return len(values) == 3 and all(type(value) in (int, float) and 0 < value < 255 for value in values)


def _pack_color(color: Color) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]
