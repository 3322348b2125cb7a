"""`python -m segkd.study`: trainings in stages that go on where they stopped, scores taken once, a table from the records."""

from __future__ import annotations

import json
import os
import signal
import tarfile
import time
from pathlib import Path
from statistics import fmean

import pytest
import torch
import yaml

from segkd.config.paths import CONFIGS
from segkd.errors import UserError
from segkd.models.checkpoint_io import load_file
from segkd.study.archive import archive
from segkd.study.main import EMPTY_TABLE
from segkd.study.plan import RESULT_FILES, Job, MethodSettings, is_finished, plan_jobs
from segkd.study.results import build_table, update_markdown_table
from tests.helpers.commands import Command, in_own_process, started

PLANS = sorted((CONFIGS / "plan").glob("*.yaml"))
ROWS = {
    "teacher": MethodSettings(experiment="a", seeds=[0]),
    "alone": MethodSettings(experiment="b"),
    "taught": MethodSettings(experiment="c", overrides=["x=1"], teacher_from="teacher"),
    "by_all": MethodSettings(experiment="d", teacher_from="alone"),
}
TINY = (
    "plan=streets",
    "seeds=[0,1]",
    "overrides=['trainer.max_epochs=2','trainer.limit_val_batches=1','check_teacher=off','wandb.mode=disabled','dataset.images=8']",
)


def test_what_is_typed_and_what_comes_first() -> None:
    runs = Path("runs")
    planned = plan_jobs(ROWS, None, [0, 1], runs, ["y=2"])
    assert [job.name for job in planned] == [
        "teacher/0",
        "alone/0",
        "alone/1",
        "taught/0",
        "taught/1",
        "by_all/0",
        "by_all/1",
    ]
    taught, by_all = planned[4], planned[5]
    assert taught.arguments == (
        "experiment=c", "x=1", "teacher.checkpoint=runs/teacher/0/student.safetensors", "y=2", "seed=1",
        "output_dir=runs/taught/1", "resume=auto", "trainer.progress=false",
    )  # fmt: skip
    assert taught.needs == (runs / "teacher/0",)
    assert [f"teacher.members.m{i}.checkpoint=runs/alone/{i}/student.safetensors" for i in (0, 1)] == list(
        by_all.arguments[1:3]
    )
    assert by_all.needs == (runs / "alone/0", runs / "alone/1")


