"""`python -m segkd.pack`: what it packs trains bit for bit as the files do, and is refused where it no longer is the files."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from segkd.data.camvid import CamVid
from segkd.data.packed import Packed
from segkd.data.voc import VOC
from segkd.errors import UserError
from tests.helpers.commands import Command, Result
from tests.helpers.fake_datasets import write_camvid, write_voc

TINY = (
    "trainer=cpu", "trainer.max_epochs=2", "trainer.progress=false", "data.workers=0", "data.batch_size=2", "wandb.mode=disabled",
    "student.p=1", "student.q=1", "data.crop_size=[64,64]", "data.jitter.hue=0.1",
)  # fmt: skip


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_camvid(Path("camvid"), size=(72, 96))
    return tmp_path


def packed(command: Command, *typed: str) -> Result:
    return command("pack", "dataset.root=camvid", "output_dir=pack", *typed)


def trained(command: Command, name: str, *typed: str) -> bytes:
    result = command("train", *TINY, *typed, f"output_dir={name}")
    assert result.code == 0, result.err
    return Path(name, "student.safetensors").read_bytes()


def test_it_trains_as_the_files_do(command: Command) -> None:
    assert packed(command).code == 0
    files = trained(command, "files", "dataset=camvid", "dataset.root=camvid")
    assert trained(command, "packed", "dataset=packed", "dataset.root=pack") == files
    assert Path("packed/student.yaml").read_text() == Path("files/student.yaml").read_text()
    assert Path("packed/metrics.csv").read_text() == Path("files/metrics.csv").read_text()
    assert yaml.safe_load(Path("packed/student.yaml").read_text())["dataset"] == "CamVid"
    shutil.rmtree("pack")
    image = CamVid("camvid", "train").files[0][0]
    cv2.imwrite(str(image), 255 - cv2.imread(str(image)))  # the control
    assert packed(command).code == 0
    assert trained(command, "changed", "dataset=packed", "dataset.root=pack") != files


def test_samples_of_several_sizes(command: Command) -> None:
    """And a split that is two in one, and labels of one pixel."""
    write_voc(Path("voc"))
    cv2.imwrite("voc/JPEGImages/2007_000000.jpg", np.full((1, 1, 3), 90, np.uint8))
    cv2.imwrite("voc/SegmentationClass/2007_000000.png", np.full((1, 1), 5, np.uint8))
    assert command("pack", "dataset=voc", "dataset.root=voc", "output_dir=pack").code == 0
    assert Packed("pack", "train").splits == ("train", "val", "trainval")
    for split in VOC.splits:
        files, pack = VOC("voc", split), Packed("pack", split)
        assert [pack.name(i) for i in range(len(pack))] == [files.name(i) for i in range(len(files))]
        for i in range(len(files)):
            for ours, theirs in zip(pack[i], files[i], strict=True):
                assert ours.shape == theirs.shape
                assert (ours == theirs).all()
    facts = ("classes", "colors", "ids", "mean", "std", "size")
    assert [getattr(pack, name) for name in facts] == [getattr(files, name) for name in facts]


def another_pixel(image: Path, _: Path) -> None:
    state = image.stat()
    image.write_bytes(image.read_bytes()[:-1] + b"\0")
    os.utime(image, ns=(state.st_atime_ns, state.st_mtime_ns + 1))


CHANGES: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "image of the same size": (another_pixel, "IMAGE has changed"),
    "longer label": (lambda _, label: label.write_bytes(label.read_bytes() + b"\0"), "LABEL has changed"),
    "lost image": (lambda image, _: image.unlink(), "IMAGE is gone"),
    "new image": (
        lambda image, _: shutil.copy(image, image.with_name("new.png")),
        "camvid/train held 4 images and holds 5",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_stale_pack_is_refused(command: Command, name: str) -> None:
    packed(command)
    image, label = CamVid("camvid", "train").files[2]
    os.utime(image)  # touched, but the same
    assert len(Packed("pack", "train")) == 4
    change, said = CHANGES[name]
    change(image, label)
    with pytest.raises(UserError, match=said.replace("IMAGE", str(image)).replace("LABEL", str(label))) as told:
        Packed("pack", "train")
    assert "the pack pack is stale" in str(told.value)
    assert len(Packed("pack", "val")) == 2  # the other split is as it was
    shutil.rmtree("camvid")
    assert len(Packed("pack", "train")) == 4  # moved to a machine without the files


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda: Path("pack/train.bin").write_bytes(b"abc"), "train.bin has 3 bytes instead of"),
        (lambda: Path("pack/train.bin").unlink(), "train.bin has 0 bytes instead of"),
        (lambda: Path("pack/pack.json").write_text("{"), "pack.json is damaged or of another version"),
        (lambda: Path("pack/pack.json").write_text('{"format": 99}'), "pack.json is damaged or of another version"),
        (lambda: Path("pack/pack.json").write_text('{"format": 1}'), "pack.json is damaged or of another version"),
        (lambda: Path("pack/pack.json").unlink(), "there is no pack at pack"),
    ],
)
def test_a_damaged_pack_is_refused(command: Command, damage: Callable[[], object], said: str) -> None:
    packed(command)
    damage()
    result = command("evaluate", "dataset=packed", "dataset.root=pack", "split=train", "model=espnet_c", "checkpoint=x")
    assert result.code == 2
    assert said in result.err


def test_nothing_is_left_of_a_pack_that_failed(command: Command, monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = sorted(place.iterdir())
    with monkeypatch.context() as full:
        full.setattr(Path, "write_text", no_room)  # of the index, after the pixels
        result = packed(command)
    assert (result.code, sorted(place.iterdir())) == (2, before)
    assert "cannot write pack (No space left on device)" in result.err
    label = CamVid("camvid", "val").files[1][1]
    label.write_bytes(label.read_bytes()[:40])
    result = packed(command)
    assert (result.code, sorted(place.iterdir())) == (2, before)
    assert f"{label} is no whole image" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("output_dir=null",), "say where the pack goes: output_dir=DIR"),
        (("output_dir=camvid",), "camvid already holds something"),
        (("output_dir=camvid/train/0001TP_000000.png/pack",), "cannot make the folder"),
        (("splits=[dev]",), "CamVid has no split 'dev'"),
        (("dataset=packed", "dataset.root=null"), "Packed has no image and label files"),
        (("dataset.root=nowhere",), "no CamVid at nowhere"),
    ],
)
def test_mistakes(command: Command, typed: tuple[str, ...], said: str) -> None:
    result = packed(command, *typed)
    assert (result.code, result.out) == (2, "")
    assert said in result.err
