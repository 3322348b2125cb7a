"""`python -m segkd.calibrate`: by hand on a student of two numbers, end to end, and its error messages."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from segkd.calibrate import Term, measure_terms, propose_weights
from segkd.data.datamodule import SegmentationDataModule
from segkd.data.streets import Streets
from segkd.data.transforms import Augmentation
from segkd.distillation.distiller import Distiller
from segkd.errors import UserError
from segkd.losses.base import Loss
from segkd.losses.weighted_sum import LossSum
from segkd.models.base import Normalization, SegmentationModel
from segkd.types import FeatureInfo, Step
from tests.helpers.commands import Command
from tests.helpers.training import list_distillation_overrides, read_metrics

CPU = torch.device("cpu")


class TwoParameterModel(SegmentationModel):
    """A network whose logits are its two parameters, whatever the image."""

    def __init__(self) -> None:
        super().__init__(2, Normalization((0, 0, 0), (1, 1, 1)), {"kd_logits": FeatureInfo(2, 1)})
        self.numbers = nn.Parameter(torch.tensor([10.0, 100.0]))

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.numbers.view(1, 2, 1, 1).expand(len(images), -1, 1, 1)
        return logits, {"kd_logits": logits}


class LinearLoss(Loss):
    """factor · (u · first + v · second), with the gradient factor · (u, v).

    The factor is 1, or the number of calls so far if it `counts_calls`.
    """

    needs_teacher = False

    def __init__(self, u: float, v: float, weight: float, counts_calls: bool = False) -> None:
        super().__init__(weight)
        self.gradient, self.counts_calls, self.factor = torch.tensor([u, v]), counts_calls, 0

    def forward(self, step: Step) -> Tensor:
        self.factor = self.factor + 1 if self.counts_calls else 1
        return self.factor * (step.student.logits.mean((0, 2, 3)) * self.gradient).sum()


def test_norms_and_weights_by_hand() -> None:
    """Norms are 5, 2 (mean of 1, 2 and 3) and 1, weights 1, 5 and 3.

    With a share of 0.2 for the second, the others keep 5 + 3 = 0.8 · 10.
    """
    losses = {
        "cross_entropy": LinearLoss(3, 4, 1),
        "counting": LinearLoss(0, 1, 5, counts_calls=True),
        "kept": LinearLoss(1, 0, 3),
    }
    distiller = Distiller(TwoParameterModel(), None, LossSum(losses), None, {}, lambda _: 1.0, 1, ("first", "second"))
    datamodule = SegmentationDataModule(
        Streets("train", 8), Streets("val", 8), Augmentation((32, 32), fill=Streets.mean), 2
    )
    terms = measure_terms(distiller, datamodule, 3, CPU)
    assert terms == {
        "cross_entropy": Term(30 + 400, 5, 1), "counting": Term(200, 2, 5), "kept": Term(10, 1, 3),
    }  # fmt: skip
    assert distiller.student.numbers.tolist() == [10, 100]
    assert distiller.student.numbers.grad is None
    assert propose_weights(terms, {"counting": 0.2}) == pytest.approx({"counting": 0.2 * 10 / 2})
    assert propose_weights(terms, {"counting": 0.2, "kept": 0.3}) == pytest.approx({"counting": 1.0, "kept": 3.0})
    assert propose_weights(terms, {}) == {}


@pytest.mark.parametrize(
    ("norms", "message"),
    [
        ((1, 0), "'pairwise' has no gradient for the student"),
        ((1, float("nan")), "'pairwise' has no gradient for the student"),
        ((0, 1), "leaves no term for the remaining share"),
    ],
)
def test_terms_without_gradient_are_refused(norms: tuple[float, float], message: str) -> None:
    terms = {name: Term(1, norm, 1) for name, norm in zip(("cross_entropy", "pairwise"), norms, strict=True)}
    with pytest.raises(UserError, match=message):
        propose_weights(terms, {"pairwise": 0.3})


def parse_shares(out: str) -> dict[str, float]:
    """Return the shares in a printed table."""
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines() if line.startswith("│")]
    return {row[0]: float(row[4]) for row in rows}


def test_proposed_weights_give_the_requested_shares(
    command: Command, teacher_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    requested = {"pixelwise": 0.3, "pairwise": 0.1, "adversarial": 0.05}
    common = [a for a in list_distillation_overrides(teacher_file) if not a.startswith("hydra.")]
    option = f"shares={{{', '.join(f'{name}: {share}' for name, share in requested.items())}}}"
    first = command("calibrate", *common, option, "batches=1")
    assert first.code == 0, first.err
    assert not [*tmp_path.iterdir()]
    proposed = first.out.splitlines()[-1].split(" ")
    assert [override.split("=")[0] for override in proposed] == [
        "loss.pixelwise.weight", "loss.pairwise.weight", "adversary.weight",
    ]  # fmt: skip
    second = command("calibrate", *common, option, "batches=1", *proposed)
    shares = parse_shares(second.out)
    assert {name: shares[name] for name in requested} == pytest.approx(requested, rel=0.02)
    assert shares["cross_entropy"] == pytest.approx(0.55, rel=0.02)
    assert parse_shares(first.out)["pairwise"] != pytest.approx(0.1, rel=0.02)  # of the initial weights
    table_only = command("calibrate", *common, "batches=1", *proposed)
    assert parse_shares(table_only.out) == shares
    assert "weight=" not in table_only.out
    # Training has the same shares on its first batch, where only the discriminator has taken a step.
    trained = command(
        "train", *common, *proposed, "trainer.log_gradient_shares_every=1", "trainer.max_epochs=1", "trainer.limit_train_batches=1",
        "output_dir=run",
    )  # fmt: skip
    assert trained.code == 0, trained.err
    row = read_metrics(Path("run"))[0]
    cross_entropy = float(row["share/cross_entropy"])
    for name in ("pixelwise", "pairwise"):
        assert float(row[f"share/{name}"]) / cross_entropy == pytest.approx(requested[name] / 0.55, rel=0.02)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("shares={local: 0.3}", "shares names local, which is not selected; the terms are cross_entropy, pixelwise"),
        ("shares={pixelwise: 0}", "shares.pixelwise must be greater than 0"),
        ("shares={pixelwise: 1}", "shares.pixelwise must be less than 1"),
        ("shares={pixelwise: 0.6, pairwise: 0.4}", "shares: they sum to 1, which leaves nothing to the label losses"),
        ("shares={cross_entropy: 0.6}", "cross_entropy keeps its weight and gets the remaining share"),
        ("batches=0", "batches must be greater than 0"),
        ("resume=last.ckpt", "resume=last.ckpt: it takes null"),
        ("loss.local.weight=3", "'loss.local.weight'"),
    ],
)
def test_mistakes_are_refused(command: Command, teacher_file: Path, override: str, message: str) -> None:
    code, out, err = command("calibrate", *list_distillation_overrides(teacher_file), override)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
