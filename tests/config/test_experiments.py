"""Every configs/experiment/*.yaml trains a student, on tiny data in the real layout."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from segkd.config.paths import CONFIGS
from segkd.models.base import Normalization
from segkd.models.pspnet import PSPNet
from segkd.models.student_io import load_student, save_student
from tests.helpers.commands import Command
from tests.helpers.fake_datasets import write_camvid, write_cityscapes

FOLDER = CONFIGS / "experiment"
EXPERIMENTS = sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.rglob("*.yaml"))
# Everything else of an experiment stays as it is.
SMALL_PSPNET = ("student.depth=18", "++student.width=8", "++student.pyramid=16")
SHORT = (
    "trainer=cpu",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=2",
    "trainer.limit_val_batches=1",
    "trainer.progress=false",
    "data.batch_size=2",
    "data.workers=0",
    "wandb.mode=disabled",
)


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("data")
    write_camvid(directory / "camvid")
    write_cityscapes(directory / "cityscapes")
    return {name: directory / name for name in ("camvid", "cityscapes")}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_runs(
    command: Command, roots: dict[str, Path], teacher_file: Path, tmp_path: Path, name: str
) -> None:
    recipe = (FOLDER / f"{name}.yaml").read_text()
    assert f"python -m segkd.train experiment={name}" in recipe.splitlines()[1]
    for parent in re.findall(r"^  - ([\w/]+)$", recipe, flags=re.MULTILINE):
        if parent != "_self_":
            recipe += (FOLDER / f"{parent}.yaml").read_text()
    arguments = [f"experiment={name}", *SHORT, f"output_dir={tmp_path / 'run'}", "check_teacher=off"]
    for dataset, root in roots.items():
        if f"/dataset: {dataset}" in recipe:
            arguments += [f"dataset.root={root}", "data.crop_size=[128,128]"]
    if "unlabeled: '???'" in recipe:
        arguments.append(f"data.unlabeled={roots['cityscapes'] / 'leftImg8bit'}")
    if "/model@student: pspnet" in recipe:
        arguments += SMALL_PSPNET
    if "/model@teacher: pspnet" in recipe:
        arguments.append(f"teacher.checkpoint={write_small_teacher(tmp_path, 11 if 'camvid' in name else 19)}")
    elif "/model@teacher: ensemble" in recipe:
        arguments += [f"teacher.members.m{i}.checkpoint={teacher_file}" for i in range(5)]
    elif "/model@teacher" in recipe and "pretrained:" not in recipe:
        arguments.append(f"teacher.checkpoint={teacher_file}")
    result = command("train", *arguments)
    assert result.code == 0, result.err
    assert load_student(tmp_path / "run").num_classes in (11, 19)


def write_small_teacher(directory: Path, classes: int) -> Path:
    """Write a PSPNet with random weights as a run does, and return its path."""
    torch.manual_seed(0)
    save_student(PSPNet(classes, Normalization((110,) * 3, (55,) * 3), depth=18, width=8, pyramid=16), directory, {})
    return directory / "student.safetensors"


def test_cityscapes_student_learns_from_its_own_teacher(
    command: Command, roots: dict[str, Path], tmp_path: Path
) -> None:
    """The two commands of the README: train a teacher, then distill it."""
    root = f"dataset.root={roots['cityscapes']}"
    small = (*SHORT, root, "data.crop_size=[128,128]", "trainer.log_every=1")
    teacher = command(
        "train", "experiment=teacher_cityscapes", *small, *SMALL_PSPNET, f"output_dir={tmp_path / 'teacher'}"
    )
    assert teacher.code == 0, teacher.err
    checkpoint = f"teacher.checkpoint={tmp_path / 'teacher' / 'student.safetensors'}"
    student = command(
        "train",
        "experiment=espnet_cityscapes",
        *small,
        checkpoint,
        "check_teacher=warn",
        f"output_dir={tmp_path / 'run'}",
    )
    assert student.code == 0, student.err
    assert "pspnet" not in student.err.lower() or "PSPNet (depth=18" in student.err
    columns = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/pixelwise", "train/pairwise", "train/adversarial", "train/discriminator/penalty", "val/miou"} <= set(
        columns
    )
    scored = command("evaluate", f"run={tmp_path / 'run'}", "dataset=cityscapes", root, "split=val", "workers=0")
    assert scored.code == 0, scored.err
    assert scored.out.splitlines()[-1].startswith("mIoU ")


def test_missing_cityscapes_is_refused_with_download_hint(command: Command, tmp_path: Path) -> None:
    result = command(
        "train", "experiment=espnet_cityscapes", f"dataset.root={tmp_path / 'nowhere'}", "wandb.mode=disabled",
        f"output_dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert result.code == 2
    (sentence,) = result.err.strip().splitlines()
    assert f"there is no folder {tmp_path / 'nowhere'} for dataset=cityscapes" in sentence
    assert "csDownload" in sentence
    assert not (tmp_path / "run").exists()


def test_another_network_in_an_experiment_drops_its_arguments(command: Command, tmp_path: Path) -> None:
    """quickstart gives ESPNet-C p and q, which ENet does not have; keys on the command line are never dropped."""
    short = ("experiment=quickstart", *SHORT, "dataset.images=4", "check_teacher=off", f"output_dir={tmp_path / 'run'}")
    ended = command("train", *short, "model@student=enet")
    assert ended.code == 0, ended.err
    refused = command("train", *short, "model@student=enet", "student.p=2")
    assert refused.code == 2
    assert "takes no 'p'" in refused.err
