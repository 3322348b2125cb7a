"""`python -m segkd.check`: each planted fault is reported with its file, and nothing else is."""

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
from tests.helpers.fake_datasets import edit_metadata, write_camvid, write_folder, write_palette, write_voc

Issues = set[tuple[str, str]]
"""File and kind of each issue."""


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def write(path: Path, content: np.ndarray) -> None:
    assert cv2.imwrite(str(path), content)


def add_unknown_id(label: np.ndarray) -> np.ndarray:
    label[0, :3] = 77
    return label


def plant_faults(root: Path) -> tuple[Issues, Issues]:
    """Damage twelve samples, each in its own way, and empty one label; return the faults and notes to expect."""
    images = sorted((root / "train").iterdir())[:13]
    labels = [root / "trainannot" / image.name for image in images]
    labels[0].write_bytes(b"")
    labels[1].unlink()
    images[2].unlink()
    write(labels[3], add_unknown_id(read(labels[3])))
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

    def make_relative(*issues: tuple[Path, str]) -> Issues:
        return {(str(path.relative_to(root)), kind) for path, kind in issues}

    faults = make_relative(
        (labels[0], "unreadable"), (images[1], "no label"), (labels[2], "no image"), (labels[3], "ids"), (labels[4], "size"),
        (labels[5], "mode"), (labels[6], "mode"), (images[7], "unreadable"), (images[8], "unreadable"), (images[9], "mode"),
        (images[10], "duplicate"), (root / "test/copied.png", "duplicate"),
        (images[11], "name"), (root / "test" / images[11].name, "name"),
    )  # fmt: skip
    return faults, make_relative((labels[12], "void"))


def run_check(command: Command, root: Path, *overrides: str) -> tuple[Result, Issues, Issues]:
    """Run the command; return its result, faults and notes."""
    result = command("check", f"dataset.root={root}", f"output_dir={root}/report", *overrides)
    report = json.loads((root / "report/check.json").read_text())
    faults, notes = (
        {(str(Path(entry["file"]).relative_to(root)), entry["kind"]) for entry in report[key]}
        for key in ("faults", "notes")
    )
    assert len(report["faults"]) == len(faults)
    return result, faults, notes


def test_planted_faults_are_found(command: Command, tmp_path: Path) -> None:
    write_camvid(tmp_path, train=15, size=(24, 36))
    result, faults, notes = run_check(command, tmp_path)
    assert (result.code, faults, notes) == (0, set(), set())
    assert result.out.splitlines()[-1] == "CamVid: 19 images, no faults"
    planted = plant_faults(tmp_path)
    for workers in (1, 3):
        result, faults, notes = run_check(command, tmp_path, f"workers={workers}")
        assert result.code == 1
        assert (faults, notes) == planted
        assert result.out.splitlines()[-1] == "CamVid: 20 images, 14 faults"
        for file, _ in faults | notes:
            assert file in result.out
        assert "Traceback" not in result.err


@pytest.mark.published
def test_planted_faults_are_found_in_published_data(command: Command, published_files: Path, tmp_path: Path) -> None:
    root = tmp_path / "camvid"
    shutil.copytree(published_files / "data/camvid", root)
    result, faults, notes = run_check(command, root)
    assert (result.code, faults, notes) == (0, set(), set())
    assert result.out.splitlines()[-1] == "CamVid: 701 images, no faults"
    planted = plant_faults(root)
    result, faults, notes = run_check(command, root)
    assert (result.code, faults, notes) == (1, *planted)


