"""Training by phases: updates, learning rates, the frozen teacher, the checkpoint, clipping, averaging and the NaN guard."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor

from segkd.cli.logs import configure_logging
from segkd.distillation.nan_guard import NanGuard
from segkd.errors import UserError
from segkd.types import Batch, Step
from tests.helpers.distillation import (
    BATCHES,
    CLASSES,
    EPOCHS,
    LEARNING_RATES,
    N_CRITIC,
    RecordingDistiller,
    Run,
    fit,
    make_dataloader,
    make_distiller,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit(make_distiller(), tmp_path_factory.mktemp("run"))


def test_phases_alternate_and_step_count_counts_batches(run: Run) -> None:
    module, trainer, checkpoint, _ = run
    cycle = [*(("discriminator", repeat) for repeat in range(N_CRITIC)), ("student", 0)]
    assert [(update.phase, update.repeat) for update in module.updates] == cycle * BATCHES * EPOCHS
    assert module.step_count == BATCHES * EPOCHS == checkpoint["state_dict"]["step_count"]
    assert trainer.global_step == BATCHES * EPOCHS * len(cycle)  # Lightning counts updates


def test_step_has_the_progress_of_the_training(run: Run, tmp_path: Path) -> None:
    """The first step after a resume too."""
    total = BATCHES * EPOCHS
    assert [u.progress for u in run.module.updates if u.phase == "student"] == [i / total for i in range(total)]
    resumed = make_distiller(baseline=True)
    resumed.step_count += BATCHES
    resumed.total_steps += BATCHES
    fit(resumed, tmp_path)
    assert resumed.updates[0].progress == BATCHES / (total + BATCHES)


def test_learning_rates_follow_the_schedule_to_zero(run: Run) -> None:
    total = BATCHES * EPOCHS
    for name, repeats in (("student", 1), ("discriminator", N_CRITIC)):
        expected = [LEARNING_RATES[name] * (1 - i / total) / 2 for i in range(total) for _ in range(repeats)]
        assert [update.learning_rate for update in run.module.updates if update.phase == name] == pytest.approx(
            expected
        )
    assert [group["lr"] for state in run.checkpoint["optimizers"].values() for group in state["param_groups"]] == [0, 0]


def test_raw_terms_are_logged(run: Run) -> None:
    logged = run.trainer.callback_metrics
    assert {
        f"train/{name}" for name in ("labels", "pixelwise", "pairwise", "adversarial", "discriminator", "total")
    } <= set(logged)
    assert {"val/miou", "val/iou/car", "lr/student", "lr/discriminator"} <= set(logged)
    raw = [logged[f"train/{name}"] for name in ("labels", "pixelwise", "pairwise", "adversarial")]
    weights = (1, 10 / len(CLASSES), 10, 0.1)
    assert logged["train/total"].item() == pytest.approx(sum(w * r.item() for w, r in zip(weights, raw, strict=True)))


def test_teacher_stays_unchanged(run: Run) -> None:
    module = run.module
    assert module.teacher is not None
    module.train()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    first, second = module.teacher(images), module.teacher(images)
    assert torch.equal(first.logits, second.logits)
    assert not first.logits.requires_grad
    assert not any(p.requires_grad for p in module.teacher.network.parameters())
    assert module.teacher.state_hash() == run.teacher_hash
    module.teacher.network.train()(images)
    assert module.teacher.state_hash() != run.teacher_hash  # the hash sees statistics


def test_checkpoint_holds_student_and_discriminator_only(run: Run) -> None:
    state = dict(run.checkpoint["state_dict"])
    assert {key.split(".")[0] for key in state} == {"student", "adversary", "step_count"}
    make_distiller().load_state_dict(state)
    del state["student.classifier.bias"]
    with pytest.raises(RuntimeError, match=r"Missing key.*student\.classifier\.bias"):
        make_distiller().load_state_dict(state)


def test_gradients_are_clipped(tmp_path: Path, run: Run) -> None:
    bound = min(update.gradient for update in run.module.updates) / 2
    module = make_distiller(clip=bound)
    fit(module, tmp_path)
    assert [update.gradient for update in module.updates] == pytest.approx([bound] * len(module.updates), rel=1e-2)


def test_baseline_has_one_phase(tmp_path: Path) -> None:
    module = make_distiller(baseline=True)
    checkpoint = fit(module, tmp_path).checkpoint
    assert [update.phase for update in module.updates] == ["student"] * BATCHES * EPOCHS
    assert {key.split(".")[0] for key in checkpoint["state_dict"]} == {"student", "step_count"}


@pytest.mark.parametrize("phase", ["discriminator", "student"])
def test_parameters_stay_trainable_after_an_error_in_a_phase(tmp_path: Path, phase: str) -> None:
    module = make_distiller()
    assert module.adversary is not None
    requires_grad: list[bool] = []

    def fail(step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        requires_grad.extend({p.requires_grad for p in module.parameters()})
        raise ZeroDivisionError

    module.phases = [replace(p, objective=fail) if p.name == phase else p for p in module.phases]
    with pytest.raises(ZeroDivisionError):
        fit(module, tmp_path)
    assert sorted(requires_grad) == [False, True]  # the parameters of the other phase were frozen
    assert all(p.requires_grad for p in module.parameters())


def test_dropout_depends_on_the_seed_of_the_sample() -> None:
    """The maps of a sample do not depend on its batch, but on its seed."""
    module = make_distiller()
    module.student.eval()
    module.student.dropout.train()
    (batch,) = make_dataloader(3, 1)

    def compute_logits(batch: Batch) -> Tensor:
        return module.forward_networks(batch).student.logits

    together = compute_logits(batch)
    for i in range(2):
        torch.testing.assert_close(compute_logits(Batch(*(tensor[i : i + 1] for tensor in batch))), together[i : i + 1])
    assert not torch.allclose(compute_logits(batch._replace(seeds=batch.seeds + 1)), together)
    assert not torch.allclose(compute_logits(batch._replace(seeds=batch.seeds.flip(0))), together)


def test_moving_average_follows_the_student_and_is_evaluated(tmp_path: Path) -> None:
    module = make_distiller(ema=0.7)
    assert module.ema is not None
    states: list[dict[str, Tensor]] = []
    is_average: list[bool] = []
    module.student.register_forward_pre_hook(
        lambda network, _: is_average.append(False) if not network.training else None
    )
    module.eval_model.register_forward_pre_hook(lambda *_: is_average.append(True))
    training_step = module.training_step

    def record_state(batch: Batch, batch_idx: int) -> None:
        training_step(batch, batch_idx)
        states.append(
            {key: value.clone() for key, value in module.student.state_dict().items() if value.is_floating_point()}
        )

    module.training_step = record_state  # type: ignore[method-assign]
    checkpoint = fit(module, tmp_path).checkpoint
    for key, first in states[0].items():
        expected = first.double()
        for later in states[1:]:
            expected = 0.7 * expected + 0.3 * later[key]
        saved = checkpoint["state_dict"][f"ema.module.{key}"]
        torch.testing.assert_close(saved.double(), expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(saved, module.eval_model.state_dict()[key])
    assert is_average == [True] * EPOCHS  # validated each time, and never the student
    assert not torch.equal(module.eval_model.classifier.weight, module.student.classifier.weight)


def inject_nan(module: RecordingDistiller, phase: str, at: set[int], only_gradient: bool = False) -> None:
    """Make these updates of a phase NaN, and a running statistic with them."""
    count = itertools.count()

    def compute_objective(step: Step, objective: Any) -> tuple[Tensor, dict[str, Tensor]]:
        total, terms = objective(step)
        if next(count) not in at:
            return total, terms
        module.student.encoder[1].running_mean.data[0] = torch.nan
        if only_gradient:
            return total + (0 * total).sqrt(), terms
        return total * torch.nan, {**terms, "pairwise": total * torch.nan}

    module.phases = [
        replace(p, objective=partial(compute_objective, objective=p.objective)) if p.name == phase else p
        for p in module.phases
    ]


@pytest.mark.parametrize("only_gradient", [False, True])
@pytest.mark.parametrize("phase", ["student", "discriminator"])
def test_on_nan_stop_ends_the_run(tmp_path: Path, phase: str, only_gradient: bool) -> None:
    module = make_distiller()
    inject_nan(module, phase, {2}, only_gradient)
    names = "gradient" if only_gradient else "pairwise, total"
    with pytest.raises(UserError, match=f"{names}.* of the {phase}'s update is not finite at step"):
        fit(module, tmp_path)
    assert all(parameter.isfinite().all() for parameter in module.parameters())
    assert torch.load(tmp_path / "not_finite_rank0.pt", weights_only=True)["images"].shape == (2, 3, 32, 32)


def test_on_nan_skip_skips_the_update(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    module = make_distiller(guard=NanGuard("skip"))
    inject_nan(module, "student", {1, 3})
    fit(module, tmp_path)
    is_applied = [update.gradient > 0 for update in module.updates if update.phase == "student"]
    assert is_applied == [True, False, True, False, True, True]
    assert all(value.isfinite().all() for value in module.state_dict().values())
    assert capsys.readouterr().err.count("is not finite at step") == 2


def test_run_ends_after_max_skips_in_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segkd.distillation.nan_guard.MAX_SKIPS", 4)
    module = make_distiller(guard=NanGuard("skip"))
    inject_nan(module, "student", {0, 1, 3, 4, 5})  # three in a row are allowed
    fit(module, tmp_path)
    module = make_distiller(guard=NanGuard("skip"))
    inject_nan(module, "student", {1, 2, 3, 4})
    with pytest.raises(UserError, match=r"at step 4 .* like the 3 updates before it"):
        fit(module, tmp_path)


PRECISIONS = {"16-mixed": True, "bf16-true": True, "64-true": True, "bf16-mixed": False, "32-true": False}


@pytest.mark.parametrize(("precision", "is_refused"), PRECISIONS.items())
def test_a_trainer_that_scales_gradients_is_refused(precision: str, is_refused: bool) -> None:
    module = make_distiller()
    module._trainer = SimpleNamespace(precision=precision, strategy=None)  # type: ignore[assignment]
    with pytest.raises(UserError, match="bf16-mixed") if is_refused else nullcontext():
        module.setup("fit")


@pytest.mark.parametrize(("strategy", "baseline", "is_refused"), [
    (DDPStrategy(), False, True),
    (DDPStrategy(), True, False),
    (DDPStrategy(find_unused_parameters=True), False, False),
])  # fmt: skip
def test_a_strategy_that_two_phases_cannot_use_is_refused(
    strategy: DDPStrategy, baseline: bool, is_refused: bool
) -> None:
    module = make_distiller(baseline=baseline)
    module._trainer = SimpleNamespace(precision="32-true", strategy=strategy)  # type: ignore[assignment]
    with pytest.raises(UserError, match="ddp_find_unused_parameters_true") if is_refused else nullcontext():
        module.setup("fit")
