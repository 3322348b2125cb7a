"""`python -m segkd.predict` with one network: outputs and error messages."""

from __future__ import annotations

import json
import re
import sys
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
from segkd.utils.packages import explain_install
from tests.helpers.commands import Command
from tests.helpers.fake_datasets import write_camvid

NORMALIZATION = Normalization(CamVid.mean, CamVid.std)


def make_metadata(dataset: type[CamVid] | type[Cityscapes]) -> dict[str, object]:
    return {
        "classes": list(dataset.classes),
        "colors": [list(color) for color in dataset.colors],
        "dataset": dataset.__name__,
    }


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a run on CamVid, one on Cityscapes, and CamVid's images."""
    monkeypatch.chdir(tmp_path)
    for name in ("run", "teacher", "city"):
        Path(name).mkdir()
    save_student(ESPNetC(11, NORMALIZATION, p=1, q=1), Path("run"), make_metadata(CamVid))
    save_student(ESPNet(11, NORMALIZATION, p=1, q=1), Path("teacher"), {})
    save_student(ESPNetC(20, NORMALIZATION, p=1, q=1), Path("city"), make_metadata(Cityscapes))  # 20: void is a class
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


def read_image(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def compute_matrix(predicted: Path, dataset: CamVid) -> torch.Tensor:
    """Return the confusion matrix of label files."""
    matrix = np.zeros((11, 11), np.int64)
    for i in range(len(dataset)):
        target, labels = dataset[i].label, read_image(predicted / f"{dataset.get_name(i)}.png")
        valid = target != IGNORE_INDEX
        np.add.at(matrix, (target[valid], labels[valid]), 1)
    return torch.from_numpy(matrix)


def test_label_files_have_the_score_of_the_network(command: Command) -> None:
    code, out, err = command("predict", "run=run", "input=camvid/test", "output=new/out", "batch_size=2")
    assert code == 0, err
    assert out.splitlines()[-1].startswith("5 frames, ")
    assert out.splitlines()[-1].endswith(" per second → new/out")
    dataset, network = CamVid("camvid", "test"), load_student("run")
    matrix = compute_matrix(Path("new/out/class_ids"), dataset)
    assert torch.equal(matrix, compute_confusion_matrix(network, dataset))
    assert not torch.equal(matrix, compute_confusion_matrix(network.__class__(11, NORMALIZATION, p=1, q=1), dataset))
    labels, colors, overlay = (
        read_image(Path(f"new/out/{output}/{dataset.get_name(0)}.png"))
        for output in ("class_ids", "color_masks", "overlay")
    )
    assert np.array_equal(colors, np.array(CamVid.colors, np.uint8)[labels])
    blended = dataset[0].image + 0.6 * (colors.astype(float) - dataset[0].image)
    assert np.abs(overlay - blended).max() <= 0.51
    description = json.loads(Path("new/out/prediction.json").read_text())
    assert (description["frames"], description["skipped"]) == (5, [])
    assert description["outputs"] == ["class_ids", "color_masks", "overlay"]
    assert description["classes"]["sky"] == [128, 128, 128]
    assert {path.name for path in Path("new/out").iterdir()} == {
        *description["outputs"],
        "prediction.json",
        "legend.png",
    }


def test_label_ids_of_a_student_with_void(command: Command) -> None:
    code, _, err = command("predict", "run=city", "input=camvid/test", "output=out", "outputs=[label_ids,class_ids]")
    assert code == 0, err
    for path in Path("out/label_ids").iterdir():
        ids, labels = read_image(path), read_image(Path("out/class_ids") / path.name)
        assert labels.max() < 19
        assert np.array_equal(np.vectorize(Cityscapes.label_map.get)(ids), labels)


@pytest.mark.parametrize(("run", "columns"), [("run", 3), ("city", 2)])
def test_side_by_side_video_has_a_column_for_the_teacher(command: Command, run: str, columns: int) -> None:
    code, _, err = command(
        "predict", f"run={run}", "input=camvid/test", "output=a.mp4", "outputs=[side_by_side]", "fps=4"
    )
    assert code == 0, err
    video = open_source("a.mp4")
    assert (video.length, video.rate) == (5, 4)
    assert next(iter(video)).image.shape[1] == columns * (160 + 6) + 6


def test_video_of_a_video_and_image_of_its_first_frame(command: Command) -> None:
    assert command("predict", "run=run", "input=camvid/test", "output=a.mp4", "legend=false").code == 0
    assert command("predict", "run=run", "input=a.mp4", "output=b.gif", "width=80", "limit=3").code == 0
    with Image.open("b.gif") as gif:
        assert (gif.n_frames, gif.width) == (3, 80)
    assert command("predict", "run=run", "input=a.mp4", "output=c.png", "limit=1", "outputs=[class_ids]").code == 0
    assert read_image(Path("c.png")).shape == next(iter(open_source("a.mp4"))).image.shape[:2]


def test_unreadable_images_are_skipped_counted_and_named(command: Command) -> None:
    damaged = sorted(Path("camvid/test").iterdir())[2]
    damaged.write_bytes(damaged.read_bytes()[:50])
    code, out, _ = command("predict", "run=run", "input=camvid/test", "output=out")
    assert code == 0
    assert "4 frames, " in out
    assert f"1 skipped that cannot be read ({damaged})" in out
    assert json.loads(Path("out/prediction.json").read_text())["skipped"] == [str(damaged)]
    assert len([*Path("out/class_ids").iterdir()]) == 4


def test_overwrite_replaces_files_of_the_same_name(command: Command) -> None:
    Path("out/class_ids").mkdir(parents=True)
    names = [path.name for path in sorted(Path("camvid/test").iterdir())]
    for name in (names[0], "other.png"):
        (Path("out/class_ids") / name).write_text("earlier")
    assert command("predict", "run=run", "input=camvid/test", "output=out").code == 2
    assert (Path("out/class_ids") / names[0]).read_text() == "earlier"
    assert command("predict", "run=run", "input=camvid/test", "output=out", "overwrite=true").code == 0
    assert read_image(Path("out/class_ids") / names[0]).shape == (144, 160)
    assert Path("out/class_ids/other.png").read_text() == "earlier"


MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "nothing": (("input=null",), "say what to predict: run=DIR input="),
    "no run": (("run=nowhere",), "no student in nowhere: student.yaml is missing"),
    "no input": (("input=nowhere",), "input=nowhere is no file or folder"),
    "no image": (("input=empty",), "input=empty contains no image that is read"),
    "no video": (("input=text.mp4",), "text.mp4 is neither an image nor a video that can be read"),
    "unreadable image": (("input=half.png", "output=a.png"), "no frame of half.png can be read"),
    "unreadable image into a folder": (("input=half.png", "output=empty"), "no frame of half.png can be read"),
    "inside the input": (("output=camvid/test/out",), "output=camvid/test/out lies in input=camvid/test"),
    "the input itself": (("input=text.mp4", "output=text.mp4", "overwrite=true"), "output=text.mp4 lies in input=text.mp4"),
    "unknown kind": (("output=a.avi",), "output=a.avi is of an unknown kind; give a folder, or a file ending in .mp4, .gif"),
    "exists": (("output=text.mp4",), "text.mp4 exists already; give another output, or overwrite=true"),
    "many into one": (("output=a.png",), "a.png is one image, and camvid/test may be many"),
    "several outputs": (("output=a.mp4", "outputs=[color_masks,overlay]"), "a.mp4 takes one of the outputs color_masks, overlay"),
    "numbers in a video": (("output=a.mp4", "outputs=[class_ids]"), "a.mp4 cannot hold class_ids, which are numbers"),
    "unknown output": (("outputs=[color]",), "side_by_side, dataset or null; did you mean outputs=[color_masks]?"),
    "old output": (("outputs=[city_ids]",), "outputs.0: 'city_ids' is now 'label_ids'"),
    "other classes": (("outputs=[label_ids]",), "this student has those of CamVid; use class_ids"),
    "teacher that moved": (("run=moved", "outputs=[side_by_side]"), "moved/config.yaml names cannot be loaded: no checkpoint at gone"),
    "teacher that runs code": (("run=evil", "outputs=[side_by_side]"), "evil/config.yaml describes no teacher that can be built"),
    "no config": (("run=bare", "outputs=[side_by_side]"), "bare/config.yaml is missing, which names the teacher"),
    "not to be written": (("output=text.mp4/out",), "cannot make the folder text.mp4/out/class_ids (Not a directory)"),
    "of a later segkd": (("run=later",), "copy it again from the run; or install segkd 99.1, which saved it"),
    "input and split": (("split=test",), "input=camvid/test and split=test are two inputs; leave one out"),
    "sequence of no split": (("sequence=0001TP",), "sequence=0001TP is a part of a split; give split=NAME in place of input"),
    "dataset without a split": (("dataset.root=camvid",), "a dataset is predicted by split=NAME in place of input"),
    "model without weights": (("run=null", "model=espnet_c"), "say which network to use: either run=DIR, or model=NAME and checkpoint"),
    "run and model": (("model=espnet_c", "checkpoint=a.pth"), "say which network to use: either run=DIR, or model=NAME"),
}  # fmt: skip


