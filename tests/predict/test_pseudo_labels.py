"""A teacher labels images for a student: `predict outputs=[dataset]`, then `train dataset=folder`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from segkd.data.folder import Folder
from segkd.data.streets import Streets
from segkd.models.base import Normalization
from segkd.models.espnet import ESPNetC
from segkd.models.student_io import save_student
from segkd.types import IGNORE_INDEX
from tests.helpers.commands import Command

IDS = {name: 3 * i + 2 for i, name in enumerate(Streets.classes)}
METADATA = {"classes": [*Streets.classes], "dataset": "Streets", "ids": IDS, "ignore_id": 1}
TRAIN = (
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "data.workers=0",
    "data.batch_size=2",
    "wandb.mode=disabled",
)


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with a teacher and ten images, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_teacher("teacher", METADATA)
    Path("photographs/day").mkdir(parents=True)
    for i in range(10):
        Image.fromarray(Streets("test")[i].image).save(f"photographs/day/{i}.jpg", quality=95)


def save_teacher(name: str, metadata: dict[str, object], sharpness: float = 300) -> None:
    Path(name).mkdir()
    torch.manual_seed(0)
    network = ESPNetC(11, Normalization(Streets.mean, Streets.std), p=1, q=1)
    with torch.no_grad():
        network.classifier.weight.mul_(sharpness)  # probabilities of random weights are nearly equal
    save_student(network, Path(name), metadata)


def read_labels(folder: str) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted(Path(folder).rglob("*.png"))])


def test_a_student_is_trained_on_what_its_teacher_labels(command: Command) -> None:
    code, out, err = command(
        "predict", "run=teacher", "input=photographs", "output=pseudo", "outputs=[dataset]", "min_confidence=0.5",
    )  # fmt: skip
    assert code == 0, err
    description = json.loads(Path("pseudo/prediction.json").read_text())
    (fraction,) = description["fraction_below"].values()
    assert 0.01 < fraction < 0.99
    assert f"{100 * fraction:.1f} % of the pixels below 0.5" in out
    assert Path("pseudo/images/day/3.jpg").read_bytes() == Path("photographs/day/3.jpg").read_bytes()
    labels = read_labels("pseudo/labels")
    assert (labels == IGNORE_INDEX).mean() == pytest.approx(fraction)
    dataset = [Folder("pseudo", split) for split in ("train", "val")]
    assert [len(split) for split in dataset] == [9, 1]
    assert (dataset[0].classes, dataset[0].size) == (Streets.classes, Streets.size)
    code, out, err = command(
        "train", "dataset=folder", "dataset.root=pseudo", "output_dir=student", "model@student=espnet_c", *TRAIN
    )
    assert code == 0, err
    assert "val mIoU" in out


def test_a_teacher_that_is_nowhere_sure_is_named(command: Command) -> None:
    save_teacher("beginner", METADATA, sharpness=0)
    arguments = ("input=photographs", "outputs=[class_ids]", "min_confidence=0.5")
    code, out, err = command("predict", "run=beginner", "output=none", *arguments)
    assert (code, "100.0 % of the pixels below 0.5" in out) == (0, True), err
    assert "no class of student has a probability of 0.5 anywhere, so all pixels are left out; give a smaller" in err
    code, _, err = command("predict", "run=teacher", "output=some", *arguments)
    assert (code, "anywhere" in err) == (0, False)


def test_images_of_the_dataset_stay_where_they_are(command: Command) -> None:
    Path("farm").mkdir()
    shutil.move("photographs", "farm/images")
    arguments = (
        "run=teacher",
        "input=farm/images",
        "output=farm",
        "outputs=[dataset]",
        "ids=own",
        "min_confidence=0.5",
    )
    before = {path: path.stat().st_mtime_ns for path in Path("farm/images").rglob("*")}
    assert command("predict", *arguments).code == 0
    assert {path: path.stat().st_mtime_ns for path in Path("farm/images").rglob("*")} == before
    content = yaml.safe_load(Path("farm/classes.yaml").read_text())
    assert {entry["name"]: entry["id"] for entry in content["classes"]} == IDS
    assert (content["ignore"], content["splits"]) == ([1], {"val": 0.1, "seed": 0})
    assert {*np.unique(read_labels("farm/labels"))} <= {1, *IDS.values()}
    assert command("predict", *arguments).code == 2, "labels of an earlier time are not replaced"


def test_folders_of_splits_stay_splits(command: Command) -> None:
    for split in ("train", "val"):
        shutil.copytree("photographs", f"sorted/{split}")
    assert command("predict", "run=teacher", "input=sorted", "output=farm", "outputs=[dataset]").code == 0
    assert Folder("farm", "val").splits == ("train", "val")


def test_frames_without_a_file_are_written(command: Command) -> None:
    code, _, err = command(
        "predict", "run=teacher", "dataset=streets", "split=test", "limit=2", "output=farm", "outputs=[dataset]"
    )
    assert code == 0, err
    (first, _) = sorted(Path("farm/images").rglob("*.png"))
    assert np.array_equal(np.asarray(Image.open(first)), Streets("test")[0].image)


def test_own_ids_of_label_files(command: Command) -> None:
    assert command("predict", "run=teacher", "input=photographs", "output=a", "outputs=[class_ids]").code == 0
    assert (
        command("predict", "run=teacher", "input=photographs", "output=b", "outputs=[class_ids]", "ids=own").code == 0
    )
    assert np.array_equal(3 * read_labels("a/class_ids") + 2, read_labels("b/class_ids"))
    assert json.loads(Path("b/prediction.json").read_text())["ids"] == IDS


def test_own_ids_of_an_earlier_run_are_those_of_its_dataset(command: Command) -> None:
    """Streets' ids are the indices of its classes; its images are made in memory."""
    save_teacher("earlier", {name: METADATA[name] for name in ("classes", "dataset")})
    arguments = ("predict", "run=earlier", "input=photographs", "ids=own", "outputs=[class_ids]")
    code, _, err = command(*arguments, "output=a")
    assert code == 2
    assert "earlier/student.yaml does not hold the ids of its dataset" in err
    assert "nothing says where it is; give dataset=NAME dataset.root=DIR" in err
    assert command(*arguments, "output=a", "dataset=streets").code == 0
    Path("earlier/config.yaml").write_text("dataset: {_target_: segkd.data.streets.Streets}\n")
    assert command(*arguments, "output=b").code == 0
    assert np.array_equal(read_labels("a/class_ids"), read_labels("b/class_ids"))
    assert read_labels("a/class_ids").max() < 11


