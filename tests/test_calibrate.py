"""`python -m segkd.calibrate`: by hand on a student of two numbers, end to end, and its complaints."""

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
from tests.train.test_train import curves, distilled

CPU = torch.device("cpu")


class Two(SegmentationModel):
    """Its scores are its two parameters, whatever the image."""

    def __init__(self) -> None:
        super().__init__(2, Normalization((0, 0, 0), (1, 1, 1)), {"scores": FeatureInfo(2, 1)})
        self.numbers = nn.Parameter(torch.tensor([10.0, 100.0]))

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        scores = self.numbers.view(1, 2, 1, 1).expand(len(images), -1, 1, 1)
        return scores, {"scores": scores}


class Pull(Loss):
    """turn · (u · first + v · second), so its gradient is turn · (u, v); the turn is always 1, or it counts."""

    def __init__(self, u: float, v: float, weight: float, counts: bool = False) -> None:
        super().__init__(weight)
        self.pull, self.counts, self.turn = torch.tensor([u, v]), counts, 0

    def forward(self, step: Step) -> Tensor:
        self.turn = self.turn + 1 if self.counts else 1
        return self.turn * (step.student.logits.mean((0, 2, 3)) * self.pull).sum()


def test_norms_and_weights_by_hand() -> None:
    """Norms 5, 2 (turns 1 to 3 of 1) and 1 at weights 1, 5 and 3; the second is wanted at 0.2, the rest keep 5 + 3 = 0.8 · 10."""
    pulls = {"cross_entropy": Pull(3, 4, 1), "counting": Pull(0, 1, 5, counts=True), "kept": Pull(1, 0, 3)}
    module = Distiller(Two(), None, LossSum(pulls), None, {}, lambda _: 1.0, 1, Streets.classes)
    data = SegmentationDataModule(Streets("train", 8), Streets("val", 8), Augmentation((32, 32), fill=Streets.mean), 2)
    terms = measure_terms(module, data, 3, CPU)
    assert terms == {
        "cross_entropy": Term(30 + 400, 5, 1), "counting": Term(200, 2, 5), "kept": Term(10, 1, 3),
    }  # fmt: skip
    assert module.student.numbers.tolist() == [10, 100]
    assert module.student.numbers.grad is None
    assert propose_weights(terms, {"counting": 0.2}) == pytest.approx({"counting": 0.2 * 10 / 2})
    assert propose_weights(terms, {"counting": 0.2, "kept": 0.3}) == pytest.approx({"counting": 1.0, "kept": 3.0})
    assert propose_weights(terms, {}) == {}


@pytest.mark.parametrize(
    ("norms", "wanted", "said"),
    [
        ((1, 0), {"pairwise": 0.3}, "'pairwise' has no gradient for the student"),
        ((1, float("nan")), {"pairwise": 0.3}, "'pairwise' has no gradient for the student"),
        ((0, 1), {"pairwise": 0.3}, "nothing that could take the rest"),
    ],
)
def test_what_has_no_gradient_gets_no_share(norms: tuple[float, float], wanted: dict[str, float], said: str) -> None:
    terms = {name: Term(1, norm, 1) for name, norm in zip(("cross_entropy", "pairwise"), norms, strict=True)}
    with pytest.raises(UserError, match=said):
        propose_weights(terms, wanted)


def found(out: str) -> dict[str, float]:
    """The shares that a table has."""
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines() if line.startswith("│")]
    return {row[0]: float(row[4]) for row in rows}


def test_the_proposed_weights_give_the_wanted_shares(
    command: Command, teacher_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = {"pixelwise": 0.3, "pairwise": 0.1, "holistic": 0.05}
    typed = [a for a in distilled(teacher_file) if not a.startswith("hydra.")]
    asked = f"shares={{{', '.join(f'{name}: {share}' for name, share in wanted.items())}}}"
    first = command("calibrate", *typed, asked, "batches=1")
    assert first.code == 0, first.err
    assert not [*tmp_path.iterdir()]
    proposed = first.out.splitlines()[-1].split(" ")
    assert [override.split("=")[0] for override in proposed] == [
        "loss.pixelwise.weight", "loss.pairwise.weight", "adversary.weight",
    ]  # fmt: skip
    second = command("calibrate", *typed, asked, "batches=1", *proposed)
    shares = found(second.out)
    assert {name: shares[name] for name in wanted} == pytest.approx(wanted, rel=0.02)
    assert shares["cross_entropy"] == pytest.approx(0.55, rel=0.02)
    assert found(first.out)["pairwise"] != pytest.approx(0.1, rel=0.02)  # the first weights gave another
    only = command("calibrate", *typed, "batches=1", *proposed)
    assert found(only.out) == shares
    assert "weight=" not in only.out
    # And so they are in training, on its first batch, where the critic alone has taken its first step.
    trained = command(
        "train", *typed, *proposed, "trainer.log_gradient_shares_every=1", "trainer.max_epochs=1", "trainer.limit_train_batches=1",
        "output_dir=run",
    )  # fmt: skip
    assert trained.code == 0, trained.err
    row = curves(Path("run"))[0]
    labels = float(row["share/cross_entropy"])
    for name in ("pixelwise", "pairwise"):
        assert float(row[f"share/{name}"]) / labels == pytest.approx(wanted[name] / 0.55, rel=0.02)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("shares={local: 0.3}", "shares names local, which is not selected; the terms are cross_entropy, pixelwise"),
        ("shares={pixelwise: 0}", "shares.pixelwise: input should be greater than 0"),
        ("shares={pixelwise: 1}", "shares.pixelwise: input should be less than 1"),
        ("shares={pixelwise: 0.6, pairwise: 0.4}", "shares: they sum to 1 and leave nothing to the labels' losses"),
        ("shares={cross_entropy: 0.6}", "cross_entropy keeps its weight and takes the rest"),
        ("batches=0", "batches: input should be greater than 0"),
        ("resume=last.ckpt", "resume: input should be None"),
        ("loss.local.weight=3", "'loss.local.weight' speaks of a loss that is not selected"),
    ],
)
def test_mistakes_end_with_a_sentence(command: Command, teacher_file: Path, typed: str, said: str) -> None:
    code, out, err = command("calibrate", *distilled(teacher_file), typed)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
