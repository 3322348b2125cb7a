"""`python -m segkd.stats`, and class weights in a training."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from segkd.builders.datasets import open_dataset
from segkd.builders.distiller import build_loss
from segkd.config.instantiate import parse_spec
from segkd.data.statistics import compute_class_weights, count_classes
from segkd.data.streets import Streets
from segkd.losses.cross_entropy import CrossEntropy
from tests.helpers.commands import Command
from tests.helpers.fake_datasets import write_camvid, write_folder

SHORT = (
    "trainer=cpu",
    "trainer.max_epochs=1",
    "trainer.progress=false",
    "data.workers=0",
    "data.batch_size=2",
    "wandb.mode=disabled",
)
SMALL = ("trainer.limit_val_batches=1", "dataset.images=4", "student.p=1", "student.q=1", "data.crop_size=[64,64]")


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def test_printed_statistics_extend_classes_yaml(command: Command) -> None:
    write_folder(Path("own"))
    result = command("stats", "dataset=folder", "dataset.root=own", "output_dir=report")
    assert result.code == 0
    report = json.loads(Path("report/stats.json").read_text())
    assert report["classes"] == ["soil", "crop", "weed", "void"]
    assert report["shares"] == [0.25] * 4
    assert report["weights"]["median_frequency"] == [1, 1, 1]
    lines = result.out.splitlines(keepends=True)[-2:]
    with Path("own/classes.yaml").open("a") as file:
        file.writelines(lines)
    dataset = open_dataset(parse_spec({"_target_": "segkd.data.folder.Folder", "root": "own"}), "train")
    np.testing.assert_allclose((*dataset.mean, *dataset.std), (*report["mean"], *report["std"]), atol=5.1e-4)


def test_classes_without_pixels_are_named(command: Command) -> None:
    """A split without any labeled pixel has a table too, without weights."""
    write_folder(Path("own"))
    for path in Path("own/labels/train").rglob("*.png"):
        label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where(label == 30, 20, label))
    for path in Path("own/labels/val").rglob("*.png"):
        cv2.imwrite(str(path), np.full((40, 60), 255, np.uint8))
    result = command("stats", "dataset=folder", "dataset.root=own")
    assert result.code == 0
    ignored = "of the pixels are 255, which classes.yaml ignores; if that is"
    assert f"\nweed (id 30) is in no label of train; 25.0 % {ignored} the class" in result.out
    result = command("stats", "dataset=folder", "dataset.root=own", "split=val")
    assert result.code == 0
    names = "soil (id 10), crop (id 20) and weed (id 30)"
    assert f"\n{names} are in no label of val; 100.0 % {ignored} one of these classes" in result.out


def test_loss_gets_class_weights_from_the_training_labels() -> None:
    def build(dataset: Streets, **arguments: object) -> CrossEntropy:
        node = {"_target_": "segkd.losses.cross_entropy.CrossEntropy", "class_weights": "enet", **arguments}
        return build_loss(parse_spec(node), dataset)

    train = Streets("train", 4)
    weights = build(train).class_weights
    torch.testing.assert_close(weights, torch.tensor(compute_class_weights("enet", count_classes(train))))
    assert not torch.equal(weights, build(Streets("test", 4)).class_weights)
    assert len(build(train, void="class").class_weights) == len(train.classes) + 1
    assert build(train, class_weights=None).class_weights is None


@pytest.mark.parametrize("void", ["ignored", "class"])
def test_class_weights_change_the_training(command: Command, void: str) -> None:
    rules = ("null", "median_frequency") if void == "ignored" else ("enet",)
    metrics = []
    for rule in rules:
        overrides = (
            f"loss.cross_entropy.class_weights={rule}",
            f"loss.cross_entropy.void={void}",
            f"output_dir=run_{rule}",
        )
        result = command("train", *SHORT, *SMALL, *overrides)
        assert result.code == 0, result.err
        metrics.append(Path(f"run_{rule}", "metrics.csv").read_text())
    assert len(set(metrics)) == len(rules)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "loss.cross_entropy.class_weights=inverse"), "class_weights"),
        (("train", "loss.cross_entropy.class_weights=[1,2]"), "there are 2 class_weights for a student of 11 outputs"),
        (("train", "loss.cross_entropy.class_weights=[-1,2]"), "class_weights must be 0 or more"),
        (("stats", "dataset=camvid"), "dataset=camvid needs dataset.root=DIR"),
        (("stats", "dataset=camvid", "dataset.root=camvid", "split=dev"), "CamVid has no split 'dev'"),
        (
            ("stats", "dataset=camvid", "dataset.root=camvid", "output_dir=camvid/train/0001TP_000000.png"),
            "cannot make the folder",
        ),
    ],
)
def test_mistakes_exit_with_code_2(command: Command, arguments: tuple[str, ...], message: str) -> None:
    write_camvid(Path("camvid"), size=(8, 12))
    name, *overrides = arguments
    result = command(name, *overrides, *((*SHORT, *SMALL) if name == "train" else ()))
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert len(result.err.splitlines()) == 1
