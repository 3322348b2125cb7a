"""`python -m segkd.calibrate`: find the weights at which each term starts with a given share of the student's gradient."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from statistics import fmean
from typing import Annotated, NamedTuple

import torch
from omegaconf import DictConfig
from pydantic import AfterValidator, Field, PositiveInt

from segkd.builders.datamodule import build_datamodule
from segkd.builders.distiller import build_distiller
from segkd.cli.launch import launch
from segkd.config.overrides import apply_overrides
from segkd.config.schema import load_settings
from segkd.config.training import TrainSettings
from segkd.data.datamodule import SegmentationDataModule
from segkd.distillation.distiller import Distiller
from segkd.distillation.gradient_shares import compute_gradient_norms, compute_gradient_shares
from segkd.distillation.phases import Phase
from segkd.errors import UserError
from segkd.types import Batch
from segkd.utils.devices import resolve_device
from segkd.utils.tables import Rows, print_table


def _check_shares(shares: dict[str, float]) -> dict[str, float]:
    if "holistic" in shares:
        raise ValueError("the term 'holistic' is now 'adversarial'")
    if "cross_entropy" in shares:
        raise ValueError("cross_entropy keeps its weight and gets the remaining share; leave it out")
    if (total := sum(shares.values())) >= 1:
        raise ValueError(
            f"they sum to {total:.4g}, which leaves nothing to the label losses; they must sum to less than 1"
        )
    return shares


_Share = Annotated[float, Field(gt=0, lt=1)]


class CalibrateSettings(TrainSettings):
    """Settings of `python -m segkd.calibrate`."""

    resume: None = Field(
        description="not used: terms are measured at the initial weights, or at those of student.checkpoint",
        json_schema_extra={"help": False},
    )
    shares: Annotated[dict[str, _Share], AfterValidator(_check_shares)] | None = Field(
        description="target share of the student's gradient per term; the other terms keep their weights. null: only measure",
        json_schema_extra={"values": "{NAME: X, …}|null"},
    )
    batches: PositiveInt = Field(description="batches to average over, from the start of an epoch")


class Term(NamedTuple):
    """A term of the student's objective."""

    value: float
    """Raw, without the weight."""
    norm: float
    """Of the raw term's gradient with respect to the student's parameters."""
    weight: float


def calibrate(cfg: DictConfig) -> None:
    """Print a table of the terms and, as the last line of stdout, the overrides that give the requested shares.

    Without requested shares the table alone is printed.
    """
    apply_overrides(cfg)
    settings = load_settings(cfg, CalibrateSettings)
    datamodule = build_datamodule(settings)
    distiller = build_distiller(settings, datamodule)
    shares = settings.shares or {}
    terms = _find_student_phase(distiller).get_weights()
    if unknown := sorted(shares.keys() - terms.keys()):
        raise UserError(
            f"shares names {', '.join(unknown)}, which is not selected; the terms are {', '.join(terms)} "
            "(loss=[...] and adversary=holistic select them)"
        )
    device = resolve_device(settings.trainer.accelerator, key="trainer.accelerator")
    use_bfloat16 = settings.trainer.precision == "bf16-mixed"
    measured = measure_terms(distiller, datamodule, settings.batches, device, use_bfloat16)
    weights = propose_weights(measured, shares)
    print_table(_build_table(measured, shares, weights), "table")
    print("norm: of the raw term's gradient for the student; share: of weight × norm")
    if weights:
        print(*(f"{_name_weight_key(name)}={weight:.6g}" for name, weight in weights.items()))


def measure_terms(
    distiller: Distiller,
    datamodule: SegmentationDataModule,
    batches: int,
    device: torch.device,
    use_bfloat16: bool = False,
) -> dict[str, Term]:
    """Measure raw values and gradient norms, as means over the first batches of an epoch.

    Nothing is trained, and the discriminator has its initial weights. One process computes the whole batch.

    Args:
        distiller: with the student and its losses.
        datamodule: serves the training batches.
        batches: number of batches; an epoch with fewer batches is used up.
        device: device to compute on.
        use_bfloat16: compute in bfloat16 where training would.
    """
    distiller.to(device).train()
    if distiller.teacher is not None:
        distiller.teacher.to(device)
    phase = _find_student_phase(distiller)
    weights = phase.get_weights()
    samples: list[dict[str, Term]] = []
    for batch in itertools.islice(datamodule.train_dataloader(), batches):
        with torch.autocast(device.type, torch.bfloat16, enabled=use_bfloat16):
            _, terms = phase.objective(distiller.forward_networks(Batch(*(tensor.to(device) for tensor in batch))))
        norms = compute_gradient_norms(terms, distiller.student.parameters())
        samples.append({name: Term(terms[name].item(), norms[name].item(), weights[name]) for name in terms})
    return {
        name: Term(*(fmean(values) for values in zip(*(sample[name] for sample in samples), strict=True)))
        for name in weights
    }


def propose_weights(terms: Mapping[str, Term], shares: Mapping[str, float]) -> dict[str, float]:
    """Return the weights at which the named terms have the given shares; the other terms keep their weights.

        w_i = s_i / n_i · R / (1 − S),   R = Σ over the others of w_j n_j,   S = Σ s_i

    Here n are the gradient norms, so that the others keep the share 1 − S.

    Args:
        terms: all terms of the objective.
        shares: name → s, each in (0, 1), with a sum below 1.

    Raises:
        UserError: if a named term has no gradient, or all other terms have none.
    """
    for name in shares:
        if not terms[name].norm > 0:
            raise UserError(
                f"'{name}' has no gradient for the student (norm {terms[name].norm:.4g}), so no weight gives it a share; "
                "leave it out of shares, start it at once (start_at=0), or measure more batches (batches=N)"
            )
    rest = sum(term.weight * term.norm for name, term in terms.items() if name not in shares)
    if shares and not rest > 0:
        raise UserError(
            "shares leaves no term for the remaining share; select a label loss with a weight above 0, or name fewer terms"
        )
    total = rest / (1 - sum(shares.values()))
    return {name: share * total / terms[name].norm for name, share in shares.items()}


def _find_student_phase(distiller: Distiller) -> Phase:
    return next(phase for phase in distiller.phases if phase.name == "student")


def _build_table(terms: Mapping[str, Term], shares: Mapping[str, float], proposed: Mapping[str, float]) -> Rows:
    norms = {name: torch.tensor(term.norm) for name, term in terms.items()}
    current = compute_gradient_shares(norms, {name: term.weight for name, term in terms.items()})
    rows = [["term", "raw value", "norm", "weight", "share", "target", "proposed"]]
    for name, term in terms.items():
        numbers = [f"{number:.4g}" for number in (term.value, term.norm, term.weight, current[name].item())]
        targets = [f"{shares[name]:.4g}", f"{proposed[name]:.4g}"] if name in shares else ["", ""]
        rows.append([name, *numbers, *targets])
    return rows


def _name_weight_key(term: str) -> str:
    return "adversary.weight" if term == "adversarial" else f"loss.{term}.weight"


if __name__ == "__main__":
    launch("calibrate")
