"""Score finished trainings into records, and build the study's table from them."""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from segkd.cli.quoting import format_override
from segkd.errors import UserError
from segkd.models.base import count_parameters
from segkd.models.student_io import load_student
from segkd.report.comparison import TITLES, build_summary_table, compare_methods
from segkd.runs.comparable import check_same_data
from segkd.runs.layout import EVALUATION_FILE
from segkd.runs.run import Run, read_run
from segkd.study.plan import STUDENT_FILE, Job, is_finished
from segkd.utils.files import atomic_write, sha256, write_json
from segkd.utils.tables import Rows, to_markdown

log = logging.getLogger(__name__)

PARAMETERS = "parameters"
"""A column that is shown only on request."""

_UNHASHED_KEYS = ("output_dir", "resume", "logger", "wandb", "checkpoint")  # they do not change what is trained


def score_jobs(jobs: Sequence[Job], dataset: Sequence[str], split: str, results: Path) -> None:
    """Score every finished training that has no record yet.

    A student is scored once. If its weights have changed since, the record is not overwritten.

    Args:
        jobs: trainings of the study.
        dataset: overrides of `segkd.evaluate` that choose the dataset.
        split: of the dataset.
        results: folder of the records.

    Raises:
        UserError: if a record belongs to other weights.
    """
    results.mkdir(parents=True, exist_ok=True)
    for job in jobs:
        if not is_finished(job.directory):
            continue
        record, weights = results / f"{job.method}_{job.seed}.json", job.directory / STUDENT_FILE
        if record.is_file():
            if json.loads(record.read_bytes())["weights_sha256"] != sha256(weights):
                raise UserError(
                    f"{record} belongs to other weights than {weights}; to score again, delete the record and note why"
                )
            continue
        log.info("scoring %s", job.name)
        with atomic_write(record, "results") as part:
            write_json(part, _build_record(job, dataset, split))


def _build_record(job: Job, dataset: Sequence[str], split: str) -> dict[str, Any]:
    run = read_run(job.directory)
    recipe = {key: value for key, value in run.config.items() if key not in _UNHASHED_KEYS}
    evaluation = _evaluate(job, dataset, split, "metrics=[iou,per_sequence]")
    with_void = _evaluate(job, dataset, split, "void=counted")
    evaluation["void_counted"] = {key: with_void[key] for key in ("miou", "class_accuracy")}
    return {
        "method": job.method,
        "seed": job.seed,
        "config_sha256": hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest(),
        "weights_sha256": sha256(job.directory / STUDENT_FILE),
        "parameters": count_parameters(load_student(job.directory)),
        "teacher_seconds": run.teacher_seconds,
        "summary": run.summary,
        "environment": run.environment,
        "config": run.config,
        "evaluation": evaluation,
    }


def _evaluate(job: Job, dataset: Sequence[str], split: str, *overrides: str) -> dict[str, Any]:
    """Run `segkd.evaluate` on a student, and return its `evaluation.json`."""
    with TemporaryDirectory() as folder:
        paths = (format_override("run", job.directory), format_override("output_dir", folder))
        arguments = [*paths, *dataset, f"split={split}", *overrides]
        command = [sys.executable, "-m", "segkd.evaluate", *arguments]
        result = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        if result.returncode:
            raise SystemExit(result.returncode)  # the command has printed the error
        evaluation: dict[str, Any] = json.loads((Path(folder) / EVALUATION_FILE).read_bytes())
    return evaluation


def build_table(results: Path, order: Sequence[str], columns: Sequence[str] | None = None) -> Rows:
    """Return the study's table: scores over seeds, by sequence and with void, gains over the baseline, and costs.

    Args:
        results: folder of the records.
        order: names of methods; others follow in alphabetical order.
        columns: titles; None shows all but `parameters`.

    Returns:
        Rows, the titles first; none if there are no records.

    Raises:
        UserError: if a column does not exist, or records are of different data.
    """
    by_method: dict[str, list[Path]] = {}
    for file in sorted(results.glob("*.json")):
        by_method.setdefault(file.stem.rpartition("_")[0], []).append(file)
    names = [name for name in (*order, *sorted(by_method.keys() - set(order))) if name in by_method]
    if not names:
        return []
    runs = {name: [read_run(file) for file in by_method[name]] for name in names}
    check_same_data([run for method_runs in runs.values() for run in method_runs])
    table = _build_columns(runs)
    table[PARAMETERS] = [_read_parameters(by_method[name][0]) for name in names]
    if columns is None:
        columns = [title for title in table if title != PARAMETERS]
    if unknown := [title for title in columns if title not in table]:
        raise UserError(f"the table has no column '{unknown[0]}'; its columns are {', '.join(table)}")
    return [list(columns), *(list(row) for row in zip(*(table[title] for title in columns), strict=True))]


def _build_columns(methods: Mapping[str, Sequence[Run]]) -> dict[str, list[str]]:
    """Return title → cells of each method; sequences and void follow the mIoU."""
    _, *rows = build_summary_table(compare_methods(methods))
    summary = {title: list(cells) for title, cells in zip(TITLES, zip(*rows, strict=True), strict=True)}
    sequences = sorted({name for runs in methods.values() for run in runs for name in _get_sequences(run)})
    scores = {
        name: [_format_mean([_get_sequences(run).get(name) for run in runs]) for runs in methods.values()]
        for name in sequences
    }
    scores["void counted"] = [
        _format_mean([(run.evaluation or {})["void_counted"]["miou"] for run in runs]) for runs in methods.values()
    ]
    before = {title: summary.pop(title) for title in TITLES[:3]}
    return {**before, **scores, **summary}


def _get_sequences(run: Run) -> dict[str, float | None]:
    sequences = (run.evaluation or {}).get("per_sequence", {})
    return {name: scores["miou"] for name, scores in sequences.items()}


def _read_parameters(record: Path) -> str:
    count = json.loads(record.read_bytes()).get("parameters")  # records of earlier versions lack it
    return "" if count is None else f"{count:,}"


def _format_mean(values: Sequence[float | None]) -> str:
    present = [value for value in values if value is not None]
    return f"{100 * fmean(present):.2f}" if present else ""


def update_markdown_table(page: Path, name: str, rows: Rows, placeholder: str) -> None:
    """Replace what is between the study's marks on a Markdown page by the table.

    Args:
        page: holds the lines `<!-- study NAME -->` and `<!-- study end -->`.
        name: of the study.
        rows: of the table.
        placeholder: text in place of a table without rows.

    Raises:
        UserError: if the page does not exist, or has no marks.
    """
    begin, end = f"<!-- study {name} -->\n", "<!-- study end -->\n"
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise UserError(
            f"{page} has no place for the table; add the lines {begin.strip()} and {end.strip()} where it should stand"
        )
    page.write_text(f"{before}{begin}\n{to_markdown(rows) if rows else placeholder}\n\n{end}{after}", encoding="utf-8")
