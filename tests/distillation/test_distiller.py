"""Training by phases: counts, rates, the frozen teacher, the checkpoint, clipping, and who is moved by what."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader

from segkd.build.distiller import build_ema
from segkd.config.schema import TrainerSettings
from segkd.distillation.adversary import Adversary, Wasserstein
from segkd.distillation.distiller import Distiller
from segkd.distillation.nan_guard import NanGuard
from segkd.distillation.phases import Phase
from segkd.errors import UserError
from segkd.losses.cross_entropy import CrossEntropy
from segkd.losses.pairwise import Pairwise
from segkd.losses.pixelwise import Pixelwise
from segkd.losses.weighted_sum import LossSum
from segkd.models.base import Normalization, SegmentationModel
from segkd.models.discriminator import Discriminator
from segkd.models.frozen import Frozen
from segkd.models.layers import SampleDropout2d
from segkd.train.trainer import build_trainer
from segkd.types import Batch, FeatureInfo, Step

CLASSES = ("road", "car", "sky")
SETTINGS = TrainerSettings(
    max_epochs=2, devices=1, accelerator="cpu", num_nodes=1, precision="32-true", gradient_clip=None, validate_every=1,
    log_every=1, limit_train_batches=None, limit_val_batches=None, progress=False,
)  # fmt: skip
BATCHES, EPOCHS, CRITIC_STEPS = 3, 2, 2
RATES = {"student": 0.1, "discriminator": 0.01}


def falling(progress: float) -> float:
    """A schedule from a half to zero."""
    return (1 - progress) / 2


class Tiny(SegmentationModel):
    """Two convolutions at 1/2, with the parts that must stand still in a teacher: BatchNorm and dropout."""

    def __init__(self, width: int) -> None:
        features = {"encoder": FeatureInfo(width, 2), "kd_logits": FeatureInfo(len(CLASSES), 2)}
        super().__init__(len(CLASSES), Normalization((110.0,) * 3, (55.0,) * 3), features)
        self.encoder = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.dropout = SampleDropout2d(0.5)
        self.classifier = nn.Conv2d(width, len(CLASSES), 1)

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        features = self.encoder(images)
        scores = self.classifier(self.dropout(features))
        return scores, {"encoder": features, "kd_logits": scores}


class Update(NamedTuple):
    """What one update did."""

    phase: str
    draw: int
    progress: float
    rate: float
    gradient: float
    """The norm of what was applied."""


class Watched(Distiller):
    """Keeps what each update did, and asserts what it must leave alone."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.updates: list[Update] = []

    def run_phase(self, phase: Phase, optimizer: Any, step: Step) -> None:
        others = [p for other in self.phases if other is not phase for p in other.parameters()]
        before = [(p.detach().clone(), None if p.grad is None else p.grad.clone()) for p in others]
        mine = [p.detach().clone() for p in phase.parameters()]
        super().run_phase(phase, optimizer, step)
        for parameter, (value, gradient) in zip(others, before, strict=True):
            assert torch.equal(parameter, value)
            assert parameter.requires_grad
            assert (parameter.grad is None) if gradient is None else torch.equal(parameter.grad, gradient)
        rate = optimizer.param_groups[0]["lr"]
        moved = nn.utils.parameters_to_vector(phase.parameters()) - nn.utils.parameters_to_vector(mine)
        self.updates.append(Update(phase.name, step.repeat, step.progress, rate, moved.norm().item() / rate))


def batches(seed: int, count: int = BATCHES) -> DataLoader[Batch]:
    g = torch.Generator().manual_seed(seed)
    served = [
        Batch(
            torch.randint(0, 256, (2, 3, 32, 32), generator=g, dtype=torch.uint8),
            torch.randint(0, len(CLASSES), (2, 32, 32), generator=g),
            torch.ones(2, 32, 32, dtype=torch.bool),
            torch.randint(0, 2**62, (2,), generator=g),
        )
        for _ in range(count)
    ]
    return DataLoader(served, batch_size=None)


def made(
    *, alone: bool = False, clip: float | None = None, ema: float | None = None, guard: NanGuard | None = None
) -> Watched:
    """A student with a teacher and a critic, or alone."""
    torch.manual_seed(0)
    student, teacher = Tiny(8), Tiny(16)
    labels, taught = {"labels": CrossEntropy()}, {"pixelwise": Pixelwise(), "pairwise": Pairwise()}
    losses = LossSum(labels if alone else {**labels, **taught})
    losses.setup(student.features, None if alone else teacher.features)
    adversary = Adversary(Discriminator(len(CLASSES), width=8), Wasserstein(), weight=0.1, n_critic=CRITIC_STEPS)
    optimizers = {name: lambda p, rate=rate: SGD(p, lr=rate) for name, rate in RATES.items()}
    return Watched(
        student,
        None if alone else Frozen(teacher),
        losses,
        None if alone else adversary,
        optimizers,
        falling,
        total_steps=EPOCHS * BATCHES,
        classes=CLASSES,
        gradient_clip=clip,
        ema=None if ema is None else build_ema(student, ema),
        guard=guard,
    )


