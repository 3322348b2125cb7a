"""Group runs by method, and find their baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segkd.config.keys import flatten
from segkd.runs.run import Run

BASELINE = "student alone"


# What says nothing of the method: which copy of it a run is, where it is written to, how one looks on.
IGNORED_KEYS = (
    "seed", "name", "output_dir", "resume", "check_teacher", "dry_run", "wandb", "checkpoint", "data.workers",
    "trainer.progress", "trainer.log_every", "trainer.log_gradient_shares_every", "trainer.validate_every", "dataset.root",
)  # fmt: skip


_BY_LABELS = "labels"  # what is learnt from them; a key of no config


_DIGITS = 3  # of a number in a method's name, where that is enough


_LENGTH = ("trainer.max_epochs", "trainer.limit_train_batches")


def group_by_method(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs that differ in nothing but their seed, by what tells them from the others; the student alone first.

    The name of a method is its terms, and what else differs between these runs.
    """
    asked = [method_keys(run) for run in runs]
    values: dict[str, list[Any]] = {}
    for key, value in (pair for keys in asked for pair in keys.items()):
        values.setdefault(key, []).append(value)
    words = {key: told for key, given in values.items() if len({*(told := format_values(given)).values()}) > 1}
    named: dict[str, list[Run]] = {}
    for run, keys in zip(runs, asked, strict=True):
        more = [format_setting(key, words[key][str(keys[key])]) for key in words if key in keys]
        named.setdefault(", ".join([" + ".join(run.terms) or BASELINE, *more]), []).append(run)
    return dict(sorted(named.items(), key=lambda pair: not pair[0].startswith(BASELINE)))


def format_values(values: Sequence[Any]) -> dict[str, str]:
    """Each value of a key as it is printed: null as yaml has it, numbers with no more digits than tell them apart."""
    told = {str(value): "null" if value is None else str(value) for value in values}
    numbers = {str(value): float(value) for value in values if type(value) in (int, float)}
    for digits in range(_DIGITS, 17):
        short = {text: f"{number:.{digits}g}" for text, number in numbers.items()}
        if len({*short.values()}) == len({*numbers.values()}):
            # Of a number with as many digits before its point, as 1024, none is left out.
            return {
                **told,
                **{text: f"{n:.15g}" if abs(n) >= 10**digits else short[text] for text, n in numbers.items()},
            }
    return told


def format_setting(key: str, value: str) -> str:
    """`student=ESPNetC` for `student._target_=segkd.models.espnet.ESPNetC`."""
    if key.endswith("._target_"):
        key, value = key.removesuffix("._target_"), value.rpartition(".")[2]
    return f"{key}={value}"


def find_baselines(runs: Sequence[Run], compared: Mapping[str, Sequence[Run]]) -> list[Sequence[Run]]:
    """The methods among `compared` that are the student of `runs` alone, trained alike for as long or for another time."""
    keys = method_keys(runs[0])
    return [
        others for others in compared.values() if not others[0].terms and is_same_recipe(keys, method_keys(others[0]))
    ]


def is_same_recipe(keys: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    return all(keys[key] == others[key] for key in keys.keys() & others.keys() if key not in _LENGTH)


def method_keys(run: Run) -> dict[str, Any]:
    """The keys of its config that say what method it is; the terms that it leaves out have none."""
    unheard = () if run.terms else ("teacher",)
    idle = () if "adversarial" in run.terms else ("adversary", "optimizers.discriminator")
    left_out = (*IGNORED_KEYS, *unheard, *idle)
    asked = {
        key: value
        for key, value in flatten(run.config)
        if not any(key == out or key.startswith(f"{out}.") for out in left_out)
    }
    return {
        **asked,
        _BY_LABELS: " + ".join(sorted(name for name in run.config["loss"] if name not in run.terms)) or "none",
    }
