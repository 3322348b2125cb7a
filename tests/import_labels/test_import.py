"""`python -m segkd.import`: what it writes, what it says, and that neither the export nor other folders change."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from segkd.cli.quoting import format_override
from segkd.data.folder import Folder
from segkd.utils.files import sha256
from tests.helpers.commands import Command, Result
from tests.helpers.exports import paint, write_image

CAR = [[1, 1, 5, 1, 5, 4, 1, 4]]
LABEL = ".......... .cccc..... .cccc..... .cccc..... .......... .........."  # background 0, car 1


def write_export(root: Path, count: int = 5, **image: Any) -> Path:
    """Write images of 6 × 10 pixels, with a car in each but the last."""
    images, annotations = [], []
    for i in range(count):
        images.append({"id": i, "file_name": f"{i}.png", "height": 6, "width": 10, **image})
        write_image(root / f"images/{i}.png", (6, 10), 7 * i)
        if i < count - 1:
            annotations.append({"id": i, "image_id": i, "category_id": 1, "segmentation": CAR, "iscrowd": 0})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "car"}]}
    (root / "annotations.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def run(tmp_path: Path, command: Command) -> Any:
    def run(*arguments: str, source: str = "in", output: str = "out") -> Result:
        return command("import", "from=coco", f"input={tmp_path / source}", f"output={tmp_path / output}", *arguments)

    return run


def hash_files(folder: Path) -> dict[str, tuple[str, int]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): (sha256(path), path.stat().st_mtime_ns) for path in files}


def test_what_is_written_and_said(tmp_path: Path, run: Any) -> None:
    before = hash_files(write_export(tmp_path / "in"))
    result = run("val=0.4")
    assert result.code == 0, result.err
    table = yaml.safe_load((tmp_path / "out/classes.yaml").read_text())
    assert table == {
        "classes": [{"name": "background", "id": 0, "color": [0, 0, 0]}, {"name": "car", "id": 1}],
        "size": [6, 10],
        "ignore": [255],
    }
    labels = {path.stem: np.array(Image.open(path)) for path in (tmp_path / "out/labels").rglob("*.png")}
    np.testing.assert_array_equal(labels["0"], paint(LABEL, {".": 0, "c": 1}))
    assert not labels["4"].any()
    assert [len(Folder(tmp_path / "out", split)) for split in ("train", "val")] == [3, 2]
    assert (
        f"images without annotations are kept, all background: 1, the first is {tmp_path}/in/images/4.png" in result.err
    )
    assert "regions are painted smaller ones over larger ones; pixels under none are background" in result.out
    assert f"5 images (3 train, 2 val) → {tmp_path}/out" in result.out
    assert hash_files(tmp_path / "in") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_the_command_that_is_named_can_be_pasted(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_export(tmp_path / "in")
    output = format_override("output", tmp_path / "Straße 1's")
    result = command("import", "from=coco", f"input={tmp_path / 'in'}", output, "val=0.4")
    assert result.code == 0, result.err
    words = shlex.split(result.out.strip().splitlines()[-1].partition("python -m segkd.")[2])
    assert command(*words).code == 0


@pytest.mark.parametrize("transfer", ["copy", "hardlink", "symlink"])
def test_images_are_copied_or_linked(tmp_path: Path, run: Any, transfer: str) -> None:
    write_export(tmp_path / "in")
    assert run(f"images={transfer}").code == 0
    (image,) = (tmp_path / "out/images").rglob("0.png")
    original = tmp_path / "in/images/0.png"
    assert image.read_bytes() == original.read_bytes()
    assert (image.is_symlink(), image.samefile(original)) == (transfer == "symlink", transfer != "copy")


def test_empty_images_can_be_skipped(tmp_path: Path, run: Any) -> None:
    write_export(tmp_path / "in")
    result = run("empty_images=skip")
    assert "4 images (3 train, 1 val)" in result.out
    assert "images without annotations are left out: 1, " in result.err


def test_an_archive_is_read(tmp_path: Path, run: Any) -> None:

    write_export(tmp_path / "in")
    shutil.make_archive(str(tmp_path / "export"), "zip", tmp_path / "in")
    result = run(source="export.zip")
    assert result.code == 0, result.err
    assert f"the first is {tmp_path}/export.zip/images/4.png" in result.err
    refused = run("images=symlink", source="export.zip", output="other")
    assert (refused.code, "images=symlink cannot link into an archive" in refused.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("output={root}/in/out",), "lies in {root}/in, which is only read"),
        (("output={root}/in",), "lies in {root}/in, which is only read"),
        (("output={root}", "overwrite=true"), "holds {root}/in, which is only read"),
        (("output={root}/mine",), "already holds something; give another folder, or overwrite=true to replace it"),
        (
            ("output={root}/mine", "overwrite=true"),
            "is no dataset (it has no classes.yaml), and overwrite=true replaces nothing else",
        ),
        (("input={root}/gone",), "there is no input={root}/gone"),
        (("input={root}/mine",), "holds no JSON file"),
        (("from=coko",), "did you mean from=coco?"),
        (("from=yolo",), "holds no yaml file with names of classes"),
        (("val=1.5",), "1.5"),
        (("classes=[bus]",), "'bus'"),
        (("unlabeled=ignore",), "there is the class car alone"),
        (("image_folder={root}/mine",), "holds no image to import as from=coco; images are missing and left out: 5"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(
    tmp_path: Path, run: Any, arguments: tuple[str, ...], sentence: str
) -> None:
    write_export(tmp_path / "in")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    before = hash_files(tmp_path)
    result = run(*(argument.format(root=tmp_path) for argument in arguments))
    assert (result.code, sentence.format(root=tmp_path) in result.err) == (2, True), result.err
    assert result.err.count("segkd: ") == 1
    assert hash_files(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "mine"]


def test_a_dataset_is_replaced_if_asked_and_stays_if_that_fails(tmp_path: Path, run: Any) -> None:
    write_export(tmp_path / "in")
    assert run().code == 0
    before = hash_files(tmp_path / "out")
    broken = write_export(tmp_path / "broken")
    content = json.loads((broken / "annotations.json").read_text())
    content["annotations"][3]["segmentation"] = {"size": [6, 10], "counts": [59]}
    (broken / "annotations.json").write_text(json.dumps(content))
    result = run("overwrite=true", "workers=1", source="broken")
    assert (result.code, "its runs have 59 pixels" in result.err) == (2, True), result.err
    assert hash_files(tmp_path / "out") == before
    write_export(tmp_path / "more", 10)
    assert run("overwrite=true", source="more").code == 0
    assert len([*(tmp_path / "out/labels").rglob("*.png")]) == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "in", "more", "out"]


def test_a_link_to_a_dataset_stays_a_link(tmp_path: Path, run: Any) -> None:
    write_export(tmp_path / "in")
    assert run(output="disk").code == 0
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    assert run("overwrite=true", "unlabeled=background").code == 0
    assert (tmp_path / "out").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "in", "out"]


def test_a_dataset_beside_the_annotations_is_not_taken_for_images(tmp_path: Path, run: Any) -> None:
    write_export(tmp_path / "in")
    for output in ("in/first", "in/second"):
        result = run(source="in/annotations.json", output=output)
        assert (result.code, "5 images" in result.out) == (0, True), result.err
        assert "for the annotations do not name them" not in result.err


def test_images_stay_in_groups(tmp_path: Path, run: Any) -> None:
    write_export(tmp_path / "in", 30)
    assert run('group="(.)"').code == 0
    splits = [{path.stem[0] for path in (tmp_path / f"out/images/{split}").iterdir()} for split in ("train", "val")]
    assert not splits[0] & splits[1]


def test_damaged_images_and_images_of_another_size_are_left_out(tmp_path: Path, run: Any) -> None:
    write_export(tmp_path / "in", 6)
    (tmp_path / "in/images/0.png").write_bytes((tmp_path / "in/images/0.png").read_bytes()[:60])
    write_image(tmp_path / "in/images/1.png", (12, 20))
    result = run()
    assert "images are damaged and left out: 1, the first is " in result.err
    assert "1.png, 12×20 and annotated as 6×10" in result.err
    assert len([*(tmp_path / "out/labels").rglob("*.png")]) == 4
    for i in range(6):
        (tmp_path / f"in/images/{i}.png").write_bytes(b"")
    result = run(output="other")
    assert (result.code, "no image is left to write: " in result.err) == (2, True)


@pytest.mark.parametrize("annotated", ["stored", "upright"])
def test_labels_lie_on_images_that_exif_data_turn(tmp_path: Path, run: Any, annotated: str) -> None:
    # Stored as 6 × 10, shown as 10 × 6: some tools annotate one, some the other.
    size = {"height": 6, "width": 10} if annotated == "stored" else {"height": 10, "width": 6}
    write_export(tmp_path / "in", 5, **size)
    picture = np.zeros((6, 10, 3), np.uint8)
    picture[1:4, 1:5] = 255  # the car, in stored pixels
    exif = Image.Exif()
    exif[274] = 6  # turn by 90° clockwise to show
    for i in range(5):
        Image.fromarray(picture).save(tmp_path / f"in/images/{i}.png", exif=exif)
    if annotated == "upright":
        content = json.loads((tmp_path / "in/annotations.json").read_text())
        for annotation in content["annotations"]:
            annotation["segmentation"] = [[2, 1, 5, 1, 5, 5, 2, 5]]
        (tmp_path / "in/annotations.json").write_text(json.dumps(content))
    result = run("empty_images=skip", "outlines=edges")
    assert result.code == 0, result.err
    assert ("labels are turned as the EXIF data of their images say: 4" in result.err) == (annotated == "stored")
    sample = Folder(tmp_path / "out", "train")[0]
    assert sample.image.shape == (10, 6, 3)
    np.testing.assert_array_equal(sample.label == 1, sample.image[..., 0] > 0)


def test_a_missing_pycocotools_is_named(tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write_export(tmp_path / "in")
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    result = run()
    assert result.code == 2
    assert "segkd: the package 'pycocotools' is not installed; pip install 'segkd[import]'" in result.err
    assert not (tmp_path / "out").exists()
