"""`make demo`, with trainings of one epoch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from segkd.data.streets import Streets
from segkd.evaluate.loop import compute_confusion_matrix
from segkd.metrics import Scores
from segkd.models.student_io import load_student
from tests.helpers.commands import Command

TINY = "overrides=['trainer.max_epochs=1','dataset.images=8','check_teacher=off','wandb.mode=disabled']"


@pytest.mark.process
def test_demo_prints_a_table_and_saves_a_picture(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trained = command("study", "plan=demo", TINY, "stages=[train]")
    assert trained.code == 0, trained.err
    result = command("study", "plan=demo", TINY, "stages=[score,table]", "select=[baseline]")
    assert result.code == 0, result.err
    runs = Path("runs/study/demo")
    record = json.loads((runs / "results/baseline_0.json").read_text())
    network = load_student(runs / "baseline/0")
    miou = Scores.from_confusion_matrix(compute_confusion_matrix(network, Streets("test")), 11).miou
    assert record["evaluation"]["miou"] == miou
    assert record["parameters"] == sum(p.numel() for p in network.parameters())
    assert [record["method"], record["seed"]] == ["baseline", 0]
    header, row = (_split_cells(line) for line in result.out.splitlines() if line.startswith(("┃", "│")))
    assert header == ["method", "parameters", "mIoU", "seconds"]
    assert row == ["baseline", f"{record['parameters']:,}", f"{100 * miou:.2f}", f"{record['summary']['seconds']:.0f}"]

    assert result.out.splitlines()[-1] == str(runs / "demo.png")
    with Image.open(runs / "demo.png") as picture:
        one_method = picture.size
    assert command("study", "plan=demo", TINY, "stages=[table]").code == 0
    with Image.open(runs / "demo.png") as picture:
        # Columns of twice 192 pixels: image, ground truth, and one or three methods; five rows of twice 128.
        assert picture.width > 5 * 384 > one_method[0] > 3 * 384
        assert picture.height > 5 * 256
        assert one_method[1] > 5 * 256


def _split_cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("┃│").replace("┃", "│").split("│")]
