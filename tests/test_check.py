"""`python -m segkd.check`: each planted fault is named with its file, and nothing else is."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from segkd.data.camvid import CamVid
from tests.helpers.commands import Command, Result
from tests.helpers.fake_datasets import write_camvid, write_folder, write_palette, write_voc

Named = set[tuple[str, str]]


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def write(path: Path, content: np.ndarray) -> None:
    assert cv2.imwrite(str(path), content)


def stranger(label: np.ndarray) -> np.ndarray:
    label[0, :3] = 77
    return label


def plant(root: Path) -> tuple[Named, Named]:
    """Twelve faults, each at a sample of its own, and a note; as (file, kind)."""
    images = sorted((root / "train").iterdir())[:13]
    labels = [root / "trainannot" / image.name for image in images]
    labels[0].write_bytes(b"")
    labels[1].unlink()
    images[2].unlink()
    write(labels[3], stranger(read(labels[3])))
    write(labels[4], np.ascontiguousarray(read(labels[4])[:-2]))
    write(labels[5], np.array((*CamVid.colors, (0, 0, 0)), np.uint8)[read(labels[5])][..., ::-1])
    write_palette(labels[6], read(labels[6]), (*CamVid.colors, (0, 0, 0)))
    images[7].write_bytes(images[7].read_bytes()[: images[7].stat().st_size // 2])
    images[8].write_text("<html>404 Not Found</html>")
    write(images[9], read(images[9]).astype(np.uint16) * 257)
    shutil.copy(images[10], root / "test/copied.png")
    shutil.copy(labels[10], root / "testannot/copied.png")
    write(root / "test" / images[11].name, 255 - read(images[11]))
    shutil.copy(labels[11], root / "testannot" / labels[11].name)
    write(labels[12], np.full_like(read(labels[12]), 11))

    def named(*those: tuple[Path, str]) -> Named:
        return {(str(path.relative_to(root)), kind) for path, kind in those}

    faults = named(
        (labels[0], "unreadable"), (images[1], "no label"), (labels[2], "no image"), (labels[3], "ids"), (labels[4], "size"),
        (labels[5], "mode"), (labels[6], "mode"), (images[7], "unreadable"), (images[8], "unreadable"), (images[9], "mode"),
        (images[10], "duplicate"), (root / "test/copied.png", "duplicate"),
        (images[11], "name"), (root / "test" / images[11].name, "name"),
    )  # fmt: skip
    return faults, named((labels[12], "void"))


def checked(command: Command, root: Path, *typed: str) -> tuple[Result, Named, Named]:
    result = command("check", f"dataset.root={root}", f"output_dir={root}/report", *typed)
    facts = json.loads((root / "report/check.json").read_text())
    faults, notes = (
        {(str(Path(entry["file"]).relative_to(root)), entry["kind"]) for entry in facts[key]}
        for key in ("faults", "notes")
    )
    assert len(facts["faults"]) == len(faults)
    return result, faults, notes


@pytest.mark.parametrize("workers", [1, 3])
def test_planted_faults(command: Command, tmp_path: Path, workers: int) -> None:
    write_camvid(tmp_path, train=15, size=(24, 36))
    result, *nothing = checked(command, tmp_path)
    assert (result.code, nothing) == (0, [set(), set()])
    assert result.out.splitlines()[-1] == "CamVid: 19 images, no faults"
    planted = plant(tmp_path)
    result, faults, notes = checked(command, tmp_path, f"workers={workers}")
    assert result.code == 1
    assert (faults, notes) == planted
    assert result.out.splitlines()[-1] == "CamVid: 20 images, 14 faults"
    for file, _ in faults | notes:
        assert file in result.out
    assert "Traceback" not in result.err


@pytest.mark.published
def test_planted_faults_in_the_data_themselves(command: Command, published_files: Path, tmp_path: Path) -> None:
    root = tmp_path / "camvid"
    shutil.copytree(published_files / "data/camvid", root)
    result, *nothing = checked(command, root)
    assert (result.code, nothing) == (0, [set(), set()])
    assert result.out.splitlines()[-1] == "CamVid: 701 images, no faults"
    planted = plant(root)
    result, *found = checked(command, root)
    assert (result.code, *found) == (1, *planted)


def test_what_is_worth_knowing(command: Command, tmp_path: Path) -> None:
    """Grey, alpha, turned, twice in one split, and of one pixel: used as they are, so they are notes, or nothing."""
    write_folder(tmp_path)
    images, labels = tmp_path / "images/train/field", tmp_path / "labels/train/field"

    def add(name: str, image: np.ndarray, label: np.ndarray) -> None:
        write(images / f"{name}.png", image)
        write(labels / f"{name}.png", label)

    color, label = read(images / "0.png"), read(labels / "0.png")
    add("grey", color[..., 1], label)
    add("alpha", np.dstack([255 - color, color[..., 0]]), label)
    add("twice", color, label)
    add("pixel", np.full((1, 1, 3), 7, np.uint8), np.full((1, 1), 10, np.uint8))
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(color).save(images / "turned.jpg", exif=exif)
    write(labels / "turned.png", np.ascontiguousarray(np.rot90(label, -1)))
    result, faults, notes = checked(command, tmp_path, "dataset=folder")
    assert (result.code, faults) == (0, set())
    assert {(Path(file).stem, kind) for file, kind in notes} == {
        ("grey", "grey"), ("alpha", "alpha"), ("turned", "turned"), ("0", "duplicate"), ("twice", "duplicate"),
    }  # fmt: skip
    write(labels / "turned.png", label)  # as it is stored, not as it is shown
    result, faults, _ = checked(command, tmp_path, "dataset=folder")
    assert (result.code, faults) == (1, {("labels/train/field/turned.png", "size")})


def test_a_list_that_names_an_image_twice(command: Command, tmp_path: Path) -> None:
    write_voc(tmp_path)
    assert checked(command, tmp_path, "dataset=voc")[0].code == 0
    lists = tmp_path / "ImageSets/Segmentation"
    first = (lists / "train.txt").read_text().split()[0]
    (lists / "val.txt").write_text(f"{first}\nnowhere\n")
    result, faults, _ = checked(command, tmp_path, "dataset=voc")
    assert result.code == 1
    assert faults == {
        (f"JPEGImages/{first}.jpg", "duplicate"), ("JPEGImages/nowhere.jpg", "unreadable"), ("JPEGImages/nowhere.jpg", "no label"),
    }  # fmt: skip


@pytest.mark.parametrize("coding", ["palette", "colors"])
def test_the_proposed_table_reads_the_labels(command: Command, tmp_path: Path, coding: str) -> None:
    """Labels of another coding: what `check` proposes is all that `folder` needs."""
    write_folder(tmp_path)
    table = np.zeros((256, 3), np.uint8)
    table[[10, 20, 30, 255]] = [(200, 0, 0), (0, 200, 0), (9, 9, 9), (255, 255, 255)]
    before = {path: read(path) for path in (tmp_path / "labels").rglob("*.png")}
    for path, label in before.items():
        if coding == "palette":
            write_palette(path, label, [tuple(color) for color in table.tolist()])
        else:
            write(path, table[label][..., ::-1])
    result, faults, _ = checked(command, tmp_path, "dataset=folder")
    assert {kind for _, kind in faults} == {"mode"}
    proposed = yaml.safe_load(
        "\n".join(result.out.partition("(docs/how-to/custom-dataset.md):\n")[2].splitlines()[:-1])
    )
    assert proposed == json.loads((tmp_path / "report/check.json").read_text())["proposal"]
    names = {tuple(entry["color"]): entry["name"] for entry in proposed["classes"]}
    assert names.keys() == {(200, 0, 0), (0, 200, 0), (9, 9, 9), (255, 255, 255)}
    assert (names[200, 0, 0], names[0, 200, 0]) == ("soil", "crop")
    (tmp_path / "classes.yaml").write_text(yaml.safe_dump({**proposed, "size": [40, 60], "ignore": []}))
    result, faults, _ = checked(command, tmp_path, "dataset=folder")
    assert (result.code, faults) == (0, set())


def no_room(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ((), "CamVid needs dataset.root=DIR"),
        (("dataset.root=nowhere",), "no CamVid at nowhere"),
        (("dataset.root=empty",), "found no images of CamVid train in empty"),
        (("dataset.root=empty", "splits=[val]"), "found no images of CamVid val in empty"),
        (("dataset.root=camvid", "splits=[dev]"), "CamVid has no split 'dev'; it has train, val"),
        (("dataset=streets",), "Streets has no image and label files"),
        (("dataset.root=camvid", "output_dir=file/report"), "cannot make the folder file/report"),
        (("dataset.root=camvid", "workers=0"), "workers"),
    ],
)
def test_mistakes(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_camvid(Path("camvid"), size=(8, 12))
    Path("empty").mkdir()
    Path("file").touch()
    result = command("check", *typed)
    assert (result.code, result.out) == (2, "")
    assert said in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize("fails", [Path.write_text, Path.replace], ids=["full", "read-only"])
def test_a_report_is_whole_or_not_there(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., object]
) -> None:
    write_camvid(tmp_path, size=(8, 12))
    report = tmp_path / "report"
    monkeypatch.setattr(Path, fails.__name__, no_room)
    result = command("check", f"dataset.root={tmp_path}", f"output_dir={report}")
    assert result.code == 2
    assert "cannot write" in result.err
    assert "No space left on device" in result.err
    assert list(report.iterdir()) == []
    monkeypatch.undo()