def test_usable_files_are_noted(command: Command, tmp_path: Path) -> None:
    """Grayscale, alpha, rotated and duplicate images are notes; an image of one pixel is nothing special."""
    write_folder(tmp_path)
    images, labels = tmp_path / "images/train/field", tmp_path / "labels/train/field"

    def add_sample(name: str, image: np.ndarray, label: np.ndarray) -> None:
        write(images / f"{name}.png", image)
        write(labels / f"{name}.png", label)

    color, label = read(images / "0.png"), read(labels / "0.png")
    add_sample("grey", color[..., 1], label)
    add_sample("alpha", np.dstack([255 - color, color[..., 0]]), label)
    add_sample("twice", color, label)
    add_sample("pixel", np.full((1, 1, 3), 7, np.uint8), np.full((1, 1), 10, np.uint8))
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(color).save(images / "turned.jpg", exif=exif)
    write(labels / "turned.png", np.ascontiguousarray(np.rot90(label, -1)))
    result, faults, notes = run_check(command, tmp_path, "dataset=folder")
    assert (result.code, faults) == (0, set())
    assert {(Path(file).stem, kind) for file, kind in notes} == {
        ("grey", "grey"), ("alpha", "alpha"), ("turned", "turned"), ("0", "duplicate"), ("twice", "duplicate"),
    }  # fmt: skip
    write(labels / "turned.png", label)  # as stored, not as displayed
    result, faults, _ = run_check(command, tmp_path, "dataset=folder")
    assert (result.code, faults) == (1, {("labels/train/field/turned.png", "size")})


def test_image_listed_in_two_splits_is_a_fault(command: Command, tmp_path: Path) -> None:
    write_voc(tmp_path)
    assert run_check(command, tmp_path, "dataset=voc")[0].code == 0
    lists = tmp_path / "ImageSets/Segmentation"
    first = (lists / "train.txt").read_text().split()[0]
    (lists / "val.txt").write_text(f"{first}\nnowhere\n")
    result, faults, _ = run_check(command, tmp_path, "dataset=voc")
    assert result.code == 1
    assert faults == {
        (f"JPEGImages/{first}.jpg", "duplicate"), ("JPEGImages/nowhere.jpg", "unreadable"), ("JPEGImages/nowhere.jpg", "no label"),
    }  # fmt: skip


@pytest.mark.parametrize("encoding", ["palette", "colors"])
def test_proposed_classes_read_the_labels(command: Command, tmp_path: Path, encoding: str) -> None:
    """For labels of another encoding, the proposal of `check` is all that `dataset=folder` needs."""
    write_folder(tmp_path)
    table = np.zeros((256, 3), np.uint8)
    table[[10, 20, 30, 255]] = [(200, 0, 0), (0, 200, 0), (9, 9, 9), (255, 255, 255)]
    labels = {path: read(path) for path in (tmp_path / "labels").rglob("*.png")}
    for path, label in labels.items():
        if encoding == "palette":
            write_palette(path, label, [tuple(color) for color in table.tolist()])
        else:
            write(path, table[label][..., ::-1])
    result, faults, _ = run_check(command, tmp_path, "dataset=folder")
    assert {kind for _, kind in faults} == {"mode"}
    proposed = yaml.safe_load(
        "\n".join(result.out.partition("(docs/how-to/custom-dataset.md):\n")[2].splitlines()[:-1])
    )
    assert proposed == json.loads((tmp_path / "report/check.json").read_text())["proposal"]
    names = {tuple(entry["color"]): entry["name"] for entry in proposed["classes"]}
    assert names.keys() == {(200, 0, 0), (0, 200, 0), (9, 9, 9), (255, 255, 255)}
    assert (names[200, 0, 0], names[0, 200, 0]) == ("soil", "crop")
    (tmp_path / "classes.yaml").write_text(yaml.safe_dump({**proposed, "size": [40, 60], "ignore": []}))
    result, faults, _ = run_check(command, tmp_path, "dataset=folder")
    assert (result.code, faults) == (0, set())


def test_class_without_labels_is_a_fault(command: Command, tmp_path: Path) -> None:
    """Of all splits it is a fault; of some, a note. The report has the pixels of each class and of each ignored value."""
    write_folder(tmp_path)
    labels = {path: read(path) for path in sorted((tmp_path / "labels").rglob("*.png"))}
    for path, label in labels.items():
        write(path, np.where(label == 30, 20, label))
    result, faults, notes = run_check(command, tmp_path, "dataset=folder")
    assert (result.code, faults, notes) == (1, {("classes.yaml", "class")}, set())
    assert "weed (id 30) is in no label of any split; 25.0 % of the pixels are 255, which classes.yaml" in result.out
    assert result.out.splitlines()[-1].endswith(": 4 images, 1 fault")
    train = json.loads((tmp_path / "report/check.json").read_text())["splits"]["train"]
    assert train["pixels"] == {"soil": 2 * 600, "crop": 2 * 1200, "weed": 0}
    assert train["ignored"] == {"255": 2 * 600}
    result, faults, notes = run_check(command, tmp_path, "dataset=folder", "splits=[val]")
    assert (result.code, faults, notes) == (0, set(), {("classes.yaml", "class")})
    assert "note: weed (id 30) is in no label of val; " in result.out
    write(path, labels[path])
    result, faults, notes = run_check(command, tmp_path, "dataset=folder")
    assert (result.code, faults, notes) == (0, set(), {("classes.yaml", "class")})
    assert "note: weed (id 30) is in no label of train, only in those of val; " in result.out


