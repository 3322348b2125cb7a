"""`python -m segkd.predict`: what it writes is what the network says, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from segkd.data.camvid import CamVid
from segkd.data.cityscapes import Cityscapes
from segkd.evaluate.loop import compute_confusion_matrix
from segkd.models.base import Normalization
from segkd.models.espnet import ESPNet, ESPNetC
from segkd.models.pretrained import load_network
from segkd.models.student_io import load_student, save_student
from segkd.predict import writers
from segkd.predict.sources import open_source
from segkd.types import IGNORE_INDEX
from tests.helpers.commands import Command
from tests.helpers.fake_datasets import write_camvid

NORMALIZATION = Normalization(CamVid.mean, CamVid.std)


def facts(data: type[CamVid] | type[Cityscapes]) -> dict[str, object]:
    return {"classes": list(data.classes), "colors": [list(color) for color in data.colors], "dataset": data.__name__}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a run on CamVid, one on Cityscapes, and CamVid's images."""
    monkeypatch.chdir(tmp_path)
    for name in ("run", "teacher", "city"):
        Path(name).mkdir()
    save_student(ESPNetC(11, NORMALIZATION, p=1, q=1), Path("run"), facts(CamVid))
    save_student(ESPNet(11, NORMALIZATION, p=1, q=1), Path("teacher"), {})
    save_student(ESPNetC(20, NORMALIZATION, p=1, q=1), Path("city"), facts(Cityscapes))  # 20: with void as a class
    teacher = {"_target_": "segkd.models.espnet.ESPNet", "checkpoint": "teacher/student.safetensors"}
    config = {
        "teacher": teacher,
        "dataset": {"_target_": "segkd.data.camvid.CamVid", "root": "camvid"},
        "data": {"val_split": "val"},
    }
    Path("run/config.yaml").write_text(yaml.safe_dump(config))
    Path("city/config.yaml").write_text(yaml.safe_dump({**config, "teacher": {"_target_": None}}))
    write_camvid(Path("camvid"), train=1, val=1, test=5)
    return tmp_path


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def counted(predicted: Path, data: CamVid) -> torch.Tensor:
    """The confusion matrix of label files."""
    matrix = np.zeros((11, 11), np.int64)
    for i in range(len(data)):
        truth, said = data[i].label, read(predicted / f"{data.get_name(i)}.png")
        known = truth != IGNORE_INDEX
        np.add.at(matrix, (truth[known], said[known]), 1)
    return torch.from_numpy(matrix)


def test_a_folder_holds_labels_that_score_as_the_network_does(command: Command) -> None:
    code, out, err = command("predict", "run=run", "input=camvid/test", "output=new/out", "batch_size=2")
    assert code == 0, err
    assert out.splitlines()[-1].startswith("5 frames, ")
    assert out.splitlines()[-1].endswith(" a second → new/out")
    data, network = CamVid("camvid", "test"), load_student("run")
    matrix = counted(Path("new/out/labels"), data)
    assert torch.equal(matrix, compute_confusion_matrix(network, data))
    assert not torch.equal(matrix, compute_confusion_matrix(network.__class__(11, NORMALIZATION, p=1, q=1), data))
    labels, colors, overlay = (
        read(Path(f"new/out/{view}/{data.get_name(0)}.png")) for view in ("labels", "colors", "overlay")
    )
    assert np.array_equal(colors, np.array(CamVid.colors, np.uint8)[labels])
    mixed = data[0].image + 0.6 * (colors.astype(float) - data[0].image)
    assert np.abs(overlay - mixed).max() <= 0.51
    said = json.loads(Path("new/out/prediction.json").read_text())
    assert (said["frames"], said["skipped"], said["views"]) == (5, [], ["labels", "colors", "overlay"])
    assert said["classes"]["sky"] == [128, 128, 128]
    assert {path.name for path in Path("new/out").iterdir()} == {*said["views"], "prediction.json", "legend.png"}


def test_city_ids_of_a_student_that_knows_void(command: Command) -> None:
    code, _, err = command("predict", "run=city", "input=camvid/test", "output=out", "views=[city_ids,labels]")
    assert code == 0, err
    for path in Path("out/city_ids").iterdir():
        ids, labels = read(path), read(Path("out/labels") / path.name)
        assert labels.max() < 19
        assert np.array_equal(np.vectorize(Cityscapes.label_map.get)(ids), labels)