def write_faulty_runs() -> None:
    """Write runs with one fault each."""
    valid = yaml.safe_load(Path("run/config.yaml").read_text())
    student = yaml.safe_load(Path("run/student.yaml").read_text())
    moved = {**valid, "teacher": {**valid["teacher"], "checkpoint": "gone.safetensors"}}
    evil = {**valid, "teacher": {"_target_": "os.system", "checkpoint": "x"}}
    later = {**student, "network": "segkd.models.segnext.SegNext", "segkd": "99.1"}
    del later["sha256"]
    for name, (config, metadata) in {
        "moved": (moved, student), "evil": (evil, student), "bare": (None, student), "later": (valid, later),
    }.items():  # fmt: skip
        Path(name).mkdir()
        Path(name, "student.safetensors").write_bytes(Path("run/student.safetensors").read_bytes())
        Path(name, "student.yaml").write_text(yaml.safe_dump(metadata))
        if config is not None:
            Path(name, "config.yaml").write_text(yaml.safe_dump(config))


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_give_one_sentence_and_leave_no_files(command: Command, name: str) -> None:
    write_faulty_runs()
    Path("empty").mkdir()
    Path("text.mp4").write_text("no video")
    Path("half.png").write_bytes(next(Path("camvid/test").iterdir()).read_bytes()[:50])
    before = {*Path().rglob("*")}
    arguments, phrase = MISTAKES[name]
    code, out, err = command("predict", "run=run", "input=camvid/test", "output=out", *arguments)
    assert code == 2, err
    messages = [line for line in err.splitlines() if line.startswith("segkd: ")]
    assert len(messages) == 1
    assert phrase in messages[0]
    assert "Traceback" not in err
    assert out == ""
    assert {*Path().rglob("*")} == before


