"""The main job on real input: one epoch of CamVid, taught by the authors' best ESPNet."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml

from segkd.build.datamodule import build_datamodule
from segkd.build.distiller import build_distiller
from segkd.config.schema import TrainSettings
from segkd.models.checkpoint_io import load_student
from segkd.models.espnet import ESPNet
from segkd.models.frozen import Frozen
from tests.helpers.commands import in_own_process

pytestmark = pytest.mark.published

TEACHER = "weights/skd-authors/camvid/espnet_kd_sd_unlabelled_65.1.pth"


@pytest.fixture(scope="module")
def run(published_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("real")
    result = in_own_process(
        "train", "experiment=espnet_c_camvid", f"dataset.root={published_files / 'data/camvid'}", f"teacher.checkpoint={published_files / TEACHER}",
        "trainer=cpu", "trainer.max_epochs=1", "trainer.progress=false", "wandb.mode=disabled", "output_dir=run",
        cwd=place, threads=2, timeout=840,
    )  # fmt: skip
    assert result.code == 0, result.err
    return place / "run"


@pytest.fixture(scope="module")
def curves(run: Path) -> dict[str, list[float]]:
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["train/total"]]
    return {name: [float(row[name]) for row in rows] for name in rows[0] if name.startswith("train/")}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["cross_entropy", "pixelwise", "pairwise"])
def test_every_loss_falls(curves: dict[str, list[float]], name: str) -> None:
    values = curves[f"train/{name}"]
    fifth = len(values) // 5
    assert len(values) == 45
    assert sum(values[-fifth:]) < sum(values[:fifth])


def test_the_critic_plays(run: Path, curves: dict[str, list[float]]) -> None:
    for name in (
        "discriminator/teacher",
        "discriminator/student",
        "discriminator/penalty",
        "discriminator",
        "holistic",
    ):
        assert torch.tensor(curves[f"train/{name}"]).isfinite().all()
    settings = TrainSettings.model_validate(yaml.safe_load((run / "config.yaml").read_text()))
    untrained, _ = build_distiller(settings, build_datamodule(settings))
    trained = torch.load(run / "last.ckpt", weights_only=True)["state_dict"]
    critic = {
        key: value for key, value in untrained.state_dict().items() if key.startswith("adversary.") and "weight" in key
    }
    assert critic
    assert not any(torch.equal(value, trained[key]) for key, value in critic.items() if value.ndim > 1)


def test_the_teacher_stood_still(run: Path, published_files: Path) -> None:
    from segkd.data.camvid import CamVid
    from segkd.models.base import Normalization
    from segkd.models.checkpoint_io import load_network

    teacher, _ = load_network(ESPNet, {}, published_files / TEACHER, 11, Normalization(CamVid.mean, CamVid.std))
    assert json.loads((run / "summary.json").read_text())["teacher_sha256"] == Frozen(teacher).state_hash()


def test_the_student_is_scored(run: Path, published_files: Path) -> None:
    assert load_student(run).num_classes == 11
    result = in_own_process(
        "evaluate", f"run={run}", "dataset=camvid", f"dataset.root={published_files / 'data/camvid'}", "split=val",
        cwd=run.parent, threads=2,
    )  # fmt: skip
    assert result.code == 0, result.err
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["images"] == 101
    assert evaluation["miou"] == pytest.approx(json.loads((run / "summary.json").read_text())["val_miou"], abs=1e-6)
    assert evaluation["miou"] > 0.1
