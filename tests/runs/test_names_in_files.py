"""Names of any Unicode text come back from the files of a run as they were."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from segkd.models.base import Normalization
from segkd.models.espnet import ESPNetC
from segkd.models.student_io import read_student_metadata, save_student
from segkd.runs.run import read_run
from segkd.train.loggers.csv import MetricsFileLogger
from segkd.utils.files import write_json
from tests.helpers.run_folders import EVALUATION, write_run_folder

ODD_NAMES = [
    "sign [front]", "[/b]", "a|b", "läufer", "道路", "שדה", "a\nb", "a\rb", "a,\"b'", "\x00\x1b[31m", "\u202ex",
    "\x85\u2028", "yes", "1", "~", "\ufeffé",
]  # fmt: skip
text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
NORMALIZATION = Normalization((0.0,) * 3, (1.0,) * 3)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(st.lists(text, min_size=2, max_size=4, unique=True), text)
@example(ODD_NAMES, "[/b]")
def test_class_names_come_back(classes: list[str], title: str) -> None:
    with TemporaryDirectory() as folder:
        run = write_run_folder(Path(folder), 0.5, name=title)
        (run / "metrics.csv").unlink()
        curves = MetricsFileLogger(run)
        curves.log_metrics({"train/total": 1.0}, 1)  # a column that comes first, so that the file is rewritten
        curves.log_metrics({"val/miou": 0.5, **{f"val/iou/{name}": 0.5 for name in classes}}, 2)
        save_student(ESPNetC(len(classes), NORMALIZATION, p=1, q=1), run, {"classes": classes, "dataset": title})
        metadata = read_student_metadata(run)
        assert (list(metadata["classes"]), metadata["dataset"]) == (classes, title)
        assert yaml.safe_load((run / "config.yaml").read_bytes())["name"] == title
        assert list(read_run(run).iou) == classes
        evaluation = {**EVALUATION, "dataset": title, "miou": 0.5, "iou": dict.fromkeys(classes, 0.5)}
        write_json(run / "evaluation.json", evaluation)
        assert list(read_run(run).iou) == classes
        assert read_run(run).evaluation == evaluation


def test_names_of_files_that_are_no_text_come_back(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"checkpoint": "l\udce4ufer"})
    assert json.loads((tmp_path / "x.json").read_bytes()) == {"checkpoint": "l\udce4ufer"}
