"""Files that version 0.1.0 wrote are read under today's names, and compared with new runs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from segkd.data.streets import Streets
from segkd.models.adapter import Adapter
from segkd.models.base import Normalization
from segkd.runs.compatibility import rename_setting
from segkd.runs.load import load_run_teacher
from segkd.runs.methods import get_method_keys, group_by_method, is_same_recipe
from segkd.runs.run import Run, read_run
from tests.helpers.commands import Command

CONFIG_OF_0_1_0 = """
name: run
seed: 0
output_dir: old
resume: null
preflight: 'off'
dry_run: false
dataset: {_target_: segkd.data.streets.Streets, images: 8, scene_seed: 0}
student: {_target_: segkd.models.espnet.ESPNet, p: 1, q: 1, checkpoint: null, backbone_checkpoint: null}
teacher:
  _target_: segkd.models.adapter.Adapter
  network: torch.nn.Identity
  taps: {scores: head}
  checkpoint: included
loss:
  cross_entropy: {_target_: segkd.losses.cross_entropy.CrossEntropy, weight: 1.0, void: ignored}
  pixelwise: {_target_: segkd.losses.pixelwise.Pixelwise, weight: null, tap: scores, mask_void: false}
  pairwise: {_target_: segkd.losses.pairwise.Pairwise, weight: 10.0, node: 4, tap: encoder}
adversary:
  form: {_target_: segkd.adversary.Wasserstein, penalty: 10.0}
  _target_: segkd.adversary.Adversary
  weight: 0.001
  critic_steps: 1
  order: critic_first
  sees: probabilities
  tap: scores
optimizers: {student: {_target_: torch.optim.Adam, lr: 0.0005}}
schedule: {_target_: segkd.schedules.Poly, power: 0.9}
trainer: {max_epochs: 2, shares_every: null}
data: {batch_size: 4, val_split: val, unlabelled: null, unlabelled_ratio: 1.0}
"""
CONFIG_NOW = """
name: run
seed: 1
output_dir: new
resume: null
check_teacher: stop
dry_run: false
dataset: {_target_: segkd.data.streets.Streets, images: 8, scene_seed: 0}
student: {_target_: segkd.models.espnet.ESPNet, p: 1, q: 1, checkpoint: null, init_from: null}
teacher:
  _target_: segkd.models.adapter.Adapter
  network: torch.nn.Identity
  features: {kd_logits: head}
  checkpoint: pretrained
loss:
  cross_entropy: {_target_: segkd.losses.cross_entropy.CrossEntropy, weight: 1.0, void: ignored}
  pixelwise: {_target_: segkd.losses.pixelwise.Pixelwise, weight: null, feature: kd_logits, mask_void: false}
  pairwise: {_target_: segkd.losses.pairwise.Pairwise, weight: 10.0, node_size: 4, feature: encoder}
adversary:
  gan_loss: {_target_: segkd.distillation.adversary.Wasserstein, gradient_penalty_weight: 10.0}
  _target_: segkd.distillation.adversary.Adversary
  weight: 0.001
  n_critic: 1
  update_first: discriminator
  discriminator_input: probabilities
  feature: kd_logits
