"""One epoch of distillation on CamVid, with the authors' best ESPNet as the teacher."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml

from segkd.builders.datamodule import build_datamodule
from segkd.builders.distiller import build_distiller
from segkd.config.training import TrainSettings
from segkd.models.espnet import ESPNet
from segkd.models.frozen import Frozen
from segkd.models.student_io import load_student
from tests.helpers.commands import Command, in_own_process

pytestmark = pytest.mark.published

TEACHER = "weights/skd-authors/camvid/espnet_kd_sd_unlabelled_65.1.pth"


@pytest.fixture(scope="module")
def run(published_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("camvid")
    root, teacher = published_files / "data/camvid", published_files / TEACHER
    result = in_own_process(
        "train", "experiment=espnet_c_camvid", f"dataset.root={root}", f"teacher.checkpoint={teacher}",
        "trainer=cpu", "trainer.max_epochs=1", "trainer.progress=false", "wandb.mode=disabled", "output_dir=run",
        cwd=folder, threads=2, timeout=840,
    )  # fmt: skip
    assert result.code == 0, result.err
    return folder / "run"


@pytest.fixture(scope="module")
def curves(run: Path) -> dict[str, list[float]]:
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["train/total"]]
    return {name: [float(row[name]) for row in rows] for name in rows[0] if name.startswith("train/")}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["cross_entropy", "pixelwise", "pairwise"])
def test_each_loss_decreases(curves: dict[str, list[float]], name: str) -> None:
    values = curves[f"train/{name}"]
    fifth = len(values) // 5
    assert len(values) == 45
    assert sum(values[-fifth:]) < sum(values[:fifth])


def test_discriminator_is_trained(run: Path, curves: dict[str, list[float]]) -> None:
    for name in (
        "discriminator/teacher",
        "discriminator/student",
        "discriminator/penalty",
        "discriminator",
        "adversarial",
    ):
        assert torch.tensor(curves[f"train/{name}"]).isfinite().all()
    settings = TrainSettings.model_validate(yaml.safe_load((run / "config.yaml").read_text()))
    untrained = build_distiller(settings, build_datamodule(settings))
    trained = torch.load(run / "last.ckpt", weights_only=True)["state_dict"]
    discriminator = {
        key: value for key, value in untrained.state_dict().items() if key.startswith("adversary.") and "weight" in key
    }
    assert discriminator
    assert not any(torch.equal(value, trained[key]) for key, value in discriminator.items() if value.ndim > 1)


def test_teacher_is_unchanged(run: Path, published_files: Path) -> None:
    from segkd.data.camvid import CamVid
    from segkd.models.base import Normalization
    from segkd.models.pretrained import load_network

    teacher, _ = load_network(ESPNet, {}, published_files / TEACHER, 11, Normalization(CamVid.mean, CamVid.std))
    assert json.loads((run / "summary.json").read_text())["teacher_sha256"] == Frozen(teacher).state_hash()


def test_student_is_evaluated(command: Command, run: Path, published_files: Path) -> None:
    assert load_student(run).num_classes == 11
    root = published_files / "data/camvid"
    result = command("evaluate", f"run={run}", "dataset=camvid", f"dataset.root={root}", "split=val")
    assert result.code == 0, result.err
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["images"] == 101
    assert evaluation["miou"] == pytest.approx(json.loads((run / "summary.json").read_text())["val_miou"], abs=1e-6)
    assert evaluation["miou"] > 0.1
