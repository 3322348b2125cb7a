"""Find out what the values of label files mean: from the files that name classes, and from the values themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segkd.data.class_files import find_id_names
from segkd.data.class_table import ClassTable, read_class_table
from segkd.data.discovery import is_hidden
from segkd.data.folder import METADATA_FILE
from segkd.data.image_io import Color
from segkd.data.proposal import LABEL_MAP, propose_classes, read_label_form, read_label_map
from segkd.errors import UserError
from segkd.import_labels.annotations import IGNORED, LabelClass, Notes
from segkd.import_labels.label_files import ValueMap
from segkd.types import IGNORE_INDEX
from segkd.utils.threads import thread_map

_WORKERS = 2


def find_classes(root: Path, labels: Sequence[Path], notes: Notes) -> tuple[list[LabelClass], ValueMap]:
    """Return the classes, and the meaning of the values.

    Args:
        root: Folder that may hold `classes.yaml`, `labelmap.txt`, `class_names.txt` or `_classes.csv`.
        labels: The label files, whose values are classes where no `classes.yaml` says so.
        notes: Gets classes without a name.

    Raises:
        UserError: Two files disagree, or the values cannot be classes.
    """
    color_names, id_names = _read_color_names(root), find_id_names(root)
    if (root / METADATA_FILE).is_file():
        table = read_class_table(root / METADATA_FILE, root.name)
        _check_table(root, table, color_names, id_names)
        if table.split_rule is not None:
            notes.add(
                "the key splits of classes.yaml is not used; give val=, test=, seed= and group=",
                str(root / METADATA_FILE),
            )
        return _use_table(table, root / METADATA_FILE)
    forms = [form for form in thread_map(read_label_form, labels, _WORKERS, "reading labels") if form]
    proposal = propose_classes([(form.encoding, form.colors) for form in forms], color_names, id_names)
    if proposal is None:
        raise UserError(
            f"{labels[0]} and the other labels hold too many values to be classes; labels are PNGs of ids or of one color a class"
        )
    return _use_proposal(proposal, notes, str(labels[0].parent))


def _read_color_names(root: Path) -> dict[Color, str]:
    """Return color → name of all label maps below a folder.

    Raises:
        UserError: Two of them disagree.
    """
    names: dict[Color, tuple[str, Path]] = {}
    for path in sorted(root.rglob(LABEL_MAP)):
        if any(map(is_hidden, path.relative_to(root).parts)):
            continue
        for name, color in read_label_map(path):
            other, source = names.setdefault(color, (name, path))
            if other != name:
                raise UserError(
                    f"{source} and {path} name the color {color} '{other}' and '{name}'; remove the wrong one"
                )
    return {color: name for color, (name, _) in names.items()}


def _check_table(root: Path, table: ClassTable, color_names: Mapping[Color, str], id_names: Mapping[int, str]) -> None:
    """Check that the other files agree with `classes.yaml`."""
    ids = {value: table.classes[i] for value, i in table.label_map.items() if i != IGNORE_INDEX}
    for color, name in zip(table.given_colors, table.classes, strict=True):
        if color is not None and color_names.get(color, name) != name:
            raise UserError(
                f"{METADATA_FILE} and {LABEL_MAP} of {root} name the color {color} '{name}' and '{color_names[color]}'; "
                "correct or remove one"
            )
    for value, name in id_names.items():
        if table.label_encoding != "colors" and ids.get(value, name) != name:
            raise UserError(
                f"{METADATA_FILE} of {root} names the id {value} '{ids[value]}', and another file there '{name}'; correct or "
                "remove one"
            )


def _use_table(table: ClassTable, path: Path) -> tuple[list[LabelClass], ValueMap]:
    classes = [LabelClass(name, color) for name, color in zip(table.classes, table.given_colors, strict=True)]
    meanings = {value: IGNORED if i == IGNORE_INDEX else i for value, i in table.label_map.items()}
    given = dict(zip(table.classes, table.given_colors, strict=True))
    palette = {value: color for value, i in meanings.items() if i != IGNORED and (color := given[table.classes[i]])}
    is_palette = table.label_encoding == "palette"
    return classes, ValueMap({table.label_encoding: meanings}, str(path), palette if is_palette else {})


def _use_proposal(proposal: Mapping[str, Any], notes: Notes, source: str) -> tuple[list[LabelClass], ValueMap]:
    entries, is_colored = proposal["classes"], proposal["labels"] == "colors"
    classes = [LabelClass(entry["name"], tuple(entry["color"]) if "color" in entry else None) for entry in entries]
    meanings = {_pack(entry["color"]) if is_colored else entry["id"]: i for i, entry in enumerate(entries)}
    meanings |= {_pack(value) if is_colored else value: IGNORED for value in proposal.get("ignore", ())}
    if unnamed := [entry for entry in classes if entry.name.startswith("class ")]:
        notes.add(
            "classes have no name; name them in the classes.yaml that is written", f"'{unnamed[0].name}'", len(unnamed)
        )
    return classes, ValueMap({proposal["labels"]: meanings}, source)


def _pack(color: Sequence[int]) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]