class Run(NamedTuple):
    """A module after its fit."""

    module: Watched
    trainer: pl.Trainer
    checkpoint: dict[str, Any]
    teacher_before: str


def fitted(module: Watched, directory: Path) -> Run:
    before = module.teacher.state_hash() if module.teacher else ""
    trainer = build_trainer(SETTINGS, directory, [])
    trainer.fit(module, batches(1), batches(2, 1))
    return Run(module, trainer, torch.load(directory / "last.ckpt", weights_only=True), before)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fitted(made(), tmp_path_factory.mktemp("run"))


def test_phases_take_turns_and_steps_are_batches(run: Run) -> None:
    module, trainer, checkpoint, _ = run
    turn = [*(("discriminator", draw) for draw in range(CRITIC_STEPS)), ("student", 0)]
    assert [(update.phase, update.draw) for update in module.updates] == turn * BATCHES * EPOCHS
    assert module.step_count == BATCHES * EPOCHS == checkpoint["state_dict"]["step_count"]
    assert trainer.global_step == BATCHES * EPOCHS * len(turn)  # Lightning's count is of updates


def test_a_step_knows_how_far_the_training_is(run: Run, tmp_path: Path) -> None:
    """Also the first after a resume."""
    total = BATCHES * EPOCHS
    assert [u.progress for u in run.module.updates if u.phase == "student"] == [i / total for i in range(total)]
    later = made(alone=True)
    later.step_count += BATCHES
    later.total_steps += BATCHES
    fitted(later, tmp_path)
    assert later.updates[0].progress == BATCHES / (total + BATCHES)


def test_rates_follow_the_formula_and_end_at_zero(run: Run) -> None:
    total = BATCHES * EPOCHS
    for name, repeats in (("student", 1), ("discriminator", CRITIC_STEPS)):
        expected = [RATES[name] * (1 - i / total) / 2 for i in range(total) for _ in range(repeats)]
        assert [update.rate for update in run.module.updates if update.phase == name] == pytest.approx(expected)
    assert [group["lr"] for state in run.checkpoint["optimizers"].values() for group in state["param_groups"]] == [0, 0]


def test_raw_terms_are_logged(run: Run) -> None:
    logged = run.trainer.callback_metrics
    assert {
        f"train/{name}" for name in ("labels", "pixelwise", "pairwise", "adversarial", "discriminator", "total")
    } <= set(logged)
    assert {"val/miou", "val/iou/car", "lr/student", "lr/discriminator"} <= set(logged)
    raw = [logged[f"train/{name}"] for name in ("labels", "pixelwise", "pairwise", "holistic")]
    weights = (1, 10 / len(CLASSES), 10, 0.1)
    assert logged["train/total"].item() == pytest.approx(sum(w * r.item() for w, r in zip(weights, raw, strict=True)))


def test_nothing_moves_the_teacher(run: Run) -> None:
    module = run.module
    assert module.teacher is not None
    module.train()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    first, second = module.teacher(images), module.teacher(images)
    assert torch.equal(first.logits, second.logits)
    assert not first.logits.requires_grad
    assert not any(p.requires_grad for p in module.teacher.network.parameters())
    assert module.teacher.state_hash() == run.teacher_before
    module.teacher.network.train()(images)
    assert module.teacher.state_hash() != run.teacher_before  # statistics alone are seen


def test_checkpoint_holds_the_student_and_the_critic_alone(run: Run) -> None:
    state = dict(run.checkpoint["state_dict"])
    assert {key.split(".")[0] for key in state} == {"student", "adversary", "step_count"}
    made().load_state_dict(state)
    del state["student.classifier.bias"]
    with pytest.raises(RuntimeError, match=r"Missing key.*student\.classifier\.bias"):
        made().load_state_dict(state)


def test_gradients_are_clipped(tmp_path: Path, run: Run) -> None:
    bound = min(update.gradient for update in run.module.updates) / 2
    module = made(clip=bound)
    fitted(module, tmp_path)
    assert [update.gradient for update in module.updates] == pytest.approx([bound] * len(module.updates), rel=1e-2)


def test_a_student_learns_alone(tmp_path: Path) -> None:
    module = made(alone=True)
    checkpoint = fitted(module, tmp_path).checkpoint
    assert [update.phase for update in module.updates] == ["student"] * BATCHES * EPOCHS
    assert {key.split(".")[0] for key in checkpoint["state_dict"]} == {"student", "step_count"}


