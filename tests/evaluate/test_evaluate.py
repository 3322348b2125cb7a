"""`python -m segkd.evaluate`: scores, tables and error messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from segkd.metrics import Scores
from segkd.models.base import Normalization
from segkd.models.espnet import ESPNetC
from segkd.models.student_io import save_student
from segkd.utils.files import sha256
from tests.helpers.commands import Command, Result, in_own_process
from tests.helpers.fake_datasets import write_camvid, write_cityscapes
from tests.helpers.reference_state_dicts import make_espnet_state

STATISTICS = Normalization((110, 110, 110), (55, 55, 55))


KEYS = {
    "miou", "class_accuracy", "pixel_accuracy", "iou", "confusion_matrix", "protocol", "images", "checkpoint_sha256",
    "dataset", "split",
}  # fmt: skip


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with CamVid, a student of 11 classes in `run`, and a checkpoint `other.pth` of 19."""
    monkeypatch.chdir(tmp_path)
    write_camvid(Path("camvid"), size=(72, 96))
    Path("run").mkdir()
    save_student(ESPNetC(11, STATISTICS, p=1, q=1), Path("run"), {})
    torch.save(ESPNetC(19, STATISTICS, p=1, q=1).state_dict(), "other.pth")
    return tmp_path


CAMVID = ("dataset=camvid", "dataset.root=camvid", "workers=0", "accelerator=cpu")


def test_run_is_scored_into_its_folder(command: Command, workspace: Path) -> None:
    code, out, err = command("evaluate", "run=run", "split=test", *CAMVID)
    assert code == 0, err
    evaluation = json.loads(Path("run/evaluation.json").read_text())
    assert evaluation.keys() >= KEYS
    assert out.splitlines()[-1] == f"mIoU {100 * evaluation['miou']:.2f}"
    assert list(evaluation["iou"]) == evaluation["classes"]
    assert len(evaluation["classes"]) == 11
    assert (evaluation["images"], evaluation["dataset"], evaluation["split"]) == (2, "CamVid", "test")
    assert evaluation["checkpoint_sha256"] == sha256(Path("run/student.safetensors"))
    assert np.array(evaluation["confusion_matrix"]).shape == (11, 11)
    assert evaluation["protocol"]["void"] == "ignored"


def test_checkpoint_sets_the_size_and_void_may_compete(command: Command, workspace: Path) -> None:
    """Load files of another size than the yaml's, with void as an output beyond the dataset's classes."""
    write_cityscapes(Path("cityscapes"), train=1, val=2)
    torch.save(make_espnet_state(12, 3, 19, is_nested=True, has_counters=False), "camvid.pth")
    torch.save(make_espnet_state(20, 5, 16, is_nested=True, has_counters=False), "cityscapes.pth")
    torch.save(make_espnet_state(20, 5, has_counters=False), "encoder.pth")
    for file, model, classes, size in (
        ("camvid", "espnet", 11, 19),
        ("cityscapes", "espnet", 19, 16),
        ("encoder", "espnet_c", 19, None),
    ):
        dataset = "camvid" if file == "camvid" else "cityscapes"
        for void in ("counted", "ignored"):
            code, _, err = command(
                "evaluate", f"model={model}", f"checkpoint={file}.pth", f"dataset={dataset}", f"dataset.root={dataset}",
                "split=val", "workers=0", "accelerator=cpu", f"void={void}", f"output_dir={void}",
            )  # fmt: skip
            assert code == 0, err
            assert f"Mehta et al., 2018's ESPNet{'' if size else 'C'} (p=2, q={3 if size == 19 else 5}" in err
            assert f"{classes + 1} outputs" in err
            evaluation = json.loads(Path(void, "evaluation.json").read_text())
            assert np.array(evaluation["confusion_matrix"]).shape == (classes + (void == "counted"),) * 2
            assert len(evaluation["iou"]) == classes
            assert evaluation["protocol"]["void"] == void


def assert_refused(result: Result, *phrases: str) -> None:
    assert result.code == 2, result
    assert result.out == ""
    messages = [line for line in result.err.splitlines() if line.startswith("segkd: ")]
    assert len(messages) == 1, result.err
    for phrase in phrases:
        assert phrase in messages[0]
    assert "Traceback" not in result.err
    assert not list(Path().rglob("evaluation.json"))


