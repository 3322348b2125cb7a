"""`python -m segkd.export`: its files, the check of their mIoU, and its errors."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
import yaml
from PIL import Image

from segkd.config.paths import PRETRAINED
from segkd.data.camvid import CamVid
from segkd.data.streets import Streets
from segkd.export import main as export_main
from segkd.export.formats import FORMATS, write_onnx
from segkd.export.graph import Graph
from segkd.models.base import Normalization
from segkd.models.espnet import ESPNetC
from segkd.models.student_io import load_student, save_student
from segkd.utils.files import sha256
from tests.helpers.commands import Command
from tests.helpers.fake_datasets import write_camvid, write_cityscapes

CAMVID = ("dataset=camvid", "dataset.root=camvid", "workers=0", "split=test")
TEACHER = f"run={PRETRAINED / 'streets_teacher'}"


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with CamVid of odd sizes and a student of 11 classes in `run`."""
    monkeypatch.chdir(tmp_path)
    write_camvid(Path("camvid"), size=(73, 99))
    Path("run").mkdir()
    save_student(ESPNetC(11, Normalization((110,) * 3, (55,) * 3), p=1, q=1), Path("run"), {"dataset": "CamVid"})
    return tmp_path


def test_export_of_a_run_writes_file_metadata_and_model_card(command: Command) -> None:
    code, out, err = command("export", "run=run", "include_normalization=false", *CAMVID)
    assert code == 0, err
    assert {path.name for path in Path("run").iterdir()} == {
        "student.safetensors", "student.yaml", "student.onnx", "student.onnx.json", "student.onnx.md"
    }  # fmt: skip
    metadata = json.loads(Path("run/student.onnx.json").read_text())
    assert metadata["sha256"] == {"student.onnx": sha256(Path("run/student.onnx"))}
    assert metadata["normalization"] == {"inside": False, "mean": [110.0] * 3, "std": [55.0] * 3, "bgr": False}
    scores = metadata["scores"]
    assert (scores["dataset"], scores["split"], scores["images"]) == ("CamVid", "test", 2)
    assert scores["miou"] == pytest.approx(scores["miou_before"], abs=1e-3)
    assert (metadata["size"], scores["resized"]) == (None, 0)
    miou = f"{100 * scores['miou']:.2f}, the network {100 * scores['miou_before']:.2f}"
    assert out.splitlines()[-1] == f"run/student.onnx mIoU {miou}"
    card = Path("run/student.onnx.md").read_text()
    for text in (
        "mean 110.000",
        "normalized by the caller",
        "| 10 bicyclist |",
        f"**{100 * scores['miou']:.2f}**",
        "Not known",
    ):
        assert text in card


def test_export_of_a_checkpoint_also_writes_a_student(command: Command) -> None:
    torch.save(load_student("run").state_dict(), "weights.pth")
    overrides = (
        "model=espnet_c",
        "model.p=1",
        "model.q=1",
        "checkpoint=weights.pth",
        "format=openvino",
        "output_dir=new",
    )
    code, _, err = command("export", *overrides, *CAMVID)
    assert code == 0, err
    assert {"student.xml", "student.bin", "student.xml.md"} <= {path.name for path in Path("new").iterdir()}
    assert load_student("new").arguments == {"p": 1, "q": 1, "width": 1}
    assert "RGB in 0..255; the file normalizes" in Path("new/student.xml.md").read_text()


def write_damaged_onnx(graph: Graph, path: Path, images: object = ()) -> None:
    """Write the graph with two classes of its logits exchanged."""
    write_onnx(graph, path)
    model = onnx.load(path)
    (weight,) = (w for w in model.graph.initializer if w.name.endswith("up1.weight"))
    values = onnx.numpy_helper.to_array(weight).copy()
    values[:, [3, 8]] = values[:, [8, 3]]
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)


