"""`python -m segkd.compare`: figures worked by hand, from run folders as segkd.train leaves them."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import yaml
from rich.console import Console

from segkd.errors import UserError
from segkd.report.comparison import class_table, compare_methods, load_comparable_runs, paired_difference
from segkd.runs.methods import group_by_method
from segkd.runs.run import find_runs
from segkd.utils.tables import rich_table
from tests.helpers.commands import Command

PIXELWISE, HOLISTIC = ("pixelwise",), ("adversarial",)
T_95_2 = 4.302652729911275  # 0.975 quantile of Student's t with 2 degrees of freedom, from a table


def folder(
    parent: Path,
    miou: float | None,
    terms: tuple[str, ...] = (),
    seed: int = 0,
    seconds: float = 10.0,
    epochs: int = 2,
    steps: int = 100,
    iou: dict[str, float] | None = None,
    data: str = "Streets",
    teacher: Path | None = None,
    name: str = "run",
    **loss: Any,
) -> Path:
    """A run's folder; without a score it did not finish."""
    where = parent / f"{len(list(parent.iterdir())):02d}"
    where.mkdir()
    config = {
        "name": name,
        "seed": seed,
        "output_dir": str(where),
        "dataset": {"_target_": f"segkd.data.{data.lower()}.{data}"},
        "data": {"batch_size": 4, "val_split": "val"},
        "loss": {
            "cross_entropy": {"_target_": "segkd.losses.cross_entropy.CrossEntropy", "weight": 1.0},
            **{
                term: {"_target_": f"segkd.losses.{term}.{term.display_name()}", "weight": 2.0, **loss}
                for term in terms
                if term != "holistic"
            },
        },
        "adversary": {
            "_target_": "segkd.distillation.adversary.Adversary" if "adversarial" in terms else None,
            "weight": 0.1,
        },
        "teacher": {"checkpoint": str(teacher or parent / "nowhere.safetensors")},
        "trainer": {"max_epochs": epochs},
    }
    (where / "config.yaml").write_text(yaml.safe_dump(config))
    if miou is not None:
        (where / "summary.json").write_text(json.dumps({"steps": steps, "seconds": seconds, "val_miou": miou}))
        values = {"step": steps, "val/miou": miou, **{f"val/iou/{k}": v for k, v in (iou or {"road": miou}).items()}}
        with (where / "metrics.csv").open("w") as file:
            writer = csv.DictWriter(file, list(values))
            writer.writeheader()
            writer.writerow({"step": 0})
            writer.writerow(values)
    return where


def rows(tmp_path: Path, **given: Any) -> dict[str, Any]:
    return {row.name: row for row in compare_methods(group_by_method(find_runs([str(tmp_path / "*")])[0]), **given)}


def test_gains_are_paired_by_seed_with_students_interval(tmp_path: Path) -> None:
    alone, distilled = {0: 0.40, 1: 0.44, 2: 0.41, 7: 0.10}, {2: 0.45, 0: 0.43, 1: 0.46}
    for seed, miou in alone.items():
        folder(tmp_path, miou, seed=seed)
    for seed, miou in distilled.items():
        folder(tmp_path, miou, PIXELWISE, seed)
    gain = rows(tmp_path)["pixelwise"].at_equal_steps
    differences = [0.03, 0.02, 0.04]
    half = T_95_2 * stdev(differences) / 3**0.5
    assert gain.pairs == 3  # seed 7 has no partner
    assert (gain.mean, gain.low, gain.high) == pytest.approx((0.03, 0.03 - half, 0.03 + half))
    unpaired = fmean(distilled.values()) - fmean(alone.values())
    assert abs(gain.mean - unpaired) > 0.05  # what a comparison of means would have said


