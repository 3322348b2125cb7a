"""`python -m segkd.compare`: numbers worked by hand, from run folders as segkd.train writes them."""

from __future__ import annotations

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
from segkd.report.comparison import (
    MethodResult,
    build_class_table,
    compare_methods,
    compute_paired_difference,
)
from segkd.runs.comparable import load_comparable_runs
from segkd.runs.methods import group_by_method
from segkd.runs.run import Run, find_runs
from segkd.utils.tables import build_rich_table
from tests.helpers.commands import Command
from tests.helpers.run_folders import ADVERSARIAL, EVALUATION, PIXELWISE, write_metrics, write_run_folder

T_95_2 = 4.302652729911275  # 0.975 quantile of Student's t with 2 degrees of freedom, from a table


def load_methods(folder: Path) -> dict[str, list[Run]]:
    return group_by_method(find_runs([str(folder / "*")])[0])


def compare_folder(folder: Path, **arguments: Any) -> dict[str, MethodResult]:
    return {method.name: method for method in compare_methods(load_methods(folder), **arguments)}


def test_gains_are_paired_by_seed_with_students_interval(tmp_path: Path) -> None:
    baseline, distilled = {0: 0.40, 1: 0.44, 2: 0.41, 7: 0.10}, {2: 0.45, 0: 0.43, 1: 0.46}
    for seed, miou in baseline.items():
        write_run_folder(tmp_path, miou, seed=seed)
    for seed, miou in distilled.items():
        write_run_folder(tmp_path, miou, PIXELWISE, seed)
    gain = compare_folder(tmp_path)["pixelwise"].at_equal_steps
    differences = [0.03, 0.02, 0.04]
    half = T_95_2 * stdev(differences) / 3**0.5
    assert gain.pairs == 3  # seed 7 has no partner
    assert (gain.mean, gain.low, gain.high) == pytest.approx((0.03, 0.03 - half, 0.03 + half))
    unpaired = fmean(distilled.values()) - fmean(baseline.values())
    assert abs(gain.mean - unpaired) > 0.05  # the difference of unpaired means