OTHER = ("model=espnet_c", "model.q=1", "model.p=1", "checkpoint=other.pth")
EITHER = "give run=DIR, or model=NAME and checkpoint=FILE"
MISTAKES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "nothing": (CAMVID, (EITHER,)),
    "half": ((*CAMVID, "model=espnet"), (EITHER,)),
    "other half": ((*CAMVID, "checkpoint=other.pth"), (EITHER,)),
    "no model": ((*CAMVID, "model=none", "checkpoint=other.pth"), (EITHER,)),
    "both": ((*CAMVID, *OTHER, "run=run"), (EITHER,)),
    "one block": (
        (*CAMVID, "run=run", "split=test", "metrics=[bootstrap_ci]"),
        ("blocks of 10 frames", "longest sequence of CamVid test has 2", "give a smaller bootstrap_block=N"),
    ),
    "no such run": ((*CAMVID, "run=runs/lost"), ("no student in runs/lost", "folder of a finished run")),
    "other classes": ((*CAMVID, *OTHER), ("another shape", "(19, 256, 1, 1) for (11, 256, 1, 1)")),
    "a run of other classes": (
        ("dataset=cityscapes", "dataset.root=cityscapes", "run=run"),
        ("has 11 classes, Cityscapes has 19", "the dataset it was trained on"),
    ),
    "no such file": ((*CAMVID, "model=espnet", "checkpoint=lost.pth"), ("no checkpoint at lost.pth",)),
    "no such model": ((*CAMVID, "model=espent", "checkpoint=other.pth"), ("did you mean 'espnet'?",)),
    "no such split": ((*CAMVID, "run=run", "split=tset"), ("CamVid has no split 'tset'; it has train, val, test",)),
    "no root": (("dataset=camvid", "run=run"), ("dataset=camvid needs dataset.root=DIR",)),
    "no such root": (
        ("dataset=camvid", "dataset.root=lost", "run=run"),
        ("there is no folder lost for dataset=camvid",),
    ),
    "void": ((*CAMVID, "run=run", "void=dropped"), ("void", "ignored or counted", "dropped")),
    "no such metric": ((*CAMVID, "run=run", "metrics=[iou,edges]"), ("metrics", "boundary_iou", "edges")),
    "old metric": (
        (*CAMVID, "run=run", "metrics=[agreement]"),
        ("metrics", "'agreement' is now 'teacher_agreement'"),
    ),
    "old protocol": ((*CAMVID, "run=run", "protocol=usual"), ("protocol", "'usual' is now 'standard'")),
    "no teacher to agree with": (
        (*CAMVID, "run=run", "metrics=[teacher_agreement]"),
        ("no teacher", "model@teacher=NAME"),
    ),
    "Cityscapes' metric": (
        (*CAMVID, "run=run", "metrics=[category_iou]"),
        ("category_iou is a metric of Cityscapes and does not apply to CamVid",),
    ),
    "Cityscapes' protocol": ((*CAMVID, "run=run", "protocol=espnet"), ("not for CamVid", "void=counted")),
    "too small a window": ((*CAMVID, "run=run", "window=[8,64]"), ("window=[8, 64] is less than the 32 pixels",)),
    "no overlap left": ((*CAMVID, "run=run", "overlap=1"), ("overlap", "less than 1")),
    "no such corruption": ((*CAMVID, "run=run", "corruptions=[rain]"), ("corruptions", "fog", "rain")),
    "no such severity": ((*CAMVID, "run=run", "severities=[6]"), ("severities", "5", "6")),
    "no such format": ((*CAMVID, "run=run", "format=html"), ("format", "latex", "html")),
    "no folder": ((*CAMVID, "run=run", "output_dir=other.pth/a"), ("cannot make the folder", "another output_dir")),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_give_one_sentence(command: Command, workspace: Path, name: str) -> None:
    write_cityscapes(Path("cityscapes"), train=1, val=1)
    arguments, phrases = MISTAKES[name]
    assert_refused(command("evaluate", *arguments), *phrases)


@pytest.mark.process
def test_mistake_in_a_new_process(workspace: Path) -> None:
    arguments, phrases = MISTAKES["other classes"]
    result = in_own_process("evaluate", *arguments, cwd=workspace)
    assert_refused(result, *phrases)
    assert len(result.err.splitlines()) == 1


ALL_METRICS = "metrics=[iou,boundary_iou,trimap_iou,calibration,teacher_agreement,per_sequence,bootstrap_ci]"
TEACHER = ("model@teacher=espnet_c", "teacher.p=1", "teacher.q=1", "teacher.checkpoint=run/student.safetensors")


def run_evaluate(command: Command, *arguments: str) -> tuple[dict[str, Any], str]:
    """Return evaluation.json and stdout of a successful command."""
    code, out, err = command("evaluate", *arguments)
    assert code == 0, err
    return json.loads(Path("out/evaluation.json").read_text()), out


