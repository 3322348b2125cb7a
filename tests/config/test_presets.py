"""Presets: their values, and what may be changed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from segkd.check_part.steps import make_step
from segkd.config.paths import CONFIGS
from segkd.distillation.adversary import Adversary, Wasserstein
from segkd.distillation.phases import build_phases
from segkd.losses.cross_entropy import CrossEntropy
from segkd.losses.weighted_sum import LossSum
from segkd.models.discriminator import Discriminator
from tests.helpers.commands import Command

PRESETS = sorted(path.stem for path in (CONFIGS / "preset").glob("*.yaml") if path.stem != "none")
SHORT = ("trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.progress=false", "wandb.mode=disabled")


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_sets_the_published_values_and_trains(
    command: Command, tmp_path: Path, teacher_file: Path, preset: str
) -> None:
    result = command(
        "train",
        "experiment=quickstart",
        f"preset={preset}",
        f"teacher.checkpoint={teacher_file}",
        *SHORT,
        "check_teacher=off",
        f"output_dir={tmp_path / 'run'}",
    )
    assert result.code == 0, result.err
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    loss, adversary = config["loss"], config["adversary"]
    values = (
        loss["pixelwise"]["weight"],
        loss["pairwise"]["weight"],
        loss["pairwise"]["node_size"],
        loss["pairwise"]["pooling"],
        adversary["weight"],
        adversary["gan_loss"]["_target_"].rpartition(".")[2],
        adversary["update_first"],
        adversary["discriminator_input"],
        adversary["discriminator"]["image_channels"],
    )
    assert (
        values
        == {
            "paper": (10.0, 10.0, 1, "mean", 0.1, "Wasserstein", "discriminator", "probabilities", 3),
            "skd_cvpr_code": (None, 10.0, 1, "mean", 0.1, "Hinge", "discriminator", "probabilities", 3),
            "tpami": (80.0, 0.5, 2, "max", 0.1, "Wasserstein", "student", "logits", 0),
        }[preset]
    )


@pytest.mark.parametrize(
    ("override", "phrase"),
    [
        ("loss.pixelwise.weight=3", "preset=paper sets loss.pixelwise.weight=10.0, but 3 is given;"),
        ("adversary.update_first=student", "preset=paper sets adversary.update_first=discriminator"),
        ("adversary.discriminator.image_channels=0", "preset=paper sets adversary.discriminator.image_channels=3"),
    ],
)
def test_contradiction_is_refused(command: Command, override: str, phrase: str) -> None:
    result = command("train", "experiment=quickstart", "preset=paper", override)
    assert result.code == 2
    assert phrase in result.err


def test_loss_of_a_preset_may_be_left_out(command: Command, tmp_path: Path, teacher_file: Path) -> None:
    overrides = (
        "loss=[cross_entropy,pixelwise]",
        "adversary=none",
        "loss.pixelwise.weight=10",
        f"output_dir={tmp_path / 'run'}",
    )
    teacher = f"teacher.checkpoint={teacher_file}"
    result = command("train", "experiment=quickstart", "preset=paper", teacher, *SHORT, "check_teacher=off", *overrides)
    assert result.code == 0, result.err


def make_adversary(**arguments: str | float) -> Adversary:
    return Adversary(Discriminator(5, width=8), Wasserstein(), **arguments)  # type: ignore[arg-type]


def test_update_first_orders_the_phases() -> None:
    losses = LossSum({"labels": CrossEntropy()})
    names = {
        first: [
            phase.name for phase in build_phases(torch.nn.Conv2d(3, 5, 1), losses, make_adversary(update_first=first))
        ]
        for first in ("discriminator", "student")
    }
    assert names == {"discriminator": ["discriminator", "student"], "student": ["student", "discriminator"]}


def test_discriminator_of_logits_sees_a_constant_offset() -> None:
    step = make_step(size=(16, 16))
    assert step.teacher is not None
    raised = step.student._replace(features={name: maps + 3.0 for name, maps in step.student.features.items()})
    for discriminator_input, differs in (("probabilities", False), ("logits", True)):
        torch.manual_seed(0)
        adversary = make_adversary(discriminator_input=discriminator_input, weight=1.0)
        before, after = (adversary.student_loss(s)[0] for s in (step, step._replace(student=raised)))
        assert bool((before - after).abs() > 1e-5) is differs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"update_first": "both"}, "update_first is discriminator or student, not 'both'"),
        ({"discriminator_input": "scores"}, "discriminator_input is probabilities or logits, not 'scores'"),
        ({"weight": -1.0}, "weight must be 0 or more, not -1.0"),
    ],
)
def test_impossible_values_are_refused(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_adversary(**arguments)