def test_equal_time_counts_the_teacher(tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    (teacher / "summary.json").write_text(json.dumps({"seconds": 30.0}))
    folder(tmp_path, 0.40, seconds=10)
    folder(tmp_path, 0.42, seconds=25, epochs=5, steps=250)
    folder(tmp_path, 0.44, seconds=60, epochs=12, steps=600)
    folder(tmp_path, 0.45, PIXELWISE, seconds=20, teacher=teacher / "student.safetensors")
    row = rows(tmp_path)["pixelwise, trainer.max_epochs=2"]
    assert row.at_equal_steps.mean == pytest.approx(0.05)
    assert row.teacher_seconds == 30  # so that 50 s are to be matched: by 60, not by 25
    assert row.at_equal_time.mean == pytest.approx(0.01)
    (teacher / "summary.json").unlink()
    assert rows(tmp_path)["pixelwise, trainer.max_epochs=2"].at_equal_time is None  # what it cost is not known
    free = rows(tmp_path, teacher_seconds=0)["pixelwise, trainer.max_epochs=2"]
    assert free.at_equal_time.mean == pytest.approx(0.03)


def test_a_method_is_its_terms_and_what_else_differs(tmp_path: Path) -> None:
    folder(tmp_path, 0.45, PIXELWISE, temperature=1.0)
    folder(tmp_path, 0.45, PIXELWISE, seed=1, temperature=1.0)
    folder(tmp_path, 0.46, PIXELWISE, temperature=4.0)
    folder(tmp_path, 0.47, (*PIXELWISE, *HOLISTIC), temperature=1.0)
    folder(tmp_path, 0.40, temperature=1.0)
    found = {name: len(runs) for name, runs in group_by_method(find_runs([str(tmp_path / "*")])[0]).items()}
    one, four = (f"loss.pixelwise.temperature={t}" for t in (1, 4))
    assert list(found.items()) == [
        ("student alone", 1),
        (f"pixelwise, {one}", 2),
        (f"pixelwise, {four}", 1),
        (f"pixelwise + holistic, {one}", 1),
    ]


@pytest.mark.parametrize(
    ("temperatures", "said"),
    [
        ((0.12345678901234567, 3.0), ("0.123", "3")),
        ((0.1231, 0.1232, 7.0), ("0.1231", "0.1232", "7")),
        ((2, 2.00001), ("2", "2.00001")),
        ((None, 0.5), ("null", "0.5")),
    ],
)
def test_a_number_has_the_digits_that_tell_it_apart(tmp_path: Path, temperatures: tuple[Any, ...], said: str) -> None:
    for temperature in temperatures:
        folder(tmp_path, 0.45, PIXELWISE, temperature=temperature)
    assert [*group_by_method(find_runs([str(tmp_path / "*")])[0])] == [
        f"pixelwise, loss.pixelwise.temperature={s}" for s in said
    ]


def test_the_same_number_is_the_same_method(tmp_path: Path) -> None:
    for temperature in (4, 4.0):
        folder(tmp_path, 0.45, PIXELWISE, temperature=temperature)
    folder(tmp_path, 0.45, PIXELWISE, temperature=1)
    assert len(group_by_method(find_runs([str(tmp_path / "*")])[0])) == 2


def test_another_loss_of_labels_is_another_student_alone(tmp_path: Path) -> None:
    folder(tmp_path, 0.40)
    folder(tmp_path, 0.43, ("lovasz",))
    folder(tmp_path, 0.45, ("lovasz", *PIXELWISE))
    found = rows(tmp_path)
    alone, taught = "student alone, labels=cross_entropy + lovasz", "pixelwise, labels=cross_entropy + lovasz"
    assert [*found] == ["student alone, labels=cross_entropy", alone, taught]
    assert found[taught].at_equal_steps.mean == pytest.approx(0.02)
    assert found["student alone, labels=cross_entropy"].at_equal_steps is None


def test_classes_without_a_student_alone(tmp_path: Path) -> None:
    for miou in (0.4, 0.6):
        folder(tmp_path, 0.5, PIXELWISE, seed=int(10 * miou), iou={"road": miou})
    assert class_table([*rows(tmp_path).values()]) == [["class", "pixelwise"], ["road", "50.00"]]


def test_a_network_is_named_by_its_class(tmp_path: Path) -> None:
    for kind in ("espnet.ESPNetC", "enet.ENet"):
        config = folder(tmp_path, 0.4) / "config.yaml"
        asked = {**yaml.safe_load(config.read_text()), "student": {"_target_": f"segkd.models.{kind}"}}
        config.write_text(yaml.safe_dump(asked))
    assert {*rows(tmp_path)} == {"student alone, student=ESPNetC", "student alone, student=ENet"}


def test_two_folders_of_ones_own_are_different_data(tmp_path: Path) -> None:
    for name in ("farm", "garden"):
        facts = {"network": "segkd.models.espnet.ESPNetC", "num_classes": 2, "arguments": {}, "normalization": {}}
        (folder(tmp_path, 0.4, data="Folder") / "student.yaml").write_text(yaml.safe_dump({**facts, "dataset": name}))
    with pytest.raises(UserError, match=r"cannot be compared: .* on farm val.* on garden val"):
        load_comparable_runs([str(tmp_path / "*")])


@pytest.mark.parametrize("room", [60, 80, 200])
def test_no_figure_is_cut_in_a_narrow_terminal(room: int) -> None:
    cells = [["method", "mIoU", "at equal steps"], ["student alone, " * 9, "44.17 ± 0.61", "+2.84 (-1.33 to 4.34)"]]
    console = Console(width=room, file=io.StringIO(), force_terminal=True)
    console.print(rich_table(cells, "", room))
    printed = console.file.getvalue()
    assert all(figure in printed for figure in ("44.17", "0.61", "+2.84", "(-1.33", "4.34)"))
    assert max(map(len, re.sub(r"\x1b\[[0-9;]*m", "", printed).splitlines())) <= room


def test_class_gains(tmp_path: Path) -> None:
    folder(tmp_path, 0.4, iou={"road": 0.5, "car": 0.3, "train": float("nan")})
    folder(tmp_path, 0.5, PIXELWISE, iou={"road": 0.6, "car": 0.25, "train": 0.1})
    assert rows(tmp_path)["pixelwise"].class_gains == pytest.approx({"road": 0.1, "car": -0.05})


def test_of_one_pair_there_is_no_interval() -> None:
    single = paired_difference([0.5], 0.95)
    assert single is not None
    assert single.mean == 0.5
    assert single.low != single.low
    assert paired_difference([], 0.95) is None


def test_evaluation_outranks_validation(tmp_path: Path) -> None:
    run = folder(tmp_path, 0.4)
    facts = {"dataset": "CamVid", "split": "test", "images": 2, "protocol": {"void": "ignored"}}
    (run / "evaluation.json").write_text(json.dumps({**facts, "miou": 0.3, "iou": {"road": 0.3, "car": None}}))
    (found,), _ = find_runs([str(run)])
    assert (found.miou, found.iou) == (0.3, {"road": 0.3})


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "latex"])
def test_every_format_tells_the_same(command: Command, tmp_path: Path, form: str) -> None:
    folder(tmp_path, 0.40)
    folder(tmp_path, 0.4321, PIXELWISE)
    ended = command("compare", f"runs={tmp_path}/*", f"format={form}")
    assert ended.code == 0, ended.err
    assert "43.21" in ended.out
    assert "+3.21" in ended.out
    assert "40.00" in ended.out