@pytest.mark.parametrize("phase", ["discriminator", "student"])
def test_a_fault_in_a_phase_leaves_the_parameters_trainable(tmp_path: Path, phase: str) -> None:
    module = made()
    assert module.adversary is not None
    seen: list[bool] = []

    def fail(step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        seen.extend({p.requires_grad for p in module.parameters()})
        raise ZeroDivisionError

    module.phases = [replace(p, objective=fail) if p.name == phase else p for p in module.phases]
    with pytest.raises(ZeroDivisionError):
        fitted(module, tmp_path)
    assert sorted(seen) == [False, True]  # the other player was switched off when it happened
    assert all(p.requires_grad for p in module.parameters())


def test_dropout_is_the_samples_own() -> None:
    """A sample's maps are the same in whatever batch it comes; with other keys they are not."""
    module = made()
    module.student.eval()
    module.student.dropout.train()
    (batch,) = batches(3, 1)

    def maps(batch: Batch) -> Tensor:
        return module.forward_networks(batch).student.logits

    together = maps(batch)
    for i in range(2):
        torch.testing.assert_close(maps(Batch(*(tensor[i : i + 1] for tensor in batch))), together[i : i + 1])
    assert not torch.allclose(maps(batch._replace(seeds=batch.seeds + 1)), together)
    assert not torch.allclose(maps(batch._replace(seeds=batch.seeds.flip(0))), together)


def test_the_average_follows_the_student_and_is_the_result(tmp_path: Path) -> None:
    module = made(ema=0.7)
    assert module.ema is not None
    seen: list[dict[str, Tensor]] = []
    judged: list[bool] = []
    module.student.register_forward_pre_hook(lambda network, _: judged.append(False) if not network.training else None)
    module.eval_model.register_forward_pre_hook(lambda *_: judged.append(True))
    step = module.training_step

    def watched(batch: Batch, batch_idx: int) -> None:
        step(batch, batch_idx)
        seen.append(
            {key: value.clone() for key, value in module.student.state_dict().items() if value.is_floating_point()}
        )

    module.training_step = watched  # type: ignore[method-assign]
    checkpoint = fitted(module, tmp_path).checkpoint
    for key, first in seen[0].items():
        expected = first.double()
        for later in seen[1:]:
            expected = 0.7 * expected + 0.3 * later[key]
        kept = checkpoint["state_dict"][f"ema.module.{key}"]
        torch.testing.assert_close(kept.double(), expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(kept, module.eval_model.state_dict()[key])
    assert judged == [True] * EPOCHS  # validated each time, and never the student
    assert not torch.equal(module.eval_model.classifier.weight, module.student.classifier.weight)


def spoiling(module: Watched, phase: str, at: set[int], gradient_alone: bool = False) -> None:
    """Let a phase's updates of these numbers come to nothing, and a running statistic with them."""
    count = itertools.count()

    def spoilt(step: Step, objective: Any) -> tuple[Tensor, dict[str, Tensor]]:
        total, terms = objective(step)
        if next(count) not in at:
            return total, terms
        module.student.encoder[1].running_mean.data[0] = torch.nan
        if gradient_alone:
            return total + (0 * total).sqrt(), terms
        return total * torch.nan, {**terms, "pairwise": total * torch.nan}

    module.phases = [
        replace(p, objective=partial(spoilt, objective=p.objective)) if p.name == phase else p for p in module.phases
    ]


@pytest.mark.parametrize("gradient_alone", [False, True])
@pytest.mark.parametrize("phase", ["student", "discriminator"])
def test_a_run_stops_where_a_number_is_none(tmp_path: Path, phase: str, gradient_alone: bool) -> None:
    module = made()
    spoiling(module, phase, {2}, gradient_alone)
    what = "gradient" if gradient_alone else "pairwise, total"
    with pytest.raises(UserError, match=f"{what}.* of the {phase}'s update is not finite at step"):
        fitted(module, tmp_path)
    assert all(parameter.isfinite().all() for parameter in module.parameters())
    assert torch.load(tmp_path / "not_finite_rank0.pt", weights_only=True)["images"].shape == (2, 3, 32, 32)


def test_an_update_that_is_none_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = made(guard=NanGuard("skip"))
    spoiling(module, "student", {1, 3})
    fitted(module, tmp_path)
    moved = [update.gradient > 0 for update in module.updates if update.phase == "student"]
    assert moved == [True, False, True, False, True, True]
    assert all(value.isfinite().all() for value in module.state_dict().values())
    assert capsys.readouterr().err.count("is not finite at step") == 2


def test_patience_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segkd.distillation.nan_guard.MAX_SKIPS", 4)
    module = made(guard=NanGuard("skip"))
    spoiling(module, "student", {0, 1, 3, 4, 5})  # three in a row may be
    fitted(module, tmp_path)
    module = made(guard=NanGuard("skip"))
    spoiling(module, "student", {1, 2, 3, 4})
    with pytest.raises(UserError, match=r"at step 4 .* and so were the 3 before it"):
        fitted(module, tmp_path)