def test_equal_time_counts_the_teacher(tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    (teacher / "summary.json").write_text(json.dumps({"seconds": 30.0}))
    write_run_folder(tmp_path, 0.40, seconds=10)
    write_run_folder(tmp_path, 0.42, seconds=25, epochs=5, steps=250)
    write_run_folder(tmp_path, 0.44, seconds=60, epochs=12, steps=600)
    write_run_folder(tmp_path, 0.45, PIXELWISE, seconds=20, teacher=teacher / "student.safetensors")
    method = compare_folder(tmp_path)["pixelwise, trainer.max_epochs=2"]
    assert method.at_equal_steps.mean == pytest.approx(0.05)
    assert (
        method.teacher_seconds == 30
    )  # the baseline has to train for 50 s: the one of 60 s does, that of 25 s does not
    assert method.at_equal_time.mean == pytest.approx(0.01)
    (teacher / "summary.json").unlink()
    assert compare_folder(tmp_path)["pixelwise, trainer.max_epochs=2"].at_equal_time is None  # unknown cost
    free = compare_folder(tmp_path, teacher_seconds=0)["pixelwise, trainer.max_epochs=2"]
    assert free.at_equal_time.mean == pytest.approx(0.03)


def test_a_method_is_named_by_its_terms_and_differing_settings(tmp_path: Path) -> None:
    write_run_folder(tmp_path, 0.45, PIXELWISE, temperature=1.0)
    write_run_folder(tmp_path, 0.45, PIXELWISE, seed=1, temperature=1.0)
    write_run_folder(tmp_path, 0.46, PIXELWISE, temperature=4.0)
    write_run_folder(tmp_path, 0.47, (*PIXELWISE, *ADVERSARIAL), temperature=1.0)
    write_run_folder(tmp_path, 0.40, temperature=1.0)
    counts = {name: len(runs) for name, runs in load_methods(tmp_path).items()}
    one, four = (f"loss.pixelwise.temperature={t}" for t in (1, 4))
    assert list(counts.items()) == [
        ("baseline", 1),
        (f"pixelwise, {one}", 2),
        (f"pixelwise, {four}", 1),
        (f"pixelwise + adversarial, {one}", 1),
    ]


@pytest.mark.parametrize(
    ("temperatures", "texts"),
    [
        ((0.12345678901234567, 3.0), ("0.123", "3")),
        ((0.1231, 0.1232, 7.0), ("0.1231", "0.1232", "7")),
        ((2, 2.00001), ("2", "2.00001")),
        ((None, 0.5), ("null", "0.5")),
    ],
)
def test_numbers_in_names_have_as_many_digits_as_they_need(
    tmp_path: Path, temperatures: tuple[Any, ...], texts: tuple[str, ...]
) -> None:
    for temperature in temperatures:
        write_run_folder(tmp_path, 0.45, PIXELWISE, temperature=temperature)
    assert [*load_methods(tmp_path)] == [f"pixelwise, loss.pixelwise.temperature={text}" for text in texts]


def test_int_and_float_of_equal_value_are_one_method(tmp_path: Path) -> None:
    for temperature in (4, 4.0):
        write_run_folder(tmp_path, 0.45, PIXELWISE, temperature=temperature)
    write_run_folder(tmp_path, 0.45, PIXELWISE, temperature=1)
    assert len(load_methods(tmp_path)) == 2


def test_each_combination_of_label_losses_has_its_own_baseline(tmp_path: Path) -> None:
    write_run_folder(tmp_path, 0.40)
    write_run_folder(tmp_path, 0.43, ("lovasz",))
    write_run_folder(tmp_path, 0.45, ("lovasz", *PIXELWISE))
    methods = compare_folder(tmp_path)
    baseline, distilled = "baseline, labels=cross_entropy + lovasz", "pixelwise, labels=cross_entropy + lovasz"
    assert [*methods] == ["baseline, labels=cross_entropy", baseline, distilled]
    assert methods[distilled].at_equal_steps.mean == pytest.approx(0.02)
    assert methods["baseline, labels=cross_entropy"].at_equal_steps is None


def test_class_table_without_a_baseline_has_the_iou_of_all_methods(tmp_path: Path) -> None:
    for miou in (0.4, 0.6):
        write_run_folder(tmp_path, 0.5, PIXELWISE, seed=int(10 * miou), iou={"road": miou})
    assert build_class_table([*compare_folder(tmp_path).values()]) == [["class", "pixelwise"], ["road", "50.00"]]


def test_networks_are_named_by_their_class(tmp_path: Path) -> None:
    for kind in ("espnet.ESPNetC", "enet.ENet"):
        config = write_run_folder(tmp_path, 0.4) / "config.yaml"
        changed = {**yaml.safe_load(config.read_text()), "student": {"_target_": f"segkd.models.{kind}"}}
        config.write_text(yaml.safe_dump(changed))
    assert {*compare_folder(tmp_path)} == {"baseline, student=ESPNetC", "baseline, student=ENet"}


def test_two_custom_datasets_are_different_data(tmp_path: Path) -> None:
    for name in ("farm", "garden"):
        metadata = {"network": "segkd.models.espnet.ESPNetC", "num_classes": 2, "arguments": {}, "normalization": {}}
        (write_run_folder(tmp_path, 0.4, data="Folder") / "student.yaml").write_text(
            yaml.safe_dump({**metadata, "dataset": name})
        )
    with pytest.raises(UserError, match=r"cannot be compared: .* on farm val.* on garden val"):
        load_comparable_runs([str(tmp_path / "*")])


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_number_is_cut_in_a_narrow_terminal(width: int) -> None:
    cells = [["method", "mIoU", "at equal steps"], ["baseline, " * 9, "44.17 ± 0.61", "+2.84 (-1.33 to 4.34)"]]
    console = Console(width=width, file=io.StringIO(), force_terminal=True)
    console.print(build_rich_table(cells, "", width))
    printed = console.file.getvalue()
    assert all(number in printed for number in ("44.17", "0.61", "+2.84", "(-1.33", "4.34)"))
    assert max(map(len, re.sub(r"\x1b\[[0-9;]*m", "", printed).splitlines())) <= width


def test_class_gains(tmp_path: Path) -> None:
    write_run_folder(tmp_path, 0.4, iou={"road": 0.5, "car": 0.3, "train": float("nan")})
    write_run_folder(tmp_path, 0.5, PIXELWISE, iou={"road": 0.6, "car": 0.25, "train": 0.1})
    assert compare_folder(tmp_path)["pixelwise"].class_gains == pytest.approx({"road": 0.1, "car": -0.05})


def test_one_pair_has_no_interval() -> None:
    single = compute_paired_difference([0.5], 0.95)
    assert single is not None
    assert single.mean == 0.5
    assert single.low != single.low
    assert compute_paired_difference([], 0.95) is None


def test_evaluation_is_preferred_to_validation(tmp_path: Path) -> None:
    run = write_run_folder(tmp_path, 0.4)
    scores = {"miou": 0.3, "iou": {"road": 0.3, "car": None}}
    (run / "evaluation.json").write_text(json.dumps({**EVALUATION, **scores}))
    (loaded,), _ = find_runs([str(run)])
    assert (loaded.miou, loaded.iou) == (0.3, {"road": 0.3})


def test_runs_of_earlier_versions_are_read(tmp_path: Path) -> None:
    """Old class paths in `config.yaml`, old keys in `evaluation.json`, and old columns in `metrics.csv`."""
    old = write_run_folder(tmp_path, 0.4, (*PIXELWISE, *ADVERSARIAL))
    config = yaml.safe_load((old / "config.yaml").read_text())
    config["adversary"]["_target_"] = "segkd.adversary.Adversary"
    config |= {"preflight": "off", "schedule": {"_target_": "segkd.schedules.Poly"}}
    (old / "config.yaml").write_text(yaml.safe_dump(config))
    write_metrics(old, [{"step": 1, "train/holistic": 0.5, "train/critic/teacher": 0.2, "share/holistic": 0.1}])
    evaluation = {**EVALUATION, "miou": 0.4, "iou": {"road": 0.4}, "boundary": {"miou": 0.3}, "sequences": {}}
    (old / "evaluation.json").write_text(json.dumps(evaluation))
    new = write_run_folder(tmp_path, 0.4, (*PIXELWISE, *ADVERSARIAL), seed=1)
    methods = load_methods(tmp_path)
    assert [(name, len(runs)) for name, runs in methods.items()] == [("pixelwise + adversarial", 2)]
    run, other = methods["pixelwise + adversarial"]
    assert (run.directory, other.directory) == (old, new)
    assert run.read_curves().keys() == {"train/adversarial", "train/discriminator/teacher", "share/adversarial"}
    assert run.evaluation is not None
    assert run.evaluation["boundary_iou"] == {"miou": 0.3}
    assert "per_sequence" in run.evaluation


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "latex"])
def test_every_format_has_the_same_numbers(command: Command, tmp_path: Path, form: str) -> None:
    write_run_folder(tmp_path, 0.40)
    write_run_folder(tmp_path, 0.4321, PIXELWISE)
    result = command("compare", f"runs={tmp_path}/*", f"format={form}")
    assert result.code == 0, result.err
    assert "43.21" in result.out
    assert "+3.21" in result.out
    assert "40.00" in result.out