@pytest.mark.parametrize(("run", "columns"), [("run", 3), ("city", 2)])
def test_a_film_side_by_side_with_the_teacher_if_there_was_one(command: Command, run: str, columns: int) -> None:
    code, _, err = command(
        "predict", f"run={run}", "input=camvid/test", "output=a.mp4", "views=[side_by_side]", "fps=4"
    )
    assert code == 0, err
    film = open_source("a.mp4")
    assert (film.length, film.rate) == (5, 4)
    assert next(iter(film)).image.shape[1] == columns * (160 + 6) + 6


def test_a_film_of_a_film_and_a_picture_of_its_first_frame(command: Command) -> None:
    assert command("predict", "run=run", "input=camvid/test", "output=a.mp4", "legend=false").code == 0
    assert command("predict", "run=run", "input=a.mp4", "output=b.gif", "width=80", "limit=3").code == 0
    with Image.open("b.gif") as gif:
        assert (gif.n_frames, gif.width) == (3, 80)
    assert command("predict", "run=run", "input=a.mp4", "output=c.png", "limit=1", "views=[labels]").code == 0
    assert read(Path("c.png")).shape == next(iter(open_source("a.mp4"))).image.shape[:2]


def test_what_cannot_be_read_is_skipped_counted_and_named(command: Command) -> None:
    damaged = sorted(Path("camvid/test").iterdir())[2]
    damaged.write_bytes(damaged.read_bytes()[:50])
    code, out, _ = command("predict", "run=run", "input=camvid/test", "output=out")
    assert code == 0
    assert "4 frames, " in out
    assert f"1 skipped that cannot be read ({damaged})" in out
    assert json.loads(Path("out/prediction.json").read_text())["skipped"] == [str(damaged)]
    assert len([*Path("out/labels").iterdir()]) == 4


def test_what_exists_is_replaced_if_asked_for(command: Command) -> None:
    Path("out/labels").mkdir(parents=True)
    names = [path.name for path in sorted(Path("camvid/test").iterdir())]
    for name in (names[0], "other.png"):
        (Path("out/labels") / name).write_text("earlier")
    assert command("predict", "run=run", "input=camvid/test", "output=out").code == 2
    assert (Path("out/labels") / names[0]).read_text() == "earlier"
    assert command("predict", "run=run", "input=camvid/test", "output=out", "overwrite=true").code == 0
    assert read(Path("out/labels") / names[0]).shape == (144, 160)
    assert Path("out/labels/other.png").read_text() == "earlier"


MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "nothing": (("input=null",), "say what to predict: run=DIR input="),
    "no run": (("run=nowhere",), "no student in nowhere: student.yaml is missing"),
    "no input": (("input=nowhere",), "input=nowhere is no file or folder"),
    "no image": (("input=empty",), "input=empty holds no image (.png, .jpg, .jpeg)"),
    "no film": (("input=text.mp4",), "text.mp4 is neither an image (.png, .jpg, .jpeg) nor a film that can be read"),
    "nothing that can be read": (("input=half.png", "output=a.png"), "nothing in half.png can be read"),
    "nothing in a folder": (("input=half.png", "output=empty"), "nothing in half.png can be read"),
    "inside": (("output=camvid/test/out",), "output=camvid/test/out lies in input=camvid/test"),
    "itself": (("input=text.mp4", "output=text.mp4", "overwrite=true"), "output=text.mp4 lies in input=text.mp4"),
    "of no kind": (("output=a.avi",), "output=a.avi is of no kind that is written; give a folder, or a file in .mp4, .gif"),
    "exists": (("output=text.mp4",), "text.mp4 exists already; give another output, or overwrite=true"),
    "many into one": (("output=a.png",), "a.png is one picture, and camvid/test may be many"),
    "several views": (("output=a.mp4", "views=[colors,overlay]"), "a.mp4 takes one of the views colors, overlay"),
    "numbers in a film": (("output=a.mp4", "views=[labels]"), "a.mp4 cannot hold labels, which are numbers"),
    "other view": (("views=[color]",), "views.0: input should be 'labels', 'city_ids'"),
    "other classes": (("views=[city_ids]",), "this student knows the classes of CamVid; take labels"),
    "teacher that moved": (("run=moved", "views=[side_by_side]"), "moved/config.yaml names cannot be had: no checkpoint at gone"),
    "teacher that runs code": (("run=evil", "views=[side_by_side]"), "evil/config.yaml describes no teacher that can be built"),
    "no config": (("run=alone", "views=[side_by_side]"), "alone/config.yaml names, and there is no such file"),
    "not to be written": (("output=text.mp4/out",), "cannot make the folder text.mp4/out/labels (Not a directory)"),
    "of a later segkd": (("run=later",), "copy it again from the run; or install segkd 99.1, which saved it"),
}  # fmt: skip