def test_file_that_lost_too_much_miou_is_not_kept(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Road and car are exchanged; in int8, whose logits are not compared with the network's, so that only the mIoU shows it."""
    overrides = (TEACHER, "dataset=streets", "format=int8", "output_dir=new", "workers=0")
    monkeypatch.setattr(Streets, "__len__", lambda self: 8)
    monkeypatch.setitem(FORMATS, "int8", FORMATS["int8"]._replace(write=write_damaged_onnx))
    code, out, err = command("export", *overrides)
    assert (code, out) == (1, "")
    (error,) = (line for line in err.splitlines() if line.startswith("segkd: "))
    assert "student.int8.onnx lost " in error
    assert "0.1 are allowed; it was not kept" in error
    assert list(Path("new").iterdir()) == []
    monkeypatch.setitem(FORMATS, "int8", FORMATS["int8"]._replace(write=write_onnx))
    code, _, err = command("export", *overrides)
    assert code == 0, err
    assert Path("new/student.int8.onnx").is_file()


def test_model_card_of_a_distilled_student_has_its_recipe(command: Command) -> None:
    """Also if the weight of a loss is its default."""
    config = {
        "seed": 3,
        "loss": {"cross_entropy": {"weight": 1.0}, "pixelwise": {"weight": None}},
        "teacher": {"checkpoint": "t.pth"},
    }
    Path("run/config.yaml").write_text(yaml.safe_dump(config))
    arguments = ["data.crop_size=[128,128]", "loss=[cross_entropy,pixelwise]", "name=a b"]
    Path("run/environment.json").write_text(json.dumps({"command": ["python", "-m", "segkd.train", *arguments]}))
    assert command("export", "run=run", "format=torchscript", *CAMVID).code == 0
    card = Path("run/student.torchscript.md").read_text()
    assert "cross_entropy 1, pixelwise default" in card
    assert "t.pth" in card
    command_line = "python -m segkd.train 'data.crop_size=[128,128]' 'loss=[cross_entropy,pixelwise]' 'name=a b'"
    assert f"- command: `{command_line}`\n" in card
    assert json.loads(Path("run/student.torchscript.json").read_text())["recipe"]["command"] == command_line


USES: dict[str, tuple[str, ...]] = {
    "onnx": ("format=onnx",),
    "normalized by the caller": ("format=onnx", "include_normalization=false"),
    "openvino": ("format=openvino",),
    "torchscript": ("format=torchscript", "include_normalization=false"),
    "one size": ("format=onnx", "size=[73,99]"),
}


@pytest.mark.parametrize("name", USES)
def test_lines_of_the_model_card_predict_as_segkd_does(
    name: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image is turned by its EXIF orientation; the network takes BGR."""
    torch.manual_seed(0)
    student = ESPNetC(11, Normalization((110, 90, 70), (55, 45.5, 60), bgr=True), p=1, q=1)
    metadata = {"classes": list(CamVid.classes), "colors": [[i, i, i] for i in range(11)], "dataset": "CamVid"}
    save_student(student, Path("run"), metadata)
    assert command("export", "run=run", *USES[name], *CAMVID).code == 0
    noise = np.random.default_rng(0).integers(0, 256, (99, 73, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn: 73 high, 99 wide
    Image.fromarray(noise).save("run/image.png", exif=exif)
    arguments = ("run=run", "input=run/image.png", "output=labels.png", "outputs=[class_ids]", "legend=false")
    code, _, err = command("predict", *arguments)
    assert code == 0, err
    (card,) = Path("run").glob("*.md")
    (lines,) = re.findall(r"```python\n(.*?)```", card.read_text(), re.DOTALL)
    monkeypatch.chdir("run")
    exec(lines, {})
    labels = np.asarray(Image.open("labels.png"))
    assert labels.shape == (73, 99)
    assert (labels == np.asarray(Image.open("../labels.png"))).mean() > 0.999  # ties
    assert len(np.unique(labels)) > 3


def test_images_are_resized_for_the_scores_of_a_file_of_one_size(command: Command) -> None:
    """All of them where none has the size, which is said; both scores are of the resized images."""
    code, _, err = command("export", "run=run", "size=[64,96]", *CAMVID)
    assert code == 0, err
    assert "2 of 2 images of CamVid test are resized to 64×96, the size of the file, for the scores" in err
    metadata = json.loads(Path("run/student.onnx.json").read_text())
    assert metadata["size"] == [64, 96]
    assert metadata["scores"]["resized"] == 2
    assert metadata["scores"]["miou"] == pytest.approx(metadata["scores"]["miou_before"], abs=1e-3)
    card = Path("run/student.onnx.md").read_text()
    assert "batch × 3 × 64 × 96, and no other size" in card
    assert "2 whole images, 2 of them resized to 64 × 96, void ignored" in card
    assert "image.resize((96, 64), Image.Resampling.BILINEAR)" in card
    code, _, err = command("export", "run=run", "size=[73,99]", "format=int8", *CAMVID)
    assert code == 0, err
    assert "resized" not in err


def raise_disk_full(*_: object) -> str:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_full_disk_changes_no_file(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("new").mkdir()
    Path("new/student.torchscript").write_text("earlier")
    monkeypatch.setattr(export_main, "format_model_card", raise_disk_full)
    code, out, err = command("export", "run=run", "format=torchscript", "output_dir=new", *CAMVID)
    assert (code, out) == (2, "")
    assert "cannot write to new (No space left on device); give another output_dir" in err
    assert [(path.name, path.read_text()) for path in Path("new").iterdir()] == [("student.torchscript", "earlier")]


def test_split_without_labels_is_refused(command: Command) -> None:
    for path in Path("camvid/testannot").iterdir():
        cv2.imwrite(str(path), np.full((73, 99), 11, np.uint8))
    code, _, err = command("export", "run=run", *CAMVID)
    assert code == 2
    assert "CamVid test has no labeled pixel to score" in err
    assert not Path("run/student.onnx").exists()


MISTAKES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "nothing": (CAMVID, ("give run=DIR, or model=NAME and checkpoint=FILE",)),
    "unfinished": ((*CAMVID, "run=unfinished"), ("no student in unfinished", "folder of a finished run")),
    "other classes": (
        ("run=run", "dataset=cityscapes", "dataset.root=cityscapes"),
        ("has 11 classes, Cityscapes has 19", "the dataset it was trained on"),
    ),
    "no data set": (("run=run",), ("was trained on CamVid, and nothing says where it is; give dataset=NAME",)),
    "no data set and no run": (
        ("model=espnet_c", "checkpoint=a.pth"),
        ("no dataset given; choose one with dataset=NAME",),
    ),
    "no such run": (("run=runs/typo",), ("no student in runs/typo",)),
    "format": ((*CAMVID, "run=run", "format=tflite"), ("format", "onnx, openvino", "tflite")),
    "no folder": ((*CAMVID, "run=run", "output_dir=file/a"), ("cannot write to file/a (Not a directory)",)),
    "small": ((*CAMVID, "run=run", "size=[16,96]"), ("size=[16,96] is too small for ESPNetC", "give a larger size")),
    "negative": ((*CAMVID, "run=run", "max_miou_drop=-1"), ("max_miou_drop", "greater than or equal to 0")),
    "calibration": (
        (*CAMVID, "run=run", "format=int8", "calibration.split=trian"),
        ("CamVid has no split 'trian'",),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_reported_in_one_sentence(command: Command, name: str) -> None:
    write_cityscapes(Path("cityscapes"), train=1, val=1)
    Path("unfinished").mkdir()
    Path("file").touch()
    before = sorted(Path().rglob("*"))
    overrides, messages = MISTAKES[name]
    code, out, err = command("export", *overrides)
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert "Traceback" not in err
    for message in messages:
        assert message in err
    assert sorted(Path().rglob("*")) == before