def test_what_is_left_out_is_said(command: Command, tmp_path: Path) -> None:
    folder(tmp_path, 0.43, PIXELWISE)
    stopped = folder(tmp_path, None)
    (tmp_path / "nothing").mkdir()
    ended = command("compare", f"runs={tmp_path}/*")
    assert ended.code == 0
    for said in (f"{stopped} did not finish", f"{tmp_path / 'nothing'} holds no run", "no student alone"):
        assert said in ended.err


def test_mistakes(command: Command, tmp_path: Path) -> None:
    def refused(*arguments: str) -> str:
        ended = command("compare", *arguments)
        assert ended.code == 2
        assert "Traceback" not in ended.err
        return ended.err

    assert "say which" in refused()
    assert "names no folder" in refused(f"runs={tmp_path}/*")
    stopped = folder(tmp_path, None)
    assert "none of these runs has finished" in refused(f"runs={tmp_path}/*")
    folder(tmp_path, 0.4)
    folder(tmp_path, 0.5, data="CamVid")
    assert "Streets val" in (told := refused(f"runs={tmp_path}/*"))
    assert "CamVid val" in told
    folder(stopped, 0.4)
    folder(stopped, 0.4)
    assert "2 times with seed 0" in refused(f"runs={stopped}/0*")
    (damaged := folder(stopped, 0.4)).joinpath("config.yaml").write_text("seed: [")
    assert "damaged run" in refused(f"runs={damaged}")
    (without_curves := folder(stopped, 0.4)).joinpath("metrics.csv").unlink()
    assert "damaged run (FileNotFoundError" in refused(f"runs={without_curves}")


def test_a_file_beside_runs_that_is_none_is_left_out(command: Command, tmp_path: Path) -> None:
    """As the demo's summary lies beside its runs; what may be a record and is damaged is refused."""
    folder(tmp_path, 0.4)
    (other := tmp_path / "demo.json").write_text('{"teacher": 0.5}')
    ended = command("compare", f"runs={tmp_path}/*")
    assert ended.code == 0, ended.err
    assert f"{other} holds no run; left out" in ended.err
    other.write_text('{"evaluation": {')
    ended = command("compare", f"runs={tmp_path}/*")
    assert ended.code == 2
    assert f"{other} holds a damaged run" in ended.err


@pytest.mark.process
def test_a_sweep_is_compared(command: Command, tmp_path: Path) -> None:
    short = [
        "experiment=quickstart",
        "dataset.images=4",
        "trainer.max_epochs=1",
        "trainer.progress=false",
        "adversary=none",
    ]
    swept = command("train", "-m", *short, "loss=[cross_entropy],[cross_entropy,pixelwise]", f"output_dir={tmp_path}")
    assert swept.code == 0, swept.err
    ended = command("compare", f"runs={tmp_path}/*", "format=csv")
    _, alone, pixelwise = list(csv.reader(ended.out.splitlines()))
    assert (alone[0], pixelwise[0]) == ("student alone", "pixelwise")
    scores = [json.loads((tmp_path / job / "summary.json").read_text())["val_miou"] for job in "01"]
    assert float(pixelwise[3]) == pytest.approx(100 * (scores[1] - scores[0]), abs=0.01)
