"""Propose the content of `classes.yaml` from the labels that a folder holds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from segkd.data.class_files import find_id_names
from segkd.data.discovery import find_images
from segkd.data.folder_splits import SPLIT_NAMES
from segkd.data.image_io import IMAGE_SUFFIXES, Color, LabelEncoding, read_bytes
from segkd.data.label_io import decode_label
from segkd.data.label_names import find_misnamed_labels, pair_with_labels
from segkd.errors import UserError
from segkd.utils.threads import thread_map

LABEL_FOLDERS = (
    "labels",
    "masks",
    "annotations",
    "label",
    "mask",
    "annotation",
    "SegmentationClass",
    "SegmentationClassPNG",
)
"""Usual names of folders of labels, the likeliest first."""
LABEL_MAP = "labelmap.txt"
"""CVAT's file of names and colors."""
VOID_NAMES = frozenset(("void", "ignore", "ignored", "unlabeled", "unlabelled", "unknown", "border", "__ignore__"))
"""Names, in lower case, of what is no class but ignored pixels."""
_VOC_BORDER = (224, 224, 192)
_MAX_VALUES = 256  # in one label; a file with more is a photograph
_MAX_CLASSES = 250
_FEW_IDS = 2  # 0 and 255 are a mask; beside other ids, 255 is void


class LabelForm(NamedTuple):
    """How a label file is stored."""

    encoding: LabelEncoding
    colors: Mapping[int, Color | None]
    """Value → RGB; None for ids."""
    size: tuple[int, int]


def read_label_form(path: Path) -> LabelForm | None:
    """Return the encoding and the values of a label file; None if it is none, such as a photograph."""
    for encoding in ("palette", "colors"):
        try:
            label = decode_label(read_bytes(path), path, encoding)
        except UserError:
            continue
        values = np.unique(label.values).tolist()
        size = (label.values.shape[0], label.values.shape[1])
        if len(values) > _MAX_VALUES:
            return None
        if encoding == "colors":
            return LabelForm("colors", {value: _unpack(value) for value in values}, size)
        if not label.palette:
            return LabelForm("ids", dict.fromkeys(values), size)
        palette = dict(enumerate(label.palette))
        return LabelForm("palette", {value: palette.get(value, (0, 0, 0)) for value in values}, size)
    return None


def propose_classes(
    forms: Iterable[tuple[str | None, Mapping[int, Color | None]]],
    names: Mapping[Color, str],
    id_names: Mapping[int, str] | None = None,
) -> dict[str, Any] | None:
    """Propose `labels`, `classes` and `ignore` of a `classes.yaml`.

    Palette indices that have several colors are proposed as colors.

    Args:
        forms: Encoding and value → color of label files; of several encodings, the most frequent one is taken.
        names: Color → name of a class.
        id_names: Id → name of a class whose color has no name.

    Returns:
        The proposal, or None if there is no label with an encoding, or too many classes.
    """
    known = [(encoding, colors) for encoding, colors in forms if encoding]
    if not known:
        return None
    encoding = Counter(encoding for encoding, _ in known).most_common(1)[0][0]
    tables = [colors for form, colors in known if form == encoding]
    pairs = {pair for table in tables for pair in table.items()}
    if encoding == "palette" and _differ(tables):
        encoding, pairs = "colors", {(_pack(color), color) for _, color in pairs if color}
    seen: set[Color | None] = set()
    classes, ignored = [], []
    for i, (value, color) in enumerate(sorted(pairs, key=lambda pair: pair[0])):
        default = f"class {i}" if color else f"class {value}"
        by_id = default if encoding == "colors" or id_names is None else id_names.get(value, default)
        name = names.get(color, by_id) if color else by_id
        is_void = name.lower() in VOID_NAMES or (
            value == 255 and (color == _VOC_BORDER or (not color and len(pairs) > _FEW_IDS))
        )
        entry = {
            "name": name,
            **({} if encoding == "colors" else {"id": value}),
            **({"color": list(color)} if color and color not in seen else {}),
        }
        seen.add(color)
        if is_void:
            ignored.append(value if encoding != "colors" else entry["color"])
        else:
            classes.append(entry)
    if len(classes) > _MAX_CLASSES:
        return None
    return {"labels": encoding, "classes": classes, **({"ignore": ignored} if ignored else {})}


