"""`classes.yaml`: what is valid, and one sentence for what is not."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkd.data.class_table import read_class_table
from segkd.data.folder import Folder
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX
from tests.helpers.fake_datasets import edit_metadata, write_folder


def make_classes(**last: object) -> list[object]:
    """Return thirty entries of `classes`, of which the last one is given."""
    return [*({"name": f"class {i}"} for i in range(29)), {"name": "last", **last}]


INVALID: dict[str, tuple[dict[str, object], str]] = {
    "no classes": ({"classes": None}, "'classes' is missing; give a list of two to 250"),
    "one class": ({"classes": [{"name": "a"}]}, "'classes' is .*; give a list of two"),
    "names alone": ({"classes": ["a", "b"]}, "'classes' is .*; give a list of two"),
    "names by id": ({"classes": {0: "a", 1: "b"}}, "'classes' is .*; give a list of two"),
    "too many": (
        {"classes": [{"name": str(i)} for i in range(251)]},
        "'classes' has 251 entries; give a list of two to 250",
    ),
    "one name alone": ({"classes": [*make_classes(), "b"]}, r"entry 31 of 'classes' \(b\): it is no mapping; give"),
    "name that YAML parses as false": (
        {"classes": make_classes(name=False)},
        r"entry 30 of 'classes' \({name: false}\): YAML reads the name as false; put it in quotes, as in name: 'no'",
    ),
    "number for a name": ({"classes": make_classes(name=7)}, "entry 30 .*: the name 7 is no text; put it in quotes"),
    "no name": (
        {"classes": [{"name": "a"}, {"id": 4}]},
        r"entry 2 of 'classes' \({id: 4}\): it has no name; add name: …",
    ),
    "key of a class": (
        {"classes": make_classes(colour=[0, 0, 0])},
        "entry 30 .*: it has the key colour; an entry takes name, id, color",
    ),
    "id in quotes": ({"classes": make_classes(id="7")}, "entry 30 .*: the id '7' is text; remove the quotes"),
    "id that is no integer": ({"classes": make_classes(id=1.5)}, "entry 30 .*: the id 1.5 is no integer"),
    "id of nine bits": ({"classes": make_classes(id=256)}, "entry 30 .*: the id 256 is not within 0–255"),
    "color name": ({"classes": make_classes(color="red")}, r"entry 30 .*: the color 'red' is none; give \[R, G, B\]"),
    "color of five digits": (
        {"classes": make_classes(color="#ff000")},
        "entry 30 .*: the color '#ff000' is none; give",
    ),
    "color of two channels": (
        {"classes": make_classes(color=[1, 2])},
        r"entry 30 .*: the color \[1, 2\] is none; give",
    ),
    "two of one name": (
        {"classes": [{"name": "a"}, {"name": "b"}, {"name": "a"}]},
        r"entries 1 and 3 of 'classes' \(a, a\) have the name a; give each its own",
    ),
    "two of one id": (
        {"classes": [{"name": "a"}, {"name": "b", "id": 0}]},
        r"entries 1 and 2 of 'classes' \(a, b\) have the id 0; give each its own",
    ),
    "two of one color": (
        {"classes": [{"name": "a", "color": [255, 0, 0]}, {"name": "b", "color": "#FF0000"}]},
        r"entries 1 and 2 of 'classes' \(a, b\) have the color \(255, 0, 0\)",
    ),
    "class that is ignored": ({"ignore": [20]}, "'crop' is a class and in 'ignore'; leave out one"),
    "id of 16 bits": ({"ignore": [65535]}, r"'ignore' is \[65535\]; give a list of ids 0–255"),
    "no size": ({"size": None}, r"'size' is missing; give \[height, width\]"),
    "one size": ({"size": 512}, r"'size' is 512; give \[height, width\]"),
    "mean of 0..1": ({"mean": "0.4"}, "'mean' is '0.4'; give"),
    "coding": ({"labels": "rgb"}, "'labels' is 'rgb'; give ids, palette or colors"),
    "suffix of a label": (
        {"label_suffix": "_mask"},
        "'label_suffix' is '_mask'; give the end of the labels' names, such as",
    ),
    "folder in a suffix": ({"label_suffix": "/a.png"}, "'label_suffix' is '/a.png'"),
    "name of the dataset": ({"name": 3}, "'name' is 3; give a name, in quotes"),
    "misspelt key": ({"class": []}, "has the keys class; it takes name, labels, label_suffix, classes"),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_metadata_are_refused(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path)
    changes, message = INVALID[name]
    edit_metadata(tmp_path, **changes)
    with pytest.raises(UserError, match=message) as error:
        Folder(tmp_path, "train")
    assert str(error.value).startswith(str(tmp_path / "classes.yaml"))
    assert "\n" not in str(error.value)
    assert len(str(error.value).removeprefix(str(tmp_path))) < 300


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"classes: [", "in line 1, column 11; correct the brackets"),
        (b"size: [4, 4]\nclasses:\n\t- {name: a}", "in line 3, column 1; correct"),
        (b"size: [4, 4]\nclasses: []\nsize: [5, 5]", "the key size is given twice in line 1, column 1"),
        (b"classes: [{name: a, id: 1, id: 2}]", "the key id is given twice"),
        (b"\xff\xfe\x00", "is no valid YAML: it is not text in UTF-8; save it as UTF-8"),
        ("name: Gehöft".encode("latin-1"), "it is not text in UTF-8"),
        (b"", "holds no keys"),
        (b"[a, b]", "holds no keys"),
        (b"name: 2020-13-45", "a value cannot be read"),
        (b"[" * 3000, "no valid YAML"),
        (b"!!python/name:os.system", "no valid YAML"),
    ],
)
def test_unreadable_metadata_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    write_folder(tmp_path)
    (tmp_path / "classes.yaml").write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        Folder(tmp_path, "train")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["classes.yml", "Classes.YAML"])
def test_a_near_name_is_told(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path)
    (tmp_path / "classes.yaml").rename(tmp_path / name)
    with pytest.raises(UserError, match=rf"there is no .*classes\.yaml; rename {name}, which is there"):
        Folder(tmp_path, "train")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_metadata_may_have_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    write_folder(tmp_path)
    text = (tmp_path / "classes.yaml").read_text().replace("\n", "\r\n")
    (tmp_path / "classes.yaml").write_bytes(text.encode(encoding))
    assert Folder(tmp_path, "train").classes == ("soil", "crop", "weed")


@settings(derandomize=True, max_examples=100, deadline=None)
@given(position=st.integers(0, 10_000), byte=st.integers(0, 255), end=st.integers(0, 10_000))
def test_damaged_metadata_never_crash(
    tmp_path_factory: pytest.TempPathFactory, position: int, byte: int, end: int
) -> None:
    """Another byte somewhere, and the end cut off: valid, or one sentence."""
    root = tmp_path_factory.mktemp("damaged")
    write_folder(root)
    content = bytearray((root / "classes.yaml").read_bytes())
    content[position % len(content)] = byte
    (root / "classes.yaml").write_bytes(content[: end % (2 * len(content))])
    with suppress(UserError):
        read_class_table(root / "classes.yaml", "farm")


def test_ignored_ids_have_a_default(tmp_path: Path) -> None:
    """255 is ignored unless a class has this id, or the file says otherwise."""
    write_folder(tmp_path)
    classes = [{"name": "background", "id": 0}, {"name": "lesion", "id": 255}]
    edit_metadata(tmp_path, classes=classes, ignore=None)
    table = read_class_table(tmp_path / "classes.yaml", "farm")
    assert (table.label_map, table.ignores_by_default) == ({0: 0, 255: 1}, False)
    classes[1]["id"] = 1
    edit_metadata(tmp_path, classes=classes)
    table = read_class_table(tmp_path / "classes.yaml", "farm")
    assert (table.label_map, table.ignores_by_default) == ({255: IGNORE_INDEX, 0: 0, 1: 1}, True)
    edit_metadata(tmp_path, classes=classes, ignore=[])
    table = read_class_table(tmp_path / "classes.yaml", "farm")
    assert (table.label_map, table.ignores_by_default) == ({0: 0, 1: 1}, False)


def test_colors_may_be_hexadecimal_and_defaults_are_distinct(tmp_path: Path) -> None:
    write_folder(tmp_path, "colors")
    classes = [
        {"name": "soil", "color": "#c80000"},
        {"name": "crop", "color": "#00C800"},
        {"name": "weed", "color": [0, 0, 200]},
    ]
    edit_metadata(tmp_path, classes=classes, ignore=["#ffffff"])
    assert Folder(tmp_path, "train")[0].label.max() == IGNORE_INDEX
    assert Folder(tmp_path, "train").given_colors == ((200, 0, 0), (0, 200, 0), (0, 0, 200))
    edit_metadata(
        tmp_path, classes=[{"name": "a"}, {"name": "b", "color": [128, 0, 0]}, {"name": "c"}], labels=None, ignore=None
    )
    data = read_class_table(tmp_path / "classes.yaml", "farm")
    assert data.given_colors == (None, (128, 0, 0), None)
    assert len(set(data.colors)) == 3  # the first default color of the map is that of b
