"""`python -m segkd.predict` with several networks side by side, on a split of a dataset."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from segkd.data.cityscapes import Cityscapes
from segkd.data.streets import Streets
from segkd.models.base import Normalization
from segkd.models.espnet import ESPNetC
from segkd.models.student_io import save_student
from segkd.predict.networks import name_paths
from segkd.predict.sources import open_source, require_av
from tests.helpers.commands import Command

METADATA = {"classes": list(Streets.classes), "colors": [list(color) for color in Streets.colors], "dataset": "Streets"}


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with two runs, one with other classes, three that name other data or none, and two checkpoints."""
    monkeypatch.chdir(tmp_path)
    for name, num_classes in {"baseline": 11, "distilled": 11, "city": 19}.items():
        network = ESPNetC(num_classes, Normalization(Streets.mean, Streets.std), p=1, q=1)
        Path(name).mkdir()
        other = {"classes": [*Cityscapes.classes], "colors": [*map(list, Cityscapes.colors)]} if name == "city" else {}
        save_student(network, Path(name), {**METADATA, **other})
        torch.save(network.state_dict(), f"{name}.pth")
        Path(name, "config.yaml").write_text("dataset: {_target_: segkd.data.streets.Streets}\n")
    for name in ("camera", "other", "bare"):
        shutil.copytree("baseline", name)
    Path("camera/config.yaml").write_text("dataset: {_target_: segkd.data.camvid.CamVid, root: camvid}\n")
    Path("other/config.yaml").write_text("dataset: {_target_: segkd.data.streets.Streets, scene_seed: 9}\n")
    Path("distilled/config.yaml").write_text("dataset: {_target_: segkd.data.streets.Streets, scene_seed: 0}\n")
    Path("bare/config.yaml").unlink()


def test_two_runs_on_a_split_as_video(command: Command) -> None:
    code, out, err = command(
        "predict", "run=[bare,distilled]", "split=test", "output=new/streets.mp4", "limit=62", "fps=2"
    )
    assert code == 0, err
    assert out.startswith("62 frames, ")
    assert out.endswith(" per second → new/streets.mp4\n")
    video = open_source("new/streets.mp4")
    frames = [frame.image for frame in video]
    assert (len(frames), video.rate, video.skipped) == (62, 2, [])
    assert frames[0].shape[1] == 3 * (192 + 6) + 6
    image = Streets("test")[61].image.astype(int)
    first_columns = [frame[24 : 24 + 128, 6 : 6 + 192].astype(int) for frame in frames]
    assert abs(first_columns[61] - image).mean() < 8  # compression changes grain more than that
    assert abs(first_columns[60] - image).mean() > 20


def test_two_checkpoints_on_a_sequence_as_gif(command: Command) -> None:
    code, _, err = command(
        "predict", "model=espnet_c", "model.p=1", "model.q=1", "checkpoint=[baseline.pth,distilled.pth]", "dataset=streets",
        "split=test", "sequence=test_0000", "output=new/streets.gif", "width=300", "fps=2",
    )  # fmt: skip
    assert code == 0, err
    with Image.open("new/streets.gif") as gif:
        assert (gif.n_frames, gif.width, gif.info["duration"]) == (10, 300, 500)
    assert Path("new/streets.gif").stat().st_size < 2e6


def test_two_runs_on_images(command: Command) -> None:
    """Take the classes that both runs name, without a dataset."""
    Path("images").mkdir()
    Image.fromarray(Streets("test")[0].image).save("images/a.png")
    assert command("predict", "run=[baseline,distilled]", "input=images", "output=out").code == 0
    with Image.open("out/side_by_side/a.png") as sheet:
        assert sheet.width == 3 * (192 + 6) + 6
    code, _, err = command("predict", "run=[baseline,distilled]", "input=images", "output=new", "outputs=[overlay]")
    assert (code, Path("new").exists()) == (2, False)
    assert "overlay of 2 networks would not be told apart; give outputs=[side_by_side], or one network" in err


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/a"], ["student"]),
        (["runs/a", "runs/b"], ["a", "b"]),
        (["runs/baseline/0", "runs/distilled/0"], ["baseline", "distilled"]),
        (["x", "x/y"], ["x", "y"]),
        (["x", "x"], ["x", "x"]),
    ],
)
def test_networks_are_named_by_what_differs(paths: list[str], names: list[str]) -> None:
    assert name_paths([Path(path) for path in paths]) == names


TWO_CHECKPOINTS = ("run=null", "model=espnet_c", "model.p=1", "model.q=1")
MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "no network": (("run=null",), "say what to predict: run=DIR input="),
    "file as run": (
        ("run=[baseline,city.pth]", "dataset=streets"),
        "city.pth is not the folder of a run; for a file of weights, use model=NAME checkpoint=city.pth",
    ),
    "no checkpoint": (
        (*TWO_CHECKPOINTS, "checkpoint=[nowhere.pth,baseline.pth]", "dataset=streets"),
        "no checkpoint at nowhere.pth",
    ),
    "no dataset": ((*TWO_CHECKPOINTS, "checkpoint=[baseline.pth,city.pth]"), "dataset=NAME dataset.root=DIR"),
    "dataset that moved": (
        ("run=[camera,distilled]",),
        "the data of camera are not at camvid",
    ),
    "different data": (
        ("run=[other,distilled]",),
        "other and distilled were trained on different data; give dataset=NAME dataset.root=DIR",
    ),
    "other classes": (
        ("run=[baseline,city]",),
        "the student in city has 19 classes (road, sidewalk, building, wall, …), Streets has 11",
    ),
    "no such sequence": (
        ("sequence=0001TP",),
        "no image of Streets test has a name that begins with 0001TP; the first is test_00000",
    ),
    "no such split": (("split=night",), "no split 'night'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_give_one_sentence(command: Command, name: str) -> None:
    arguments, phrase = MISTAKES[name]
    code, out, err = command("predict", "run=[baseline,distilled]", "split=test", "output=new/a.mp4", *arguments)
    assert (code, out) == (2, "")
    assert phrase in err
    assert len(err.splitlines()) == 1
    assert not Path("new").exists()


@pytest.mark.published
def test_the_authors_students_on_the_sequence_0001tp(command: Command, published_files: Path) -> None:
    weights = published_files / "weights/skd-authors/camvid"
    arguments = (
        "dataset=camvid", f"dataset.root={published_files / 'data/camvid'}", "split=test", "sequence=0001TP", "fps=8",
        "model=espnet_c", f"checkpoint=[{weights / 'espnet_c_base_56.7.pth'},{weights / 'espnet_c_kd_sd_60.3.pth'}]",
    )  # fmt: skip
    for output in (("output=a.mp4",), ("output=a.gif", "width=600")):
        code, out, err = command("predict", *arguments, *output)
        assert code == 0, err
        assert out.startswith("62 frames, ")
    with require_av().open("a.mp4") as container:
        stream = container.streams.video[0]
        assert (stream.frames, stream.width, stream.codec_context.name) == (62, 3 * (480 + 6) + 6, "h264")
    with Image.open("a.gif") as gif:
        assert (gif.n_frames, gif.width) == (62, 600)
    assert Path("a.gif").stat().st_size <= 2e6
