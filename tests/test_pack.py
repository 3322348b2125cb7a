"""`python -m segkd.pack`: training on a pack is bit-identical, and stale or damaged packs are refused."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from segkd.data.camvid import CamVid
from segkd.data.packed import Packed, write_pack
from segkd.data.voc import VOC
from segkd.errors import UserError
from tests.helpers.commands import Command, Result
from tests.helpers.fake_datasets import write_camvid, write_voc

TINY = (
    "trainer=cpu", "trainer.max_epochs=2", "trainer.progress=false", "data.workers=0", "data.batch_size=2", "wandb.mode=disabled",
    "student.p=1", "student.q=1", "data.crop_size=[64,64]", "data.jitter.hue=0.1",
)  # fmt: skip


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a small CamVid."""
    monkeypatch.chdir(tmp_path)
    write_camvid(Path("camvid"), size=(72, 96))
    return tmp_path


def run_pack(command: Command, *overrides: str) -> Result:
    return command("pack", "dataset.root=camvid", "output_dir=pack", *overrides)


def make_pack() -> None:
    write_pack(Path("pack"), [CamVid("camvid", split) for split in ("train", "val", "test")], 1)


def train(command: Command, name: str, *overrides: str) -> bytes:
    """Train and return the student's file."""
    result = command("train", *TINY, *overrides, "name=camvid", f"output_dir={name}")
    assert result.code == 0, result.err
    return Path(name, "student.safetensors").read_bytes()


def test_training_on_a_pack_is_bit_identical(command: Command) -> None:
    assert run_pack(command).code == 0
    files = train(command, "files", "dataset=camvid", "dataset.root=camvid")
    assert train(command, "packed", "dataset=packed", "dataset.root=pack") == files
    packed, original = (yaml.safe_load(Path(run, "student.yaml").read_text()) for run in ("packed", "files"))
    for description in (packed, original):
        del description["sha256"], description["config_sha256"]  # the configs name different roots
    assert packed == original
    assert Path("packed/metrics.csv").read_text() == Path("files/metrics.csv").read_text()
    assert yaml.safe_load(Path("packed/student.yaml").read_text())["dataset"] == "CamVid"
    shutil.rmtree("pack")
    image = CamVid("camvid", "train").files[0][0]
    cv2.imwrite(str(image), 255 - cv2.imread(str(image)))  # negative control
    assert run_pack(command).code == 0
    assert train(command, "changed", "dataset=packed", "dataset.root=pack") != files


def test_pack_holds_images_of_any_size_and_combined_splits(command: Command) -> None:
    """One image has a single pixel."""
    write_voc(Path("voc"))
    cv2.imwrite("voc/JPEGImages/2007_000000.jpg", np.full((1, 1, 3), 90, np.uint8))
    cv2.imwrite("voc/SegmentationClass/2007_000000.png", np.full((1, 1), 5, np.uint8))
    assert command("pack", "dataset=voc", "dataset.root=voc", "output_dir=pack").code == 0
    assert Packed("pack", "train").splits == ("train", "val", "trainval")
    for split in VOC.splits:
        files, pack = VOC("voc", split), Packed("pack", split)
        assert [pack.get_name(i) for i in range(len(pack))] == [files.get_name(i) for i in range(len(files))]
        for i in range(len(files)):
            for packed, original in zip(pack[i], files[i], strict=True):
                assert packed.shape == original.shape
                assert (packed == original).all()
    attributes = ("classes", "colors", "label_map", "mean", "std", "size")
    assert [getattr(pack, name) for name in attributes] == [getattr(files, name) for name in attributes]


def change_last_byte(image: Path, _: Path) -> None:
    stat = image.stat()
    image.write_bytes(image.read_bytes()[:-1] + b"\0")
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


