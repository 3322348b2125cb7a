"""Load runs that can be compared: scored on the same data, split and protocol."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from segkd.errors import UserError
from segkd.runs.methods import group_by_method
from segkd.runs.run import Run, Score, find_runs


def load_comparable_runs(patterns: Sequence[str]) -> tuple[list[Run], list[str]]:
    """Return the scored runs that match, and sentences on what is left out or not known.

    The scores are those of the evaluations, if all runs have one of the same data, split and protocol, or else those of the
    last validations.

    Raises:
        UserError: if there is none; if they were scored on different data, splits or protocols; or if a method has two
            runs with one seed.
    """
    runs, other_paths = find_runs(patterns)
    notes = [f"{path} holds no run; left out" for path in other_paths]
    notes += [
        f"{run.directory} {'was never scored' if run.summary else 'did not finish'}; left out"
        for run in runs
        if run.score is None
    ]
    scored = [run for run in runs if run.score is not None]
    if not scored:
        raise UserError("none of these runs has finished; continue one with resume=DIR/last.ckpt")
    compared = _choose_scores(scored)
    _check_same_protocol(compared)
    check_same_data(compared)
    if any(run.evaluation != other.evaluation for run, other in zip(scored, compared, strict=True)):
        notes.append(_explain_validation(scored))
    notes += _explain_unknown_data(compared)
    _check_one_run_per_seed(compared)
    return compared, notes


def check_same_data(runs: Sequence[Run]) -> None:
    """Check that runs were scored on the same classes and files, as far as they are known.

    Raises:
        UserError: they were not.
    """
    if difference := _find_other_data(runs):
        raise UserError(
            f"scores of different data cannot be compared: {difference}; "
            "compare the runs of each by themselves, or score all on one with segkd.evaluate dataset.root=DIR"
        )


def _check_same_protocol(runs: Sequence[Run]) -> None:
    examples = {run.score.measured_on: run for run in runs if run.score is not None}
    if len(examples) == 1:
        return
    shared = set.intersection(*(set(measured_on.split("; ")) for measured_on in examples))
    differences = []
    for measured_on, run in examples.items():
        own = [part for part in measured_on.split("; ") if part not in shared]
        differences.append(f"{run.directory} on {', '.join(own) or 'nothing more'}")
    raise UserError(
        f"scores of different data, splits or protocols cannot be compared: {'; '.join(differences)}; "
        "score all alike with segkd.evaluate"
    )


def _choose_scores(runs: list[Run]) -> list[Run]:
    """Return the runs with their evaluations, if these are of the same, and else with their last validations, if they have them."""
    is_same = len({run.score.measured_on for run in runs if run.score is not None}) == 1 and not _find_other_data(runs)
    by_validation = [run.score_by_validation() for run in runs]
    return runs if is_same or any(run.score is None for run in by_validation) else by_validation


def _explain_validation(runs: Sequence[Run]) -> str:
    without = sum(run.evaluation is None for run in runs)
    reason = (
        f"{without} of {len(runs)} runs have no evaluation.json"
        if without
        else "their evaluations are of different data"
    )
    return f"{reason}, so all are compared by their last validation; segkd.evaluate scores them alike"


def _find_other_data(runs: Sequence[Run]) -> str:
    """Return how the scored data of two runs differ, as far as they are known; empty if they do not."""
    for part, name, count in (("class_table", "class tables", "classes"), ("contents", "files", "images")):
        known = {data[part]: run for run in runs if (data := _get_data(run.score)).get(part) is not None}
        if len(known) > 1:
            one, other, *_ = known.values()
            counts = [_get_data(run.score)[count] for run in (one, other)]
            sizes = (
                f"both have {counts[0]} {count}" if counts[0] == counts[1] else f"{counts[0]} and {counts[1]} {count}"
            )
            scored_on = "" if one.score is None else one.score.measured_on.split(",")[0]
            return f"the {name} of {scored_on} differ between {one.directory} and {other.directory} ({sizes})"
    return ""


def _explain_unknown_data(runs: Sequence[Run]) -> list[str]:
    """Say where a dataset is known by its name alone, and may be another."""
    unknown = [run for run in runs if not _get_data(run.score)]
    roots = {run.config.get("dataset", {}).get("root") for run in runs}
    if not unknown or (len(unknown) == len(runs) and len(roots) == 1):
        return []
    return [
        f"{len(unknown)} of {len(runs)} runs, such as {unknown[0].directory}, are of an earlier version, which recorded the name "
        "of the dataset and not its contents; they are taken to have the same"
    ]


def _get_data(score: Score | None) -> dict[str, Any]:
    return {} if score is None else score.data


def _check_one_run_per_seed(runs: Sequence[Run]) -> None:
    for name, method_runs in group_by_method(runs).items():
        for seed, count in Counter(run.seed for run in method_runs).items():
            if count > 1:
                folders = " and ".join(str(run.directory) for run in method_runs if run.seed == seed)
                raise UserError(f"'{name}' is there {count} times with seed {seed}: {folders}; leave all but one out")