def test_a_row_brings_its_teacher() -> None:
    assert [job.row for job in plan_jobs(ROWS, ["taught"], [5], Path(), [])] == ["teacher", "taught"]
    assert [job.row for job in plan_jobs(ROWS, ["by_all"], [5], Path(), [])] == ["alone", "by_all"]
    with pytest.raises(UserError, match="no row 'nothing'; it has teacher, alone"):
        plan_jobs(ROWS, ["nothing"], [0], Path(), [])
    with pytest.raises(UserError, match="no row 'gone'"):
        plan_jobs({"a": MethodSettings(experiment="a", teacher_from="gone")}, None, [0], Path(), [])


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_every_plan_is_of_experiments_that_there_are(
    path: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = command("ladder", f"plan={path.stem}", "stages=[table]", "dataset.root=DIR")
    assert (shown.code, shown.out) == (0, f"no records in results/{path.stem}\n"), shown.err
    plan = yaml.safe_load(path.read_text())
    assert plan["name"] == path.stem
    for name, row in plan["rows"].items():
        given = MethodSettings(**row)
        assert (CONFIGS / "experiment" / f"{given.experiment}.yaml").is_file(), name
        assert given.teacher_from is None or given.teacher_from in plan["rows"]


@pytest.mark.slow
@pytest.mark.process
def test_stopped_and_started_again_it_is_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    """Real trainings: stopped by the clock, then by a signal, then left to end; scored once; the weights those of one piece."""
    typed = (*TINY, "select=[pixelwise,baseline]", "stages=[train]", "parallel=2")
    stopped = in_own_process("ladder", *typed, "minutes=0.1", cwd=tmp_path)
    assert stopped.code == 0, stopped.err
    assert "the same command goes on" in stopped.err
    runs = tmp_path / "runs/ladder/streets"
    going = started("ladder", *typed, cwd=tmp_path)
    assert going.stderr is not None
    assert any(line.endswith(" starts\n") for line in going.stderr)
    _wait_for(lambda: any(runs.glob("*/*/last.ckpt")))
    # Held still, it is neither late nor ended when the second looks.
    going.send_signal(signal.SIGSTOP)
    try:
        second = in_own_process("ladder", *typed, cwd=tmp_path)
    finally:
        going.send_signal(signal.SIGTERM)
        going.send_signal(signal.SIGCONT)
        going.communicate(timeout=60)
    assert second.code == 2
    assert "at work in runs/ladder/streets" in second.err
    assert going.returncode == 143
    whole = in_own_process("ladder", *TINY, "select=[pixelwise,baseline]", "parallel=2", cwd=tmp_path)
    assert whole.code == 0, whole.err
    folders = sorted(path.parent.relative_to(runs) for path in runs.glob("*/*/student.safetensors"))
    assert [str(f) for f in folders] == ["baseline/0", "baseline/1", "pixelwise/0", "pixelwise/1", "teacher/0"]

    records = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "results/streets").glob("*.json")}
    assert records.keys() == {"teacher_0", "baseline_0", "baseline_1", "pixelwise_0", "pixelwise_1"}
    for name in ("baseline", "pixelwise"):
        mean = fmean(records[f"{name}_{seed}"]["evaluation"]["miou"] for seed in (0, 1))
        assert f"{100 * mean:.2f}" in whole.out
    assert records["pixelwise_0"]["teacher_seconds"] == records["teacher_0"]["summary"]["seconds"]
    assert records["baseline_0"]["teacher_seconds"] == 0

    in_one_piece = in_own_process(
        "ladder", *TINY, "select=[baseline]", "runs=other", "stages=[train]", "seeds=[1]", cwd=tmp_path
    )
    assert in_one_piece.code == 0, in_one_piece.err
    ours, theirs = (load_file(folder / "baseline/1/student.safetensors") for folder in (runs, tmp_path / "other"))
    assert all(torch.equal(weights, theirs[name]) for name, weights in ours.items())

    again = in_own_process("ladder", *TINY, "select=[pixelwise,baseline]", cwd=tmp_path)
    assert again.code == 0
    assert "scoring" not in again.err
    (runs / "baseline/1/student.safetensors").write_bytes((runs / "baseline/0/student.safetensors").read_bytes())
    changed = in_own_process("ladder", *TINY, "select=[baseline]", "stages=[score]", cwd=tmp_path)
    assert changed.code == 2
    assert "baseline_1.json is of other weights" in changed.err


def _wait_for(there: object, seconds: float = 120) -> None:
    ends = time.monotonic() + seconds
    while not there():  # type: ignore[operator]
        assert time.monotonic() < ends
        time.sleep(0.1)


@pytest.mark.process
def test_what_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    typed = (*TINY[:1], "seeds=[0]", "select=[pixelwise,baseline]", "stages=[train]")
    overrides = "overrides=['trainer.max_epochs=1','check_teacher=off','wandb.mode=disabled','dataset.images=8','loss.pixelwise.weight=1']"
    failed = in_own_process("ladder", *typed, overrides, cwd=tmp_path)
    assert failed.code == 1
    assert "2 trainings failed: teacher/0, baseline/0" in failed.err
    log = (tmp_path / "runs/ladder/streets/teacher/0/train.log").read_text()
    assert "a loss that is not selected" in log
    assert "Traceback" not in log
    assert not (tmp_path / "runs/ladder/streets/pixelwise").exists()  # whose teacher there is none


def run_folder(runs: Path, row: str, seed: int, weights: int, done: bool = True) -> Job:
    directory = runs / row / str(seed)
    directory.mkdir(parents=True)
    for name in RESULT_FILES if done else ("config.yaml", "last.ckpt"):
        size = weights if name in ("student.safetensors", "last.ckpt") else 100
        (directory / name).write_bytes(os.urandom(size))
    assert is_finished(directory) == done
    return Job(row, seed, directory, (), ())


