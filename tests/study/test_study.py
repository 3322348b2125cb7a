"""`python -m segkd.study`: trainings that continue where they stopped, scored once, and tabulated."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest
import torch
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from segkd.cli.quoting import format_override
from segkd.config.paths import CONFIGS
from segkd.errors import UserError
from segkd.models.checkpoint_io import load_file
from segkd.study.main import EMPTY_TABLE
from segkd.study.plan import MethodSettings, plan_jobs
from segkd.study.results import build_table, update_markdown_table
from tests.helpers.commands import Command, in_own_process, start_process
from tests.helpers.run_folders import write_record

PLANS = sorted((CONFIGS / "plan").glob("*.yaml"))
METHODS = {
    "teacher": MethodSettings(experiment="a", seeds=[0]),
    "baseline": MethodSettings(experiment="b"),
    "distilled": MethodSettings(experiment="c", overrides=["x=1"], teacher_from="teacher"),
    "ensemble": MethodSettings(experiment="d", teacher_from="baseline"),
}
TINY = (
    "plan=streets",
    "seeds=[0,1]",
    "overrides=['trainer.max_epochs=2','trainer.limit_val_batches=1','check_teacher=off','wandb.mode=disabled','dataset.images=8']",
)


@pytest.mark.parametrize(
    "override", ["plugins=[evil]", "+plugins=[evil]", "--experimental-rerun=evil.pickle", "-cd=evil"]
)
def test_overrides_of_a_plan_are_keys(override: str) -> None:
    """A plan is a file, which runs no code; options and plugins would."""
    with pytest.raises(ValueError, match=r"an option|a file cannot name plugins"):
        MethodSettings(experiment="a", overrides=[override])


def test_jobs_have_arguments_and_dependencies() -> None:
    runs = Path("runs")
    jobs = plan_jobs(METHODS, None, [0, 1], runs, ["y=2"])
    names = "teacher/0 baseline/0 baseline/1 distilled/0 distilled/1 ensemble/0 ensemble/1"
    assert [job.name for job in jobs] == names.split()
    distilled, ensemble = jobs[4], jobs[5]
    assert distilled.arguments == (
        "experiment=c", "x=1", "teacher.checkpoint=runs/teacher/0/student.safetensors", "y=2", "seed=1",
        "output_dir=runs/distilled/1", "resume=auto", "trainer.progress=false",
    )  # fmt: skip
    assert distilled.depends_on == (runs / "teacher/0",)
    assert list(ensemble.arguments[1:3]) == [
        f"teacher.members.m{i}.checkpoint=runs/baseline/{i}/student.safetensors" for i in (0, 1)
    ]
    assert ensemble.depends_on == (runs / "baseline/0", runs / "baseline/1")


@pytest.mark.parametrize("text", ["runs/a_1.b", "run [1]", "a b", 'say "x"', "back\\", '\\"', "l'ä{u},=fer", ""])
def test_overrides_take_any_path(text: str) -> None:
    (override,) = OverridesParser.create().parse_overrides([format_override("output_dir", text)])
    assert override.value() == text


def test_selected_methods_include_their_teachers() -> None:
    assert [job.method for job in plan_jobs(METHODS, ["distilled"], [5], Path(), [])] == ["teacher", "distilled"]
    assert [job.method for job in plan_jobs(METHODS, ["ensemble"], [5], Path(), [])] == ["baseline", "ensemble"]
    with pytest.raises(UserError, match="no method 'other'; its methods are teacher, baseline"):
        plan_jobs(METHODS, ["other"], [0], Path(), [])
    with pytest.raises(UserError, match="no method 'other'"):
        plan_jobs({"a": MethodSettings(experiment="a", teacher_from="other")}, None, [0], Path(), [])


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_every_plan_names_experiments_that_exist(
    path: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = yaml.safe_load(path.read_text())
    assert plan["name"] == path.stem
    arguments = ("stages=[table]", "results=records", "picture=null", "dataset.root=DIR")
    result = command("study", f"plan={path.stem}", *arguments)
    assert (result.code, result.out) == (0, "no records in records\n"), result.err
    for name, settings in plan["methods"].items():
        method = MethodSettings(**settings)
        assert (CONFIGS / "experiment" / f"{method.experiment}.yaml").is_file(), name
        assert method.teacher_from is None or method.teacher_from in plan["methods"]


def test_picture_needs_a_finished_training(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("study", "plan=streets", "stages=[table]", "picture=new/a.png")
    assert command(*arguments).out.splitlines()[-1] == "no training has finished, so there is no picture"
    assert not Path("new").exists()
    result = command(*arguments, "dataset.name=nowhere")
    assert result.code == 2
    assert "there is no dataset called 'nowhere'" in result.err


@pytest.mark.slow
@pytest.mark.process
def test_a_stopped_study_continues_to_the_same_weights(tmp_path: Path) -> None:
    """Stop real trainings by the clock and by a signal, finish them, score them once, and compare with uninterrupted ones."""
    arguments = (*TINY, "select=[pixelwise,baseline]", "stages=[train]", "parallel=2")
    stopped = in_own_process("study", *arguments, "minutes=0.1", cwd=tmp_path)
    assert stopped.code == 0, stopped.err
    assert "the same command continues" in stopped.err
    runs = tmp_path / "runs/study/streets"
    running = start_process("study", *arguments, cwd=tmp_path)
    assert running.stderr is not None
    assert any(line.endswith(" starts\n") for line in running.stderr)
    _wait_for(lambda: any(runs.glob("*/*/last.ckpt")))
    # Suspended, so that it is still running when the second one starts.
    running.send_signal(signal.SIGSTOP)
    try:
        second = in_own_process("study", *arguments, cwd=tmp_path)
    finally:
        running.send_signal(signal.SIGTERM)
        running.send_signal(signal.SIGCONT)
        running.communicate(timeout=60)
    assert second.code == 2
    assert "is running in runs/study/streets" in second.err
    assert running.returncode == 143
    complete = in_own_process("study", *TINY, "select=[pixelwise,baseline]", "parallel=2", cwd=tmp_path)
    assert complete.code == 0, complete.err
    folders = sorted(path.parent.relative_to(runs) for path in runs.glob("*/*/student.safetensors"))
    assert [str(f) for f in folders] == ["baseline/0", "baseline/1", "pixelwise/0", "pixelwise/1", "teacher/0"]

    records = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "results/streets").glob("*.json")}
    assert records.keys() == {"teacher_0", "baseline_0", "baseline_1", "pixelwise_0", "pixelwise_1"}
    for name in ("baseline", "pixelwise"):
        mean = fmean(records[f"{name}_{seed}"]["evaluation"]["miou"] for seed in (0, 1))
        assert f"{100 * mean:.2f}" in complete.out
    assert records["pixelwise_0"]["teacher_seconds"] == records["teacher_0"]["summary"]["seconds"]
    assert records["baseline_0"]["teacher_seconds"] == 0

    uninterrupted = in_own_process(
        "study", *TINY, "select=[baseline]", "runs=other", "stages=[train]", "seeds=[1]", cwd=tmp_path
    )
    assert uninterrupted.code == 0, uninterrupted.err
    weights, expected = (load_file(path / "baseline/1/student.safetensors") for path in (runs, tmp_path / "other"))
    assert all(torch.equal(weight, expected[name]) for name, weight in weights.items())

    again = in_own_process("study", *TINY, "select=[pixelwise,baseline]", cwd=tmp_path)
    assert again.code == 0
    assert "scoring" not in again.err
    (runs / "baseline/1/student.safetensors").write_bytes((runs / "baseline/0/student.safetensors").read_bytes())
    changed = in_own_process("study", *TINY, "select=[baseline]", "stages=[score]", cwd=tmp_path)
    assert changed.code == 2
    assert "baseline_1.json belongs to other weights" in changed.err


def _wait_for(is_true: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.process
def test_failed_trainings_are_named_and_others_continue(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = "overrides=['trainer.max_epochs=1','wandb.mode=disabled','loss.pixelwise.weight=1']"
    arguments = ("plan=streets", "seeds=[0]", "select=[pixelwise,baseline]", "stages=[train]", overrides)
    failed = command("study", *arguments)
    assert failed.code == 1
    assert "2 trainings failed: teacher/0, baseline/0" in failed.err
    log = Path("runs/study/streets/teacher/0/train.log").read_text()
    assert "a loss that is not selected" in log
    assert "Traceback" not in log
    assert not Path("runs/study/streets/pixelwise").exists()  # its teacher failed


def test_table_by_hand(tmp_path: Path, command: Command) -> None:
    results = tmp_path / "results"
    for seed, (baseline, distilled) in enumerate([(0.60, 0.63), (0.62, 0.64), (0.61, 0.65)]):
        write_record(results, "baseline", seed, baseline, 100, parameters=112585)
        write_record(results, "all_three", seed, distilled, 200, ("pixelwise",))
    titles, *rows = build_table(results, ["baseline", "all_three"])
    baseline_cells, distilled_cells = (dict(zip(titles, row, strict=True)) for row in rows)
    assert distilled_cells["mIoU"] == "64.00 ± 1.00"
    assert distilled_cells["0001TP"] == "74.00"
    assert distilled_cells["Seq05VD"] == "54.00"
    assert distilled_cells["void counted"] == "62.00"
    # Differences 3, 2, 4 points: mean 3, standard deviation 1, half width 4.302653 / √3.
    assert distilled_cells["at equal steps"] == "+3.00 (0.52 to 5.48)"
    assert distilled_cells["teacher seconds"] == "30"
    assert baseline_cells["mIoU"] == "61.00 ± 1.00"
    chosen = build_table(results, ["all_three", "baseline"], ["method", "parameters"])
    assert chosen == [["method", "parameters"], ["all_three", ""], ["baseline", "112,585"]]
    with pytest.raises(UserError, match="no column 'width'; its columns are method, seeds, mIoU, 0001TP"):
        build_table(results, [], ["width"])
    compared = command("compare", f"runs={results}/*.json", "format=csv")
    assert compared.code == 0, compared.err
    assert "+3.00 (0.52 to 5.48)" in compared.out
    assert build_table(tmp_path / "nothing", ["baseline"]) == []


def test_markdown_page_keeps_its_text(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- study camvid -->\nold\n<!-- study end -->\nafter\n")
    update_markdown_table(page, "camvid", [["a", "b"], ["1", "2"]], "nothing")
    expected = "before\n<!-- study camvid -->\n\n| a | b |\n| --- | ---: |\n| 1 | 2 |\n\n<!-- study end -->\nafter\n"
    assert page.read_text() == expected
    update_markdown_table(page, "camvid", [], "nothing yet")
    assert "\n\nnothing yet\n\n" in page.read_text()
    with pytest.raises(UserError, match="no place for the table"):
        update_markdown_table(page, "streets", [], "")


def test_documented_table_is_that_of_the_records(tmp_path: Path) -> None:
    plan = yaml.safe_load((CONFIGS / "plan/camvid.yaml").read_text())
    document = CONFIGS.parent / "docs/results/camvid.md"
    page = tmp_path / "page.md"
    page.write_text(document.read_text())
    rows = build_table(CONFIGS.parent / "results/camvid", list(plan["methods"]))
    update_markdown_table(page, "camvid", rows, EMPTY_TABLE.format(name="camvid"))
    assert page.read_text() == document.read_text()