CHANGES: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "image of the same size": (change_last_byte, "IMAGE has changed"),
    "longer label": (lambda _, label: label.write_bytes(label.read_bytes() + b"\0"), "LABEL has changed"),
    "lost image": (lambda image, _: image.unlink(), "IMAGE is gone"),
    "new image": (
        lambda image, _: shutil.copy(image, image.with_name("new.png")),
        "camvid/train held 4 images and holds 5",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_stale_pack_is_refused(name: str) -> None:
    make_pack()
    image, label = CamVid("camvid", "train").files[2]
    os.utime(image)  # another modification time, same content
    assert len(Packed("pack", "train")) == 4
    change, message = CHANGES[name]
    change(image, label)
    with pytest.raises(UserError, match=message.replace("IMAGE", str(image)).replace("LABEL", str(label))) as error:
        Packed("pack", "train")
    assert "the pack pack is stale" in str(error.value)
    assert len(Packed("pack", "val")) == 2  # this split is unchanged
    shutil.rmtree("camvid")
    assert len(Packed("pack", "train")) == 4  # as on a machine without the files


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda: Path("pack/train.bin").write_bytes(b"abc"), "train.bin has 3 bytes instead of"),
        (lambda: Path("pack/train.bin").unlink(), "train.bin has 0 bytes instead of"),
        (lambda: Path("pack/pack.json").write_text("{"), "pack.json is damaged or of another version"),
        (lambda: Path("pack/pack.json").write_text('{"format": 99}'), "pack.json is damaged or of another version"),
        (lambda: Path("pack/pack.json").write_text('{"format": 1}'), "pack.json is damaged or of another version"),
        (lambda: Path("pack/pack.json").unlink(), "there is no pack at pack"),
    ],
)
def test_damaged_pack_is_refused(damage: Callable[[], object], message: str) -> None:
    make_pack()
    damage()
    with pytest.raises(UserError, match=message):
        Packed("pack", "train")


def test_command_refuses_a_folder_without_a_pack(command: Command) -> None:
    result = command("evaluate", "dataset=packed", "dataset.root=pack", "split=train", "model=espnet_c", "checkpoint=x")
    assert result.code == 2
    assert "there is no pack at pack" in result.err


def test_pack_of_an_earlier_version_opens() -> None:
    """The keys of the index file are a file format."""
    Path("old").mkdir()
    Path("old/train.bin").write_bytes(bytes([10, 20, 30, 0, 40, 50, 60, 1]))
    metadata = {
        "title": "Farm", "classes": ["soil", "crop"], "colors": [[1, 2, 3], [4, 5, 6]], "ids": {"7": 0, "8": 1, "255": 255},
        "mean": [1.0, 2.0, 3.0], "std": [4.0, 5.0, 6.0], "size": [1, 1], "splits": ["train", "all"], "together": {"all": ["train"]},
    }  # fmt: skip
    split = {"samples": [[1, 1, "a"], [1, 1, "b"]], "sources": [["gone.png", 1, 2, "abc"]], "folders": {"images": 2}}
    index = {"format": 1, "source": "/nowhere", "facts": metadata, "parts": {"train": split}}
    Path("old/pack.json").write_text(json.dumps(index))
    pack = Packed("old", "all")
    assert (pack.display_name, pack.classes, pack.label_map) == ("Farm", ("soil", "crop"), {7: 0, 8: 1, 255: 255})
    assert [(pack.get_name(i), pack[i].image.tolist(), pack[i].label.tolist()) for i in range(2)] == [
        ("a", [[[10, 20, 30]]], [[0]]),
        ("b", [[[40, 50, 60]]], [[1]]),
    ]


def test_failed_pack_leaves_nothing(command: Command, monkeypatch: pytest.MonkeyPatch, workspace: Path) -> None:
    def raise_no_space(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = sorted(workspace.iterdir())
    with monkeypatch.context() as full:
        full.setattr(Path, "write_text", raise_no_space)  # when the index is written, after the pixels
        result = run_pack(command)
    assert (result.code, sorted(workspace.iterdir())) == (2, before)
    assert "cannot write pack (No space left on device)" in result.err
    label = CamVid("camvid", "val").files[1][1]
    label.write_bytes(label.read_bytes()[:40])
    result = run_pack(command)
    assert (result.code, sorted(workspace.iterdir())) == (2, before)
    assert f"{label} is not a complete image" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("output_dir=null",), "pack needs a folder to write to: give output_dir=DIR"),
        (("output_dir=camvid",), "camvid already holds something"),
        (("output_dir=camvid/train/0001TP_000000.png/pack",), "cannot make the folder"),
        (("splits=[dev]",), "CamVid has no split 'dev'"),
        (("dataset=packed", "dataset.root=null"), "Packed has no image and label files"),
        (("dataset.root=nowhere",), "there is no folder nowhere for dataset=camvid"),
    ],
)
def test_mistakes_exit_with_code_2(command: Command, overrides: tuple[str, ...], message: str) -> None:
    result = run_pack(command, *overrides)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
