"""Names of classes by id, in the files that annotation tools write beside labels."""

from __future__ import annotations

import csv
from pathlib import Path

from segkd.data.discovery import is_hidden
from segkd.data.image_io import read_bytes
from segkd.errors import UserError

CLASS_NAMES, CLASSES_CSV = "class_names.txt", "_classes.csv"
"""labelme's file, whose lines are the names of the ids from 0, and Roboflow's, of lines `id, name`."""
_IGNORED_BY_LABELME = "__ignore__"  # the first line of its list of labels, for the id -1


def find_id_names(*folders: Path) -> dict[int, str]:
    """Return id → name from the files of labelme and Roboflow in folders or directly below them; empty if there are none.

    Raises:
        UserError: Two files name an id differently.
    """
    places = [place for folder in folders if folder.is_dir() for place in (folder, *sorted(folder.glob("*/")))]
    files = [
        path
        for place in dict.fromkeys(places)
        for name in (CLASS_NAMES, CLASSES_CSV)
        if not is_hidden(place.name) and (path := place / name).is_file()
    ]
    names: dict[int, str] = {}
    for path in files:
        for value, name in _read_names(path).items():
            if names.setdefault(value, name) != name:
                raise UserError(
                    f"the id {value} is '{names[value]}' in {files[0]} and '{name}' in {path}; remove the wrong one of these files"
                )
    return names


def _read_names(path: Path) -> dict[int, str]:
    lines = read_bytes(path).decode("utf-8-sig", errors="replace").splitlines()
    if path.name == CLASSES_CSV:
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines)]
        return {int(row[0]): row[1] for row in rows if len(row) > 1 and row[0].isdecimal() and row[1]}
    names = [line.strip() for line in lines]
    names = names[1:] if names[:1] == [_IGNORED_BY_LABELME] else names
    return {value: name for value, name in enumerate(names) if name}