def test_folders_that_are_left_out_are_named(command: Command, tmp_path: Path) -> None:
    write_run_folder(tmp_path, 0.43, PIXELWISE)
    stopped = write_run_folder(tmp_path, None)
    (tmp_path / "nothing").mkdir()
    result = command("compare", f"runs={tmp_path}/*")
    assert result.code == 0
    for text in (
        f"{stopped} did not finish",
        f"{tmp_path / 'nothing'} holds no run",
        "no baseline is among these runs",
    ):
        assert text in result.err


def test_mistakes_are_refused(command: Command, tmp_path: Path) -> None:
    def run_refused(*arguments: str) -> str:
        result = command("compare", *arguments)
        assert result.code == 2
        assert "Traceback" not in result.err
        return result.err

    assert "runs='runs/quickstart/*'" in run_refused()
    assert "no folder matches" in run_refused(f"runs={tmp_path}/*")
    stopped = write_run_folder(tmp_path, None)
    assert "none of these runs has finished" in run_refused(f"runs={tmp_path}/*")
    write_run_folder(tmp_path, 0.4)
    write_run_folder(tmp_path, 0.5, data="CamVid")
    error = run_refused(f"runs={tmp_path}/*")
    assert "Streets val" in error
    assert "CamVid val" in error
    write_run_folder(stopped, 0.4)
    write_run_folder(stopped, 0.4)
    assert "2 times with seed 0" in run_refused(f"runs={stopped}/0*")
    (damaged := write_run_folder(stopped, 0.4)).joinpath("config.yaml").write_text("seed: [")
    assert "damaged run" in run_refused(f"runs={damaged}")
    (without_curves := write_run_folder(stopped, 0.4)).joinpath("metrics.csv").unlink()
    assert "damaged run (FileNotFoundError" in run_refused(f"runs={without_curves}")


def test_other_json_files_are_left_out(command: Command, tmp_path: Path) -> None:
    """A JSON file next to runs that is no record; a damaged one, which may be a record, is refused."""
    write_run_folder(tmp_path, 0.4)
    (other := tmp_path / "other.json").write_text('{"teacher": 0.5}')
    result = command("compare", f"runs={tmp_path}/*")
    assert result.code == 0, result.err
    assert f"{other} holds no run; left out" in result.err
    other.write_text('{"evaluation": {')
    result = command("compare", f"runs={tmp_path}/*")
    assert result.code == 2
    assert f"{other} holds a damaged run" in result.err