def students() -> None:
    """Runs with a fault each."""
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    student = yaml.safe_load(Path("run/student.yaml").read_text())
    moved = {**config, "teacher": {**config["teacher"], "checkpoint": "gone.safetensors"}}
    evil = {**config, "teacher": {"_target_": "os.system", "checkpoint": "x"}}
    later = {**student, "network": "segkd.models.segnext.SegNext", "segkd": "99.1"}
    for name, (run, described) in {
        "moved": (moved, student), "evil": (evil, student), "alone": (None, student), "later": (config, later),
    }.items():  # fmt: skip
        Path(name).mkdir()
        Path(name, "student.safetensors").write_bytes(Path("run/student.safetensors").read_bytes())
        Path(name, "student.yaml").write_text(yaml.safe_dump(described))
        if run is not None:
            Path(name, "config.yaml").write_text(yaml.safe_dump(run))


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_end_with_a_sentence_and_leave_nothing(command: Command, name: str) -> None:
    students()
    Path("empty").mkdir()
    Path("text.mp4").write_text("no film")
    Path("half.png").write_bytes(next(Path("camvid/test").iterdir()).read_bytes()[:50])
    before = {*Path().rglob("*")}
    typed, said = MISTAKES[name]
    code, out, err = command("predict", "run=run", "input=camvid/test", "output=out", *typed)
    assert code == 2, err
    told = [line for line in err.splitlines() if line.startswith("segkd: ")]
    assert len(told) == 1
    assert said in told[0]
    assert "Traceback" not in err
    assert out == ""
    assert {*Path().rglob("*")} == before


def test_without_pyav_films_are_named_as_an_extra(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    code, _, err = command("predict", "run=run", "input=camvid/test", "output=a.mp4")
    assert code == 2
    assert err.splitlines()[-1] == "segkd: films need PyAV, which is not installed; pip install 'segkd[video]'"
    assert command("predict", "run=run", "input=camvid/test", "output=a.gif").code == 0


def test_a_disk_that_fills_up_leaves_what_is_whole(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Path] = []

    save = writers.Image.Image.save

    def fail_at_last(image: Image.Image, path: Path, *args: object, **kwargs: object) -> None:
        saved.append(path)
        save(image, path, *args, **kwargs)
        if len(saved) == 4:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(writers.Image.Image, "save", fail_at_last)
    code, _, err = command("predict", "run=run", "input=camvid/test", "output=out", "views=[labels]")
    assert code == 2
    assert re.search(r"cannot write out/labels/\S+.png \(No space left on device\); make room there", err)
    left = [path for path in Path("out").rglob("*") if path.is_file()]
    assert len(left) == 3
    assert all(read(path).shape == (144, 160) for path in left)


@pytest.mark.published
def test_label_files_of_the_authors_weights_score_as_published(command: Command, published_files: Path) -> None:
    """60.3 by Liu et al.; 60.35 when the confusion matrix is counted from the files."""
    weights, root = (
        published_files / "weights/skd-authors/camvid/espnet_c_kd_sd_60.3.pth",
        published_files / "data/camvid",
    )
    network, _ = load_network(ESPNetC, {}, weights, 11, NORMALIZATION)
    save_student(network, Path("run"), facts(CamVid))
    code, out, err = command("predict", "run=run", f"input={root / 'test'}", "output=out", "views=[labels]")
    assert code == 0, err
    assert out.startswith("233 frames")
    matrix = counted(Path("out/labels"), CamVid(root, "test")).double()
    hits = matrix.diag()
    assert 100 * (hits / (matrix.sum(0) + matrix.sum(1) - hits)).mean().item() == pytest.approx(60.35, abs=0.005)