def test_faults_of_one_kind_do_not_hide_others(command: Command, tmp_path: Path) -> None:
    write_camvid(tmp_path, train=30, size=(8, 12))
    labels = sorted((tmp_path / "trainannot").iterdir())
    for label in labels[:25]:
        write(label, np.full((8, 12), 77, np.uint8))
    labels[29].write_bytes(b"")
    result, faults, _ = run_check(command, tmp_path)
    assert (result.code, len(faults)) == (1, 26)
    assert result.out.count("holds the id") == 10
    assert "\n15 more faults of the kind 'ids'; output_dir=DIR writes all to check.json\n" in result.out
    assert f"{labels[29]} is not a complete image" in result.out


def test_labels_are_drawn_over_images(command: Command, tmp_path: Path) -> None:
    """Of samples without a fault alone: the image, the label over it, and the label in the colors of the classes."""
    write_folder(tmp_path)
    image, label = read(tmp_path / "images/train/field/1.png"), read(tmp_path / "labels/train/field/1.png")
    (tmp_path / "labels/train/field/0.png").write_bytes(b"")
    result, _, _ = run_check(command, tmp_path, "dataset=folder", "pictures=5")
    assert result.code == 1
    pictures = tmp_path / "report/pictures"
    assert {path.name for path in pictures.iterdir()} == {"train_field_1.png", "val_field_0.png", "val_field_1.png"}
    colors = np.full((*label.shape, 3), 255, np.uint8)
    for value, color in {10: (200, 0, 0), 20: (0, 200, 0), 30: (0, 0, 200)}.items():
        colors[label == value] = color[::-1]
    drawn = read(pictures / "train_field_1.png")[24 : 24 + 40]
    expected = (image, np.rint((image.astype(float) + colors) / 2), colors)
    for column, content in enumerate(expected):
        x = 6 + column * 66
        np.testing.assert_allclose(drawn[:, x : x + 60].astype(float), content, atol=1)


def raise_no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((), "dataset=camvid needs dataset.root=DIR"),
        (("dataset.root=nowhere",), "there is no folder nowhere for dataset=camvid"),
        (("dataset.root=empty",), "found no images of CamVid train in empty"),
        (("dataset.root=empty", "splits=[val]"), "found no images of CamVid val in empty"),
        (("dataset.root=camvid", "splits=[dev]"), "CamVid has no split 'dev'; it has train, val"),
        (("dataset=streets",), "Streets has no image and label files"),
        (("dataset.root=camvid", "output_dir=file/report"), "cannot make the folder file/report"),
        (("dataset.root=camvid", "workers=0"), "workers"),
        (("dataset.root=camvid", "pictures=2"), "pictures=2 needs a folder; give output_dir=DIR"),
    ],
)
def test_mistakes_exit_with_code_2(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_camvid(Path("camvid"), size=(8, 12))
    Path("empty").mkdir()
    Path("file").touch()
    result = command("check", *overrides)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize("fails", [Path.write_text, Path.replace], ids=["full", "read-only"])
def test_report_is_written_completely_or_not_at_all(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., object]
) -> None:
    write_camvid(tmp_path, size=(8, 12))
    report = tmp_path / "report"
    monkeypatch.setattr(Path, fails.__name__, raise_no_space)
    result = command("check", f"dataset.root={tmp_path}", f"output_dir={report}")
    assert result.code == 2
    assert "cannot write" in result.err
    assert "No space left on device" in result.err
    assert list(report.iterdir()) == []
    monkeypatch.undo()