def test_further_metrics_leave_iou_unchanged(command: Command, workspace: Path) -> None:
    run = ("run=run", "split=test", "output_dir=out", *CAMVID)
    plain, plain_out = run_evaluate(command, *run)
    full, out = run_evaluate(command, *run, ALL_METRICS, *TEACHER, "bootstrap_samples=50", "bootstrap_block=1")
    assert {key: full[key] for key in plain} == plain
    assert full.keys() - plain.keys() == {
        "boundary_iou", "trimap_iou", "calibration", "teacher_agreement", "per_sequence", "bootstrap_ci",
    }  # fmt: skip
    assert full["teacher_agreement"]["agreement"] == 1, "the teacher is the student itself"
    assert full["per_sequence"] == {"0001TP": {"images": 2, **{k: plain[k] for k in Scores._fields}}}
    low, high = full["bootstrap_ci"]["miou"]
    assert low <= plain["miou"] <= high
    assert full["boundary_iou"]["widths"] == [2]
    assert 0 < full["boundary_iou"]["miou"] < 1
    assert "boundary IoU" in out
    assert "boundary IoU" not in plain_out


def test_teacher_is_taken_from_the_run(command: Command, workspace: Path) -> None:
    node = {"_target_": "segkd.models.espnet.ESPNetC", "p": 1, "q": 1, "checkpoint": "run/student.safetensors"}
    Path("run/config.yaml").write_text(yaml.safe_dump({"teacher": node}))
    arguments = ("run=run", "output_dir=out", *CAMVID, "metrics=[teacher_agreement]")
    assert run_evaluate(command, *arguments)[0]["teacher_agreement"]["agreement"] == 1
    Path("run/config.yaml").write_text(yaml.safe_dump({"teacher": {"_target_": "os.system"}}))
    code, _, err = command("evaluate", *arguments)
    assert code == 2
    assert "'os.system' is not allowed" in err


def test_protocol_records_the_inference_mode(command: Command, workspace: Path) -> None:
    run = ("run=run", "output_dir=out", *CAMVID)
    evaluation, _ = run_evaluate(command, *run, "window=[48,48]", "overlap=0.5", "scales=[0.75,1]", "flip=true")
    assert evaluation["protocol"]["input"] == "windows of 48×48, overlap 0.5, scales 0.75, 1, flip"
    plain, _ = run_evaluate(command, *run)
    assert plain["protocol"]["input"] == "whole image, single scale, no flip"
    assert evaluation["confusion_matrix"] != plain["confusion_matrix"]


def test_corruptions(command: Command, workspace: Path) -> None:
    arguments = ("run=run", "output_dir=out", *CAMVID, "corruptions=[gaussian_noise,jpeg]", "severities=[1,5]")
    evaluation, out = run_evaluate(command, *arguments)
    result = evaluation["corruptions"]
    assert {name: list(values) for name, values in result["miou"].items()} == {
        "gaussian_noise": ["1", "5"], "jpeg": ["1", "5"],
    }  # fmt: skip
    assert result["mean"] == pytest.approx(np.mean([v for values in result["miou"].values() for v in values.values()]))
    assert run_evaluate(command, *arguments)[0] == evaluation, "the same seed gives the same corruptions"
    assert (
        run_evaluate(command, *arguments, "seed=1")[0]["corruptions"]["miou"]["gaussian_noise"]
        != result["miou"]["gaussian_noise"]
    )
    assert "mIoU on corrupted images" in out


def test_markdown_and_latex_tables(command: Command, workspace: Path) -> None:
    run = ("run=run", "output_dir=out", *CAMVID, "metrics=[boundary_iou]")
    evaluation, out = run_evaluate(command, *run, "format=markdown")
    lines = [line for line in out.splitlines() if line.startswith("|")]
    assert lines[0] == "| class | IoU % | boundary IoU % |"
    assert lines[1] == "| --- | ---: | ---: |"
    assert len(lines) == 2 + 11 + 1
    assert lines[-1] == f"| mean | {100 * evaluation['miou']:.2f} | {100 * evaluation['boundary_iou']['miou']:.2f} |"
    _, out = run_evaluate(command, *run, "format=latex")
    latex = [line for line in out.splitlines()[:-1] if not line.startswith("%")]
    assert latex[:4] == [r"\begin{tabular}{lrr}", r"\toprule", r"class & IoU \% & boundary IoU \% \\", r"\midrule"]
    assert latex[-1] == r"\end{tabular}"
    assert all(line.count("&") == 2 for line in latex[4:-2])