def test_a_training_writes_the_ids_of_its_dataset(command: Command) -> None:
    code, _, err = command("train", "output_dir=run", "model@student=espnet_c", "trainer.limit_train_batches=1", *TRAIN)
    assert code == 0, err
    metadata = yaml.safe_load(Path("run/student.yaml").read_text())
    assert metadata["ids"] == {name: i for i, name in enumerate(Streets.classes)}
    assert metadata["ignore_id"] == 255


def test_checkpoints_that_name_their_classes_need_no_dataset(command: Command) -> None:
    network = ("model=espnet_c", "model.p=1", "model.q=1", "input=photographs", "outputs=[class_ids]")
    code, _, err = command("predict", *network, "checkpoint=teacher/student.safetensors", "output=a", "ids=own")
    assert code == 0, err
    assert (
        command("predict", "run=teacher", "input=photographs", "output=b", "outputs=[class_ids]", "ids=own").code == 0
    )
    assert np.array_equal(read_labels("a/class_ids"), read_labels("b/class_ids"))
    shutil.copy("teacher/student.safetensors", "weights.safetensors")
    code, _, err = command("predict", *network, "checkpoint=weights.safetensors", "output=c")
    assert code == 2
    assert "nothing names the classes of weights.safetensors; give dataset=NAME dataset.root=DIR" in err
    code, _, err = command("predict", *network, "checkpoint=gone.safetensors", "output=c")
    assert code == 2
    assert "no checkpoint at gone.safetensors" in err
    assert command("predict", *network, "checkpoint=weights.safetensors", "output=c", "dataset=streets").code == 0


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        (("outputs=[dataset]", "output=a.png"), "a.png is a file, and a dataset is a folder"),
        (("outputs=[overlay]", "ids=own"), "ids=own is of class_ids and dataset, not of overlay; leave ids out"),
        (("window=[8,200]",), "window=[8, 200] is less than the "),
        (("min_confidence=90",), "min_confidence"),
        (("overlap=1",), "overlap"),
        (("dataset=streets",), "a dataset is predicted by split=NAME in place of input"),
    ],
)
def test_mistakes(command: Command, arguments: tuple[str, ...], phrase: str) -> None:
    code, out, err = command("predict", "run=teacher", "input=photographs", "output=out", *arguments)
    assert (code, out) == (2, "")
    assert phrase in err
    assert "Traceback" not in err
    assert not Path("out").exists()