def test_labels_under_another_name_are_told_once(command: Command, tmp_path: Path) -> None:
    write_folder(tmp_path)
    for label in sorted((tmp_path / "labels").rglob("*.png")):
        label.rename(label.with_stem(f"{label.stem}_mask"))
    (tmp_path / "images/train/a.heic").touch()
    (tmp_path / "images/val/._b.png").touch()
    result, faults, notes = run_check(command, tmp_path, "dataset=folder")
    assert (result.code, faults, notes) == (
        1,
        {(f"labels/{split}/field/0_mask.png", "label name") for split in ("train", "val")},
        {(".", "left out")},
    )
    assert result.out.count("give `label_suffix: _mask.png` in classes.yaml") == 2  # one a split
    assert f"note: {tmp_path}/images/train/a.heic is not read" in result.out
    assert f"note: {tmp_path}/images/val/._b.png is left out as hidden" in result.out
    edit_metadata(tmp_path, label_suffix="_mask.png")
    result, faults, _ = run_check(command, tmp_path, "dataset=folder")
    assert (result.code, faults) == (0, set())


def test_lossy_labels_and_files_of_several_pages_are_noted(command: Command, tmp_path: Path) -> None:
    write_folder(tmp_path)
    image, label = tmp_path / "images/train/field/0.png", tmp_path / "labels/train/field/0.png"
    pages = [Image.open(image), Image.open(image).rotate(180)]
    pages[0].save(image.with_suffix(".tif"), save_all=True, append_images=pages[1:])
    image.unlink()
    assert run_check(command, tmp_path, "dataset=folder")[1:] == (set(), {(".", "pages")})
    for path in sorted((tmp_path / "labels").rglob("*.png")):
        Image.fromarray(np.full_like(read(path), 20)).save(path.with_suffix(".jpg"))  # flat, so that nothing is lost
        path.unlink()
    assert ("labels/train/field/0.jpg", "label name") in run_check(command, tmp_path, "dataset=folder")[1]
    edit_metadata(tmp_path, label_suffix=".jpg")
    result, faults, notes = run_check(command, tmp_path, "dataset=folder")
    assert {kind for _, kind in faults} == {"class"}
    assert notes == {(".", "pages"), (".", "lossy")}
    assert f"{label.with_suffix('.jpg')} and 1 more are JPEG, whose compression may have changed ids" in result.out


def test_size_in_the_wrong_order_is_noted(command: Command, tmp_path: Path) -> None:
    write_folder(tmp_path)
    assert run_check(command, tmp_path, "dataset=folder")[2] == set()
    edit_metadata(tmp_path, size=[60, 40])
    result, faults, notes = run_check(command, tmp_path, "dataset=folder")
    assert (result.code, faults, notes) == (0, set(), {("classes.yaml", "size")})
    assert "`size: [60, 40]` is no image's height and width; write `size: [40, 60]`" in result.out


def test_classes_are_proposed_without_classes_yaml(command: Command, tmp_path: Path) -> None:
    """What is printed is all that is missing."""
    write_folder(tmp_path, "colors")
    (tmp_path / "classes.yaml").unlink()
    (tmp_path / "labelmap.txt").write_text("soil:200,0,0::\ncrop:0,200,0::\nvoid:255,255,255::\n")
    result = command("check", "dataset=folder", f"dataset.root={tmp_path}")
    assert result.code == 2
    assert f"there is no {tmp_path}/classes.yaml; the lines on stdout are a proposal" in result.err
    (tmp_path / "classes.yaml").touch()  # as the shell does for `> classes.yaml`
    redirected = command("check", "dataset=folder", f"dataset.root={tmp_path}")
    assert (redirected.code, redirected.out) == (2, result.out)
    assert f"{tmp_path}/classes.yaml is empty; the lines on stdout are a proposal" in redirected.err
    (tmp_path / "classes.yaml").write_text(result.out)
    assert yaml.safe_load(result.out)["ignore"] == [[255, 255, 255]]
    assert run_check(command, tmp_path, "dataset=folder")[0].code == 0
    shutil.rmtree(tmp_path / "labels")
    (tmp_path / "classes.yaml").unlink()
    assert "it defines the classes" in command("check", "dataset=folder", f"dataset.root={tmp_path}").err