def propose_class_table(root: Path, workers: int) -> dict[str, Any] | None:
    """Propose a whole `classes.yaml` for a folder without one.

    Names come from CVAT's `labelmap.txt`, labelme's `class_names.txt` or Roboflow's `_classes.csv` if they are there. Images
    that do not lie in folders of splits get a rule that splits them.

    Args:
        root: The folder; labels are in `labels`, or in a folder of another common name.
        workers: Threads that read labels.

    Returns:
        The proposal, or None if no labels are found.

    Raises:
        UserError: Two files name an id differently.
    """
    folder = next((root / name for name in LABEL_FOLDERS if (root / name).is_dir()), root / "labels")
    files = find_images(folder).paths
    forms = [form for form in thread_map(read_label_form, files, workers, "reading labels") if form]
    id_names = find_id_names(root, folder) if forms else {}
    proposal = propose_classes(
        [(form.encoding, form.colors) for form in forms], _read_color_names(root / LABEL_MAP), id_names
    )
    if proposal is None:
        return None
    suffix = _find_label_suffix(root / "images", folder)
    size = Counter(form.size for form in forms).most_common(1)[0][0]
    proposal |= {"label_suffix": suffix} if suffix else {}
    proposal |= {"size": list(size)}
    return proposal if _has_splits(root / "images") else {**proposal, "splits": {"val": 0.2, "seed": 0}}


def read_label_map(path: Path) -> list[tuple[str, Color]]:
    """Return the name and color of each of CVAT's lines `name:red,green,blue:parts:actions`."""
    lines = read_bytes(path).decode("utf-8-sig", errors="replace").splitlines()
    matches = [re.fullmatch(r"([^#].*):(\d+),(\d+),(\d+):.*:.*", line.strip()) for line in lines]
    return [(match[1], (int(match[2]), int(match[3]), int(match[4]))) for match in matches if match]


def format_proposal(proposal: Mapping[str, Any]) -> str:
    """Return a proposal as lines of YAML."""
    lines = []
    for key, value in proposal.items():
        if key == "classes":
            lines += ["classes:", *(f"  - {_to_yaml(entry)}" for entry in value)]
        else:
            lines.append(f"{key}: {_to_yaml(value)}")
    return "\n".join(lines)


def _differ(tables: Sequence[Mapping[int, Color | None]]) -> bool:
    """Return whether files give an index several colors, or indices one color that no file gives to more than one."""
    pairs = {pair for table in tables for pair in table.items()}
    repeated = {color for table in tables for color, count in Counter(table.values()).items() if count > 1}
    unique = [color for _, color in pairs if color not in repeated]
    return len(dict(pairs)) < len(pairs) or len(set(unique)) < len(unique)


def _to_yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=1 << 16)
    return text.removesuffix("...\n").strip()


def _has_splits(images: Path) -> bool:
    """Return whether a folder has one of a split, or no images at all."""
    return any(path.name.lower() in SPLIT_NAMES for path in images.glob("*/")) or not find_images(images).paths


def _read_color_names(path: Path) -> dict[Color, str]:
    return {color: name for name, color in read_label_map(path)} if path.is_file() else {}


def _find_label_suffix(images: Path, labels: Path) -> str | None:
    """Return the most frequent ending of labels after the names of their images; None if it is .png or there is none."""
    pairs = pair_with_labels(find_images(images).paths, images, labels)
    found = find_misnamed_labels(pairs, images, [labels])
    endings: Sequence[str] = [
        label.name[len(image.stem) :] for image, label in found.items() if label.stem.startswith(image.stem)
    ]
    if not endings or any(label.is_file() for _, label in pairs):
        return None
    ending = Counter(endings).most_common(1)[0][0]
    return ending if ending.lower().endswith(IMAGE_SUFFIXES) else None


def _pack(color: Color) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]


def _unpack(value: int) -> Color:
    return value >> 16, value >> 8 & 255, value & 255
