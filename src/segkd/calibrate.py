"""`python -m segkd.calibrate`: the weights at which each term starts with a wanted share of the student's gradient."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from statistics import fmean
from typing import Annotated, NamedTuple

import torch
from omegaconf import DictConfig
from pydantic import (
    AfterValidator,
    Field,
    PositiveInt,
)
from rich.console import Console
from rich.table import Column, Table

from segkd.build.datamodule import build_datamodule
from segkd.build.distiller import build_distiller
from segkd.cli.launch import launch
from segkd.config.overrides import apply_overrides
from segkd.config.schema import TrainSettings, load_settings
from segkd.data.datamodule import SegmentationDataModule
from segkd.distillation.distiller import Distiller
from segkd.distillation.gradient_shares import compute_gradient_norms, compute_gradient_shares
from segkd.distillation.phases import Phase
from segkd.errors import UserError
from segkd.types import Batch
from segkd.utils.devices import resolve_device


class Term(NamedTuple):
    """A term of the student's objective."""

    value: float
    """Of the raw term."""
    norm: float
    """Of the raw term's gradient with respect to the student's parameters."""
    weight: float


def calibrate(cfg: DictConfig) -> None:
    """Print a table of the terms and, as the last line of stdout, the overrides that give the wanted shares.

    Where no share is wanted there is the table alone.
    """
    apply_overrides(cfg)
    settings = load_settings(cfg, CalibrateSettings)
    data = build_datamodule(settings)
    distiller, found = build_distiller(settings, data)
    print(*found, sep="\n", end="\n" * bool(found), file=sys.stderr)
    wanted = settings.shares or {}
    known = _learner(distiller).weights()
    if strangers := sorted(wanted.keys() - known.keys()):
        raise UserError(
            f"shares names {', '.join(strangers)}, which is not selected; the terms are {', '.join(known)} "
            "(loss=[...] and adversary=holistic select them)"
        )
    half = settings.trainer.precision == "bf16-mixed"
    terms = measure_terms(distiller, data, settings.batches, resolve_device(settings.trainer.accelerator), half)
    proposed = propose_weights(terms, wanted)
    Console().print(_table(terms, wanted, proposed))
    if proposed:
        print(*(f"{_key(name)}={weight:.6g}" for name, weight in proposed.items()))


def measure_terms(
    distiller: Distiller, data: SegmentationDataModule, batches: int, device: torch.device, half: bool = False
) -> dict[str, Term]:
    """Raw values and gradient norms, means over the first batches; nothing is trained, and the critic is as it starts.

    One process takes the whole batch. An epoch of fewer batches is all that is looked at.

    Args:
        half: compute in bfloat16 where training would.
    """
    distiller.to(device).train()
    if distiller.teacher is not None:
        distiller.teacher.to(device)
    phase = _learner(distiller)
    weights = phase.weights()
    seen: list[dict[str, Term]] = []
    for batch in itertools.islice(data.train_dataloader(), batches):
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            _, terms = phase.objective(distiller.forward_networks(Batch(*(tensor.to(device) for tensor in batch))))
        norms = compute_gradient_norms(terms, distiller.student.parameters())
        seen.append({name: Term(terms[name].item(), norms[name].item(), weights[name]) for name in terms})
    return {name: Term(*(fmean(numbers) for numbers in zip(*(s[name] for s in seen), strict=True))) for name in weights}


def propose_weights(terms: Mapping[str, Term], wanted: Mapping[str, float]) -> dict[str, float]:
    """The weights at which the named terms have the wanted shares, while the others keep theirs.

        w_i = s_i / n_i · R / (1 − S),   R = Σ over the others of w_j n_j,   S = Σ s_i

    with n the gradient norms: the others' pull R is then 1 − S of the whole.

    Args:
        wanted: s by name, each in (0, 1), less than 1 together.

    Raises:
        UserError: a named term has no gradient, or the others have none.
    """
    for name in wanted:
        if not terms[name].norm > 0:
            raise UserError(
                f"'{name}' has no gradient for the student (norm {terms[name].norm:.4g}), so no weight gives it a share; "
                "leave it out of shares, let it set in at once (since=0), or let it see more with batches=N"
            )
    rest = sum(term.weight * term.norm for name, term in terms.items() if name not in wanted)
    if wanted and not rest > 0:
        raise UserError(
            "shares leaves nothing that could take the rest; select a loss of the labels, with a weight above 0, or name fewer terms"
        )
    whole = rest / (1 - sum(wanted.values()))
    return {name: share * whole / terms[name].norm for name, share in wanted.items()}


def _learner(distiller: Distiller) -> Phase:
    """The student's phase, whichever comes first."""
    return next(phase for phase in distiller.phases if phase.name == "student")


def _table(terms: Mapping[str, Term], wanted: Mapping[str, float], proposed: Mapping[str, float]) -> Table:
    norms, weights = ({name: getattr(term, key) for name, term in terms.items()} for key in ("norm", "weight"))
    now = compute_gradient_shares({name: torch.tensor(norm) for name, norm in norms.items()}, weights)
    titles = ("raw value", "norm", "weight", "share", "wanted", "proposed")
    table = Table(
        Column("term", no_wrap=True),
        *(Column(title, justify="right", no_wrap=True) for title in titles),
        caption="norm: of the raw term's gradient for the student; share: of weight × norm",
    )
    for name, term in terms.items():
        numbers = [term.value, term.norm, term.weight, now[name].item()]
        if name in wanted:
            numbers += [wanted[name], proposed[name]]
        table.add_row(name, *(f"{number:.4g}" for number in numbers))
    return table


def _key(name: str) -> str:
    return "adversary.weight" if name == "holistic" else f"loss.{name}.weight"


class CalibrateSettings(TrainSettings):
    """`python -m segkd.calibrate`."""

    resume: None  # it looks at the student's first weights, or at those of student.checkpoint
    shares: (
        Annotated[dict[str, Annotated[float, Field(gt=0, lt=1)]], AfterValidator(lambda s: _check_shares_sum(s))] | None
    )
    batches: PositiveInt


def _check_shares_sum(shares: dict[str, float]) -> dict[str, float]:
    if "cross_entropy" in shares:
        raise ValueError("cross_entropy keeps its weight and takes the rest; leave it out")
    if (total := sum(shares.values())) >= 1:
        raise ValueError(
            f"they sum to {total:.4g} and leave nothing to the labels' losses; they must sum to less than 1"
        )
    return shares


if __name__ == "__main__":
    launch("calibrate")