def test_parts_are_within_their_limits_and_unpack_to_what_was(tmp_path: Path) -> None:
    runs, to = tmp_path / "runs", tmp_path / "to"
    made = [run_folder(runs, "teacher", 0, 3_000_000), *(run_folder(runs, "alone", seed, 300_000) for seed in range(5))]
    made.append(run_folder(runs, "late", 0, 200_000, done=False))
    left = archive(made, runs, to, files=2, mebibytes=1)
    parts = sorted(to.glob("part_*.tar"))
    assert len(parts) == 2
    assert max(part.stat().st_size for part in parts) <= 2**20
    assert left == [runs / "teacher/0/student.safetensors"]
    there = tmp_path / "there"
    for part in parts:
        with tarfile.open(part) as file:
            file.extractall(there, filter="data")
    unpacked = {path.relative_to(there) for path in there.rglob("*") if path.is_file()}
    originals = {path.relative_to(runs) for path in runs.rglob("*") if path.is_file()}
    assert originals - unpacked == {Path("teacher/0/student.safetensors")}
    assert all((there / path).read_bytes() == (runs / path).read_bytes() for path in unpacked)
    with pytest.raises(UserError, match="holds parts already"):
        archive(made, runs, to, files=2, mebibytes=1)


def record(results: Path, row: str, seed: int, miou: float, seconds: float, terms: tuple[str, ...] = ()) -> None:
    results.mkdir(exist_ok=True)
    evaluation = {
        "miou": miou, "iou": {"road": miou}, "dataset": "CamVid", "split": "test", "images": 233, "protocol": {"void": "ignored"},
        "sequences": {"0001TP": {"miou": miou + 0.1}, "Seq05VD": {"miou": miou - 0.1}}, "void_counted": {"miou": miou - 0.02},
    }  # fmt: skip
    losses = {"cross_entropy": "CrossEntropy", **{term: term.title() for term in terms}}
    config = {
        "seed": seed, "loss": {name: {"_target_": f"segkd.losses.{name}.{kind}"} for name, kind in losses.items()},
        "adversary": {"_target_": None},
        "teacher": {}, "trainer": {"max_epochs": 5},
    }  # fmt: skip
    facts = {
        "config": config, "evaluation": evaluation, "summary": {"steps": 10, "seconds": seconds}, "environment": {},
        "teacher_seconds": 30.0 if terms else 0.0,
    }  # fmt: skip
    (results / f"{row}_{seed}.json").write_text(json.dumps(facts))


def test_the_table_by_hand(tmp_path: Path, command: Command) -> None:
    for seed, (alone, taught) in enumerate([(0.60, 0.63), (0.62, 0.64), (0.61, 0.65)]):
        record(tmp_path / "r", "baseline", seed, alone, 100)
        record(tmp_path / "r", "all_three", seed, taught, 200, ("pixelwise",))
    titles, alone, taught = build_table(tmp_path / "r", ["baseline", "all_three"])
    shown = dict(zip(titles, taught, strict=True))
    assert shown["mIoU"] == "64.00 ± 1.00"
    assert shown["0001TP"] == "74.00"
    assert shown["Seq05VD"] == "54.00"
    assert shown["void counted"] == "62.00"
    # Differences 3, 2, 4 points: mean 3, sd 1, half a width 4.302653 / √3.
    assert shown["at equal steps"] == "+3.00 (0.52 to 5.48)"
    assert shown["teacher's s"] == "30"
    assert dict(zip(titles, alone, strict=True))["mIoU"] == "61.00 ± 1.00"
    compared = command("compare", f"runs={tmp_path / 'r'}/*.json", "format=csv")
    assert compared.code == 0, compared.err
    assert "+3.00 (0.52 to 5.48)" in compared.out
    assert build_table(tmp_path / "nothing", ["baseline"]) == []


def test_the_page_keeps_the_rest(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- ladder camvid -->\nold\n<!-- ladder end -->\nafter\n")
    update_markdown_table(page, "camvid", [["a", "b"], ["1", "2"]], "nothing")
    expected = "before\n<!-- ladder camvid -->\n\n| a | b |\n| --- | ---: |\n| 1 | 2 |\n\n<!-- ladder end -->\nafter\n"
    assert page.read_text() == expected
    update_markdown_table(page, "camvid", [], "nothing yet")
    assert "\n\nnothing yet\n\n" in page.read_text()
    with pytest.raises(UserError, match="no place for the table"):
        update_markdown_table(page, "streets", [], "")


def test_the_readme_s_table_is_that_of_the_records(tmp_path: Path) -> None:
    plan = yaml.safe_load((CONFIGS / "plan/camvid.yaml").read_text())
    readme = CONFIGS.parent / "README.md"
    page = tmp_path / "README.md"
    page.write_text(readme.read_text())
    update_markdown_table(
        page,
        "camvid",
        build_table(CONFIGS.parent / "results/camvid", list(plan["rows"])),
        EMPTY_TABLE.format(name="camvid"),
    )
    assert page.read_text() == readme.read_text()
