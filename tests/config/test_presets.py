"""The published forms of the losses, each one word."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from segkd.config.paths import CONFIGS
from segkd.distillation.adversary import Adversary, Wasserstein
from segkd.distillation.phases import build_phases
from segkd.losses.cross_entropy import CrossEntropy
from segkd.losses.weighted_sum import LossSum
from segkd.models.discriminator import Discriminator
from tests.helpers.commands import Command
from tests.helpers.steps import make_step

PRESETS = sorted(path.stem for path in (CONFIGS / "preset").glob("*.yaml") if path.stem != "none")
SHORT = ("trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.progress=false", "wandb.mode=disabled")


@pytest.mark.parametrize("preset", PRESETS)
def test_it_says_all_that_tells_the_forms_apart_and_trains(
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
    told = (
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
        told
        == {
            "paper": (10.0, 10.0, 1, "mean", 0.1, "Wasserstein", "discriminator", "probabilities", 3),
            "skd_cvpr_code": (None, 10.0, 1, "mean", 0.1, "Hinge", "discriminator", "probabilities", 3),
            "tpami": (80.0, 0.5, 2, "max", 0.1, "Wasserstein", "student", "logits", 0),
        }[preset]
    )


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("loss.pixelwise.weight=3", "preset=paper has loss.pixelwise.weight=10.0, and the command line 3;"),
        ("adversary.update_first=student", "preset=paper has adversary.update_first=discriminator"),
        ("adversary.discriminator.image_channels=0", "preset=paper has adversary.discriminator.image_channels=3"),
    ],
)
def test_what_contradicts_it_is_refused(command: Command, override: str, said: str) -> None:
    result = command("train", "experiment=quickstart", "preset=paper", override)
    assert result.code == 2
    assert said in result.err


def test_a_part_of_it_may_be_left_out(command: Command, tmp_path: Path, teacher_file: Path) -> None:
    typed = (
        "loss=[cross_entropy,pixelwise]",
        "adversary=none",
        "loss.pixelwise.weight=10",
        f"output_dir={tmp_path / 'run'}",
    )
    teacher = f"teacher.checkpoint={teacher_file}"
    result = command("train", "experiment=quickstart", "preset=paper", teacher, *SHORT, "check_teacher=off", *typed)
    assert result.code == 0, result.err


def adversary(**more: str | float) -> Adversary:
    return Adversary(Discriminator(5, width=8), Wasserstein(), **more)  # type: ignore[arg-type]


def test_the_order_is_that_of_the_phases() -> None:
    losses = LossSum({"labels": CrossEntropy()})
    names = {
        order: [phase.name for phase in build_phases(torch.nn.Conv2d(3, 5, 1), losses, adversary(update_first=order))]
        for order in ("discriminator", "student")
    }
    assert names == {"discriminator": ["discriminator", "student"], "student": ["student", "discriminator"]}


def test_a_critic_of_logits_tells_maps_apart_that_differ_by_a_constant() -> None:
    step = make_step(size=(16, 16))
    assert step.teacher is not None
    raised = step.student._replace(features={name: maps + 3.0 for name, maps in step.student.features.items()})
    for discriminator_input, apart in (("probabilities", False), ("logits", True)):
        torch.manual_seed(0)
        judge = adversary(discriminator_input=discriminator_input, weight=1.0)
        before, after = (judge.student_loss(s)[0] for s in (step, step._replace(student=raised)))
        assert bool((before - after).abs() > 1e-5) is apart


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"update_first": "both"}, "update_first is discriminator or student, not 'both'"),
        ({"discriminator_input": "scores"}, "discriminator_input is probabilities or logits, not 'scores'"),
        ({"weight": -1.0}, "weight must be 0 or more, not -1.0"),
    ],
)
def test_impossible_values_are_named(more: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        adversary(**more)
