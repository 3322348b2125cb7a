"""Gradient shares: by hand, against separate backward passes, and that measuring them does not change the training."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.loggers.logger import DummyLogger
from torch import Tensor, nn

import segkd.distillation.gradient_shares
import segkd.train.callbacks.gradient_shares
from segkd.distillation.gradient_shares import compute_gradient_norms, compute_gradient_shares
from segkd.models.espnet import ESPNetC
from segkd.train.trainer import build_trainer
from tests.helpers.commands import Command
from tests.helpers.distillation import BATCHES, EPOCHS, LEARNING_RATES, SETTINGS, make_dataloader, make_distiller
from tests.helpers.training import list_distillation_overrides

WEIGHTS = {"labels": 1.0, "pixelwise": 10 / 3, "pairwise": 10.0, "adversarial": 0.1}


def test_norms_and_shares_by_hand() -> None:
    """A student of two parameters, a = 3 and b = 4, and a projector c."""
    a, b, c = (nn.Parameter(torch.tensor(value)) for value in (3.0, 4.0, 5.0))
    b.grad = torch.tensor(7.0)
    frozen = nn.Parameter(torch.tensor(2.0), requires_grad=False)
    terms = {"linear": 3 * a + 4 * b * frozen**0, "square": c * b**2, "others": c**2, "constant": frozen + 1}
    norms = compute_gradient_norms(terms, iter([a, b, frozen]))
    assert {name: norm.item() for name, norm in norms.items()} == {
        "linear": 5,
        "square": 40,
        "others": 0,
        "constant": 0,
    }
    assert (a.grad, b.grad.item(), c.grad) == (None, 7, None)
    terms["square"].backward()  # the graph is still there
    assert b.grad.item() == 47
    shares = compute_gradient_shares(norms, {"linear": 2, "square": 0.75, "others": 9, "constant": 9})
    assert {name: share.item() for name, share in shares.items()} == pytest.approx(
        {"linear": 10 / 40, "square": 30 / 40, "others": 0, "constant": 0}
    )


def test_processes_average_their_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weighted norms are 3 and 1 in this process, 0 and 12 in the other."""
    norms, weights = {"a": torch.tensor(3.0), "b": torch.tensor(0.5)}, {"a": 1.0, "b": 2.0}
    monkeypatch.setattr(
        segkd.distillation.gradient_shares, "global_sum", lambda norms: norms + torch.tensor([0.0, 12.0])
    )
    assert [share.item() for share in compute_gradient_shares(norms, weights).values()] == [
        3 / 16,
        13 / 16,
    ]  # not (3/4 + 0) / 2


def test_shares_of_zero_gradients_are_zero() -> None:
    zero = torch.tensor(0.0)
    assert [share.item() for share in compute_gradient_shares({"a": zero, "b": zero}, {"a": 1, "b": 2}).values()] == [
        0,
        0,
    ]


class RecordingLogger(DummyLogger):
    """Records the logged shares."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if any(name.startswith("share/") for name in metrics):
            self.rows.append((step, metrics))


def train_and_log(tmp_path: Path, every: int, **settings: Any) -> list[tuple[int | None, dict[str, float]]]:
    logger = RecordingLogger()
    trainer = build_trainer(
        SETTINGS.model_copy(update={"log_gradient_shares_every": every, **settings}), tmp_path, [logger]
    )
    trainer.fit(make_distiller(), make_dataloader(1), make_dataloader(2, 1))
    return logger.rows


def compute_separately() -> dict[str, float]:
    """Return the shares on the first batch, with a backward pass for each term."""
    norms = {}
    for name, weight in WEIGHTS.items():
        module, (batch, *_) = make_distiller(), make_dataloader(1)
        discriminator, student = module.phases
        # The schedule starts at a half.
        optimizer = torch.optim.SGD(discriminator.parameters(), lr=LEARNING_RATES["discriminator"] / 2)
        step = module.train().forward_networks(batch)
        for repeat in range(discriminator.repeats):
            optimizer.zero_grad()
            discriminator.objective(step._replace(repeat=repeat))[0].backward()
            optimizer.step()
        module.zero_grad()
        (weight * student.objective(step)[1][name]).backward()
        norms[name] = torch.cat([p.grad.flatten() for p in module.student.parameters() if p.grad is not None]).norm()
    return {f"share/{name}": (norm / sum(norms.values())).item() for name, norm in norms.items()}


def test_logged_shares_equal_separate_backward_passes(tmp_path: Path) -> None:
    rows = train_and_log(tmp_path, every=2)
    assert [step for step, _ in rows] == [*range(0, BATCHES * EPOCHS, 2)]
    assert rows[0][1] == pytest.approx(compute_separately(), rel=1e-4)
    assert all(sum(row.values()) == pytest.approx(1) for _, row in rows)
    assert min(rows[0][1].values()) > 0


def test_shares_in_bfloat16_are_close(tmp_path: Path) -> None:
    (first, *_), (half, *_) = (
        train_and_log(tmp_path / name, every=100, precision=name) for name in ("32-true", "bf16-mixed")
    )
    assert half[1] == pytest.approx(first[1], abs=0.03)
    assert half[1] != first[1]


def test_measuring_changes_no_weight_and_takes_no_forward_pass(
    command: Command, teacher_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []

    def count_and_forward(self: ESPNetC, images: Tensor) -> Any:
        passes[-1] += 1
        return forward_normalized(self, images)

    forward_normalized = ESPNetC.forward_normalized
    monkeypatch.setattr(ESPNetC, "forward_normalized", count_and_forward)

    def train(name: str, *overrides: str) -> bytes:
        passes.append(0)
        result = command(
            "train", *list_distillation_overrides(teacher_file), *overrides, f"output_dir={tmp_path / name}"
        )
        assert result.code == 0, result.err
        return (tmp_path / name / "student.safetensors").read_bytes()

    measuring = ("trainer.log_gradient_shares_every=2", "trainer.log_every=3")
    plain, measured = train("plain"), train("measured", *measuring)
    assert plain == measured
    assert passes[0] == passes[1] > 0
    with (tmp_path / "measured/metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["share/pairwise"]]
    assert [int(row["step"]) for row in rows] == [0, 2]
    for row in rows:
        shares = {name: float(value) for name, value in row.items() if name.startswith("share/")}
        assert shares.keys() == {f"share/{name}" for name in ("cross_entropy", "pixelwise", "pairwise", "adversarial")}
        assert sum(shares.values()) == pytest.approx(1)

    # The comparison can fail: measuring that changes weights is detected.
    def change_weights(terms: dict[str, Tensor], parameters: Any) -> dict[str, Tensor]:
        parameters = [*parameters]
        parameters[0].data *= 1.001
        return compute_gradient_norms(terms, parameters)

    monkeypatch.setattr(segkd.train.callbacks.gradient_shares, "compute_gradient_norms", change_weights)
    assert train("changed", *measuring) != plain
