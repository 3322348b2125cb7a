"""What a training says of its labels before the first step."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from segkd.cli.logs import configure_logging
from segkd.data.folder import Folder
from segkd.errors import UserError
from segkd.train.check_labels import check_labels
from tests.helpers.commands import Command


def write_masks(root: Path, train: tuple[int, ...], val: tuple[int, ...]) -> None:
    """Write a folder of two images with vertical stripes of these ids, and classes of the ids 0, 1 and 2."""
    for split, ids in {"train": train, "val": val}.items():
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True)
        label = np.array(ids, np.uint8).repeat(96 // len(ids))[None].repeat(64, 0)
        for index in range(2):
            cv2.imwrite(str(root / "images" / split / f"{index}.png"), np.dstack([label] * 3))
            cv2.imwrite(str(root / "labels" / split / f"{index}.png"), label)
    (root / "classes.yaml").write_text("classes: [{name: a}, {name: b}, {name: c}]\nsize: [64, 96]\n")


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


DEFAULT = "of the pixels are 255, which is ignored unless classes.yaml says otherwise"


@pytest.mark.parametrize(
    ("train", "val", "lines"),
    [
        ((0, 1, 2), (0, 1, 2), []),
        ((0, 1, 2), (0, 255), []),
        (
            (0, 1, 255, 255),
            (0, 1, 255, 255),
            [f"c (id 2) is in no label of train or val; 50.0 % {DEFAULT}; if that is the class, give it `id: 255`"],
        ),
        (
            (0, 255),
            (0, 0),
            [
                f"b (id 1) and c (id 2) are in no label of train or val; 25.0 % {DEFAULT}; if that is one of these classes, "
                "give it `id: 255`"
            ],
        ),
        ((0, 1), (0, 2), ["c (id 2) is in no label of train, only in those of val; the labels hold the ids 0–1"]),
        (
            (0,),
            (0, 2),
            [
                "b (id 1) is in no label of train or val; the labels hold the ids 0, 2",
                "c (id 2) is in no label of train, only in those of val; the labels hold the id 0",
            ],
        ),
        (
            (0, 1, 2),
            (255,),
            [
                "own val has no labeled pixel, so val mIoU will be undefined; choose another data.val_split to score the student"
            ],
        ),
    ],
)
def test_absent_classes_are_said(
    capsys: pytest.CaptureFixture[str], train: tuple[int, ...], val: tuple[int, ...], lines: list[str]
) -> None:
    configure_logging()
    write_masks(Path("own"), train, val)
    check_labels(Folder("own", "train"), Folder("own", "val"))
    assert capsys.readouterr().err == "".join(f"segkd: {line}\n" for line in lines)


def test_training_split_without_labels_is_refused() -> None:
    write_masks(Path("own"), (255,), (0, 1, 2))
    message = (
        r"none of the 2 labels of own train has a labeled pixel: 100\.0 % of the pixels are 255, .* choose another data"
    )
    with pytest.raises(UserError, match=message):
        check_labels(Folder("own", "train"), Folder("own", "val"))


def test_commands_say_it_before_they_start(command: Command) -> None:
    """A training and an evaluation warn and go on; a training without labels makes no folder."""
    write_masks(Path("own"), (0, 1, 255), (0, 255, 255))
    short = ("data.batch_size=2", "data.workers=0", "trainer=cpu", "trainer.max_epochs=1", "wandb.mode=disabled")
    small = ("dataset=folder", "student.p=1", "student.q=1", "trainer.progress=false")
    result = command("train", *short, *small, "dataset.root=own", "output_dir=run")
    assert result.code == 0, result.err
    assert "segkd: c (id 2) is in no label of train or val; " in result.err
    result = command("evaluate", "run=run", "accelerator=cpu", "workers=0")
    assert result.code == 0, result.err
    assert "segkd: b (id 1) and c (id 2) are in no label of val; 66.7 % of the pixels are 255, " in result.err
    write_masks(Path("void"), (255,), (0, 1))
    result = command("train", *short, *small, "dataset.root=void", "output_dir=void_run")
    assert result.code == 2
    assert "none of the 2 labels of void train has a labeled pixel" in result.err
    assert not Path("void_run").exists()