def test_missing_pyav_names_the_extra(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    code, _, err = command("predict", "run=run", "input=camvid/test", "output=a.mp4")
    assert code == 2
    assert err.splitlines()[-1] == f"segkd: videos need PyAV, which is not installed; {explain_install('video')}"
    assert command("predict", "run=run", "input=camvid/test", "output=a.gif").code == 0


def test_full_disk_leaves_complete_files(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Path] = []

    save = writers.Image.Image.save

    def fail_at_last(image: Image.Image, path: Path, *args: object, **kwargs: object) -> None:
        saved.append(path)
        save(image, path, *args, **kwargs)
        if len(saved) == 4:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(writers.Image.Image, "save", fail_at_last)
    code, _, err = command("predict", "run=run", "input=camvid/test", "output=out", "outputs=[class_ids]")
    assert code == 2
    assert re.search(r"cannot write out/class_ids/\S+.png \(No space left on device\); make room there", err)
    files = [path for path in Path("out").rglob("*") if path.is_file()]
    assert len(files) == 3
    assert all(read_image(path).shape == (144, 160) for path in files)


@pytest.mark.published
def test_label_files_of_the_authors_weights_have_the_published_score(command: Command, published_files: Path) -> None:
    """Compute 60.35 from the files; Liu et al. report 60.3."""
    weights, root = (
        published_files / "weights/skd-authors/camvid/espnet_c_kd_sd_60.3.pth",
        published_files / "data/camvid",
    )
    network, _ = load_network(ESPNetC, {}, weights, 11, NORMALIZATION)
    save_student(network, Path("run"), make_metadata(CamVid))
    code, out, err = command("predict", "run=run", f"input={root / 'test'}", "output=out", "outputs=[class_ids]")
    assert code == 0, err
    assert out.startswith("233 frames")
    matrix = compute_matrix(Path("out/class_ids"), CamVid(root, "test")).double()
    hits = matrix.diag()
    assert 100 * (hits / (matrix.sum(0) + matrix.sum(1) - hits)).mean().item() == pytest.approx(60.35, abs=0.005)
