"""Scores of finished trainings, each in one file that can be laid beside those of other days and machines; and the table of them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from segkd.errors import UserError
from segkd.report.comparison import compare_methods, summary_table
from segkd.runs.run import Run, read_run
from segkd.study.plan import Job, is_finished
from segkd.utils.files import atomic_write, sha256
from segkd.utils.tables import Rows, to_markdown

_CIRCUMSTANCES = ("output_dir", "resume", "wandb", "checkpoint")


def score_jobs(jobs: Sequence[Job], data: Sequence[str], split: str, results: Path) -> None:
    """Score what has finished and has no record yet.

    A student is scored once: a record stays what it is, unless its weights are others now, which is refused.

    Args:
        data: the overrides that choose the data set.

    Raises:
        UserError: a record is of other weights.
    """
    results.mkdir(parents=True, exist_ok=True)
    for job in jobs:
        if not is_finished(job.directory):
            continue
        record, weights = results / f"{job.row}_{job.seed}.json", job.directory / "student.safetensors"
        if record.is_file():
            if json.loads(record.read_text())["weights_sha256"] != sha256(weights):
                raise UserError(
                    f"{record} is of other weights than {weights}; to score a recipe anew, take the record away and say why"
                )
            continue
        print(f"segkd: scoring {job.name}", file=sys.stderr, flush=True)
        with atomic_write(record, "results") as part:
            part.write_text(json.dumps(_record(job, data, split), indent=1, ensure_ascii=False) + "\n")


def _record(job: Job, data: Sequence[str], split: str) -> dict[str, Any]:
    run = read_run(job.directory)
    recipe = {key: value for key, value in run.config.items() if key not in _CIRCUMSTANCES}
    evaluation = _evaluate(job, data, split, "scores=[iou,sequences]")
    counted = _evaluate(job, data, split, "void=counted")
    evaluation["void_counted"] = {key: counted[key] for key in ("miou", "class_accuracy")}
    return {
        "row": job.row,
        "seed": job.seed,
        "config_sha256": hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest(),
        "weights_sha256": sha256(job.directory / "student.safetensors"),
        "teacher_seconds": run.teacher_seconds,
        "summary": run.summary,
        "environment": run.environment,
        "config": run.config,
        "evaluation": evaluation,
    }


def _evaluate(job: Job, data: Sequence[str], split: str, *more: str) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        typed = [f"run={job.directory}", *data, f"split={split}", *more, f"output_dir={folder}"]
        done = subprocess.run([sys.executable, "-m", "segkd.evaluate", *typed], stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise SystemExit(done.returncode)  # it has said why
        facts: dict[str, Any] = json.loads((Path(folder) / "evaluation.json").read_text())
    return facts


def build_table(results: Path, order: Sequence[str]) -> Rows:
    """Rows in the plan's order: mIoU over seeds, by sequence, with void counted, gains over the student alone, costs; or nothing."""
    named: dict[str, list[Run]] = {}
    for file in sorted(results.glob("*.json")):
        named.setdefault(file.stem.rpartition("_")[0], []).append(read_run(file))
    ordered = {name: named[name] for name in (*order, *sorted(named.keys() - set(order))) if name in named}
    if not ordered:
        return []
    titles, *lines = summary_table(compare_methods(ordered))
    sequences = sorted({name for runs in ordered.values() for run in runs for name in _sequences(run)})
    cells = [[*titles[:3], *sequences, "void counted", *titles[3:]]]
    for line, runs in zip(lines, ordered.values(), strict=True):
        by_sequence = [_mean([_sequences(run).get(name) for run in runs]) for name in sequences]
        cells.append(
            [
                *line[:3],
                *by_sequence,
                _mean([(run.evaluation or {})["void_counted"]["miou"] for run in runs]),
                *line[3:],
            ]
        )
    return cells


def _sequences(run: Run) -> Mapping[str, float | None]:
    found = (run.evaluation or {}).get("sequences", {})
    return {name: facts["miou"] for name, facts in found.items()}


def _mean(values: Sequence[float | None]) -> str:
    there = [value for value in values if value is not None]
    return f"{100 * fmean(there):.2f}" if there else ""


def update_markdown_table(page: Path, name: str, cells: Rows, nothing: str) -> None:
    """Put the table between the page's marks, in place of what is there.

    Raises:
        UserError: there is no such page, or it has no marks.
    """
    begin, end = f"<!-- ladder {name} -->\n", "<!-- ladder end -->\n"
    text = page.read_text() if page.is_file() else ""
    before, there, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not there or not closed:
        raise UserError(
            f"{page} has no place for the table; put the lines {begin.strip()} and {end.strip()} where it should stand"
        )
    page.write_text(f"{before}{begin}\n{to_markdown(cells) if cells else nothing}\n\n{end}{after}")
