"""Each term's share of the student's gradient: by hand, against separate backward passes, and that looking changes nothing."""

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
from tests.distillation.test_distiller import BATCHES, EPOCHS, SETTINGS, batches, made
from tests.helpers.commands import Command
from tests.train.test_train import distilled

HEAVY = {"labels": 1.0, "pixelwise": 10 / 3, "pairwise": 10.0, "holistic": 0.1}


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
    found = compute_gradient_shares(norms, {"linear": 2, "square": 0.75, "others": 9, "constant": 9})
    assert {name: share.item() for name, share in found.items()} == pytest.approx(
        {"linear": 10 / 40, "square": 30 / 40, "others": 0, "constant": 0}
    )


def test_processes_average_their_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weighted norms are 3 and 1 here, 0 and 12 there."""
    norms, weights = {"a": torch.tensor(3.0), "b": torch.tensor(0.5)}, {"a": 1.0, "b": 2.0}
    monkeypatch.setattr(segkd.insight, "global_sum", lambda mine: mine + torch.tensor([0.0, 12.0]))
    assert [share.item() for share in compute_gradient_shares(norms, weights).values()] == [
        3 / 16,
        13 / 16,
    ]  # not (3/4 + 0) / 2


def test_where_nothing_pulls_there_are_no_shares() -> None:
    zero = torch.tensor(0.0)
    assert [share.item() for share in compute_gradient_shares({"a": zero, "b": zero}, {"a": 1, "b": 2}).values()] == [
        0,
        0,
    ]


class Rows(DummyLogger):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if any(name.startswith("share/") for name in metrics):
            self.rows.append((step, metrics))


def logged(tmp_path: Path, every: int, **settings: Any) -> list[tuple[int | None, dict[str, float]]]:
    rows = Rows()
    trainer = build_trainer(
        SETTINGS.model_copy(update={"log_gradient_shares_every": every, **settings}), tmp_path, [rows]
    )
    trainer.fit(made(), batches(1), batches(2, 1))
    return rows.rows


def separately() -> dict[str, float]:
    """Shares on the first batch, each term by a backward pass of its own, of the student's parameters."""
    norms = {}
    for name, weight in HEAVY.items():
        module, (batch, *_) = made(), batches(1)
        critic, student = module.phases
        optimizer = torch.optim.SGD(
            critic.parameters(), lr=0.01 / 2
        )  # the rate of test_distiller, halved by its schedule
        step = module.train().forward_networks(batch)
        for repeat in range(critic.repeats):
            optimizer.zero_grad()
            critic.objective(step._replace(repeat=repeat))[0].backward()
            optimizer.step()
        module.zero_grad()
        (weight * student.objective(step)[1][name]).backward()
        norms[name] = torch.cat([p.grad.flatten() for p in module.student.parameters() if p.grad is not None]).norm()
    return {f"share/{name}": (norm / sum(norms.values())).item() for name, norm in norms.items()}


def test_logged_shares_are_those_of_separate_backward_passes(tmp_path: Path) -> None:
    rows = logged(tmp_path, every=2)
    assert [step for step, _ in rows] == [*range(0, BATCHES * EPOCHS, 2)]
    assert rows[0][1] == pytest.approx(separately(), rel=1e-4)
    assert all(sum(row.values()) == pytest.approx(1) for _, row in rows)
    assert min(rows[0][1].values()) > 0


def test_under_bfloat16_they_are_nearly_the_same(tmp_path: Path) -> None:
    (first, *_), (half, *_) = (logged(tmp_path / name, every=100, precision=name) for name in ("32-true", "bf16-mixed"))
    assert half[1] == pytest.approx(first[1], abs=0.03)
    assert half[1] != first[1]


def test_a_look_changes_no_weight_and_takes_no_forward_pass(
    command: Command, teacher_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []

    def counting(self: ESPNetC, images: Tensor) -> Any:
        passes[-1] += 1
        return forward_normalized(self, images)

    forward_normalized = ESPNetC.forward_normalized
    monkeypatch.setattr(ESPNetC, "forward_normalized", counting)

    def weights(name: str, *typed: str) -> bytes:
        passes.append(0)
        result = command("train", *distilled(teacher_file), *typed, f"output_dir={tmp_path / name}")
        assert result.code == 0, result.err
        return (tmp_path / name / "student.safetensors").read_bytes()

    looking = ("trainer.log_gradient_shares_every=2", "trainer.log_every=3")
    plain, looked = weights("plain"), weights("looked", *looking)
    assert plain == looked
    assert passes[0] == passes[1] > 0
    with (tmp_path / "looked/metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["share/pairwise"]]
    assert [int(row["step"]) for row in rows] == [0, 2]
    for row in rows:
        found = {name: float(value) for name, value in row.items() if name.startswith("share/")}
        assert found.keys() == {f"share/{name}" for name in ("cross_entropy", "pixelwise", "pairwise", "holistic")}
        assert sum(found.values()) == pytest.approx(1)

    # The comparison can fail: a look that touches the weights is seen.
    def steering(terms: dict[str, Tensor], parameters: Any) -> dict[str, Tensor]:
        moved = [*parameters]
        moved[0].data *= 1.001
        return compute_gradient_norms(terms, moved)

    monkeypatch.setattr(segkd.train.callbacks.gradient_shares, "compute_gradient_norms", steering)
    assert weights("steered", *looking) != plain