optimizers: {student: {_target_: torch.optim.Adam, lr: 0.0005}}
schedule: {_target_: segkd.distillation.schedules.Poly, power: 0.9}
trainer: {max_epochs: 2, log_gradient_shares_every: 5}
data: {batch_size: 4, val_split: val, unlabeled: null, unlabeled_ratio: 1.0}
"""
METRICS_OF_0_1_0 = """\
step,train/critic/teacher,train/critic/student,train/critic/penalty,train/discriminator,train/holistic,share/holistic,val/miou,val/iou/road
0,0.018,0.017,0.99,9.9,-0.017,0.2,,
3,,,,,,,0.034,0.034
"""
EVALUATION_OF_0_1_0: dict[str, Any] = {
    "miou": 0.034,
    "iou": {"road": 0.034},
    "protocol": {"void": "ignored", "competing": "the data set's classes"},
    "images": 64,
    "dataset": "Streets",
    "split": "val",
    "classes": ["road"],
    "boundary": {"miou": 0.03, "widths": [5], "iou": {"road": 0.03}},
    "sequences": {"val": {"images": 64, "miou": 0.034}},
    "interval": {"miou": [0.032, 0.036], "level": 0.95, "block": 1, "resamples": 20, "seed": 0},
}
SUMMARY = {"val_miou": 0.034, "steps": 4, "seconds": 2.6, "teacher_sha256": None, "denormal_weights_zeroed": 0}
CURVES = {
    "train/discriminator/teacher", "train/discriminator/student", "train/discriminator/penalty", "train/discriminator",
    "train/adversarial", "share/adversarial", "val/miou", "val/iou/road",
}  # fmt: skip


def write_run(directory: Path, config: str, evaluation: dict[str, Any]) -> Run:
    directory.mkdir()
    (directory / "config.yaml").write_text(config)
    (directory / "metrics.csv").write_text(METRICS_OF_0_1_0)
    (directory / "summary.json").write_text(json.dumps(SUMMARY))
    (directory / "evaluation.json").write_text(json.dumps(evaluation))
    return read_run(directory)


@pytest.fixture
def old_run(tmp_path: Path) -> Run:
    return write_run(tmp_path / "old", CONFIG_OF_0_1_0, EVALUATION_OF_0_1_0)


def test_run_is_read_under_todays_names(old_run: Run) -> None:
    assert old_run.terms == ["pixelwise", "pairwise", "adversarial"]
    assert old_run.read_curves().keys() == CURVES
    evaluation = old_run.evaluation
    assert evaluation is not None
    assert {"boundary_iou", "per_sequence", "bootstrap_ci"} <= evaluation.keys()
    assert evaluation["bootstrap_ci"] == EVALUATION_OF_0_1_0["interval"]


def test_old_run_and_new_run_of_one_method_are_averaged(old_run: Run, tmp_path: Path, command: Command) -> None:
    new_run = write_run(tmp_path / "new", CONFIG_NOW, EVALUATION_OF_0_1_0)
    assert len(group_by_method([old_run, new_run])) == 1
    result = command("compare", f"runs={tmp_path}/*")
    assert result.code == 0, result.err
    assert "pixelwise + pairwise + adversarial" in result.out


@pytest.mark.parametrize(
    ("now", "changed"),
    [
        ("node_size: 4", "node_size: 2"),
        ("n_critic: 1", "n_critic: 5"),
        ("update_first: discriminator", "update_first: student"),
        ("unlabeled: null", "unlabeled: frames"),
        ("gradient_penalty_weight: 10.0", "gradient_penalty_weight: 1.0"),
        ("{kd_logits: head}", "{kd_logits: other}"),
        ("checkpoint: pretrained", "checkpoint: other.pth"),
    ],
)
def test_difference_under_a_renamed_key_is_another_method(old_run: Run, tmp_path: Path, now: str, changed: str) -> None:
    assert CONFIG_NOW.count(now) == 1
    other = write_run(tmp_path / "other", CONFIG_NOW.replace(now, changed), EVALUATION_OF_0_1_0)
    assert len(group_by_method([old_run, other])) == 2
    assert not is_same_recipe(get_method_keys(old_run), get_method_keys(other))


def test_record_of_a_study_is_read(old_run: Run, tmp_path: Path) -> None:
    record = {
        "row": "all_three",
        "config": yaml.safe_load(CONFIG_OF_0_1_0),
        "evaluation": EVALUATION_OF_0_1_0,
        "summary": SUMMARY,
        "environment": {},
        "teacher_seconds": 0.0,
    }
    (tmp_path / "all_three_0.json").write_text(json.dumps(record))
    run = read_run(tmp_path / "all_three_0.json")
    assert (run.terms, run.score, run.evaluation) == (old_run.terms, old_run.score, old_run.evaluation)


@pytest.mark.process
def test_report_shows_an_old_run(old_run: Run, tmp_path: Path, command: Command) -> None:
    result = command("report", f"runs={old_run.directory}", "images=0", f"output={tmp_path / 'page.html'}")
    assert result.code == 0, result.err
    page = (tmp_path / "page.html").read_text()
    assert "boundary IoU" in page
    assert "adversarial" in page


class Segmenter(torch.nn.Module):
    """A third-party network with a module `head`."""

    def __init__(self, num_classes: int = 11) -> None:
        super().__init__()
        self.head = torch.nn.Conv2d(3, num_classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits at full size."""
        logits: torch.Tensor = self.head(images)
        return logits


@pytest.mark.parametrize("is_renamed", [True, False])
def test_teacher_adapter_with_taps_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_renamed: bool) -> None:
    """Its feature `scores` is `kd_logits`; without the table its `taps` would be refused."""
    monkeypatch.setenv("SEGKD_PLUGINS", __name__)
    if not is_renamed:
        monkeypatch.setattr("segkd.runs.load.rename_network_keys", copy.copy)
    config = yaml.safe_load(CONFIG_OF_0_1_0)
    config["teacher"] = {
        "_target_": "segkd.models.adapter.Adapter",
        "network": f"{__name__}.Segmenter",
        "classes_argument": "num_classes",
        "mean": None,
        "std": None,
        "taps": {"scores": "head"},
        "checkpoint": str(tmp_path / "weights.pth"),
    }
    normalization = Normalization(Streets.mean, Streets.std)
    torch.save(Segmenter().state_dict(), tmp_path / "weights.pth")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    if not is_renamed:
        with pytest.raises(Exception, match="describes no teacher that can be built"):
            load_run_teacher(tmp_path)
        return
    teacher = load_run_teacher(tmp_path)
    assert isinstance(teacher, Adapter)
    assert teacher.normalization.to_dict() == normalization.to_dict()
    assert "kd_logits" in teacher.features
    assert "scores" not in teacher.features


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (("loss.hint.tap", "scores"), ("loss.hint.feature", "kd_logits")),
        (("adversary.form.penalty", 10.0), ("adversary.gan_loss.gradient_penalty_weight", 10.0)),
        (("adversary.order", "student_first"), ("adversary.update_first", "student")),
        (("teacher.taps.scores", "head"), ("teacher.features.kd_logits", "head")),
        (("teacher.checkpoint", "included"), ("teacher.checkpoint", "pretrained")),
        (("loss.hint.weight", 1.0), ("loss.hint.weight", 1.0)),
        (("data.unlabelled_ratio", 2.0), ("data.unlabeled_ratio", 2.0)),
    ],
)
def test_setting_has_todays_key_and_value(old: tuple[str, Any], new: tuple[str, Any]) -> None:
    assert rename_setting(*old) == new
