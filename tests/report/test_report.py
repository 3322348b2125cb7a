"""`python -m segkd.report`: the page has the numbers of the runs, and loads nothing."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from segkd.report.comparison import compare_methods
from segkd.report.figures import draw_scatter, thin_curves
from segkd.report.sections import build_sections, compute_confusion
from segkd.runs.methods import group_by_method
from segkd.runs.run import find_runs
from tests.helpers.commands import Command, Result
from tests.helpers.run_folders import EVALUATION, PIXELWISE, write_metrics, write_run_folder


class Page(HTMLParser):
    """Tables of a page as lists of rows, and every address that a browser would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.addresses: list[str] = []
        self._cell: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._cell = []
        self.addresses += [v for k, v in attrs if v and k in ("src", "href", "srcset", "action", "data", "xlink:href")]

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._cell is not None:
            self.tables[-1][-1].append("".join(self._cell).strip())
            self._cell = None


@pytest.mark.process
def test_a_sweep_is_compared_and_reported(command: Command, tmp_path: Path) -> None:
    """The numbers of `compare` and of the page are those of the runs, and the page loads nothing."""
    runs, page = tmp_path / "runs", tmp_path / "new" / "report.html"
    short = ("experiment=quickstart", "dataset.images=4", "trainer.max_epochs=1", "trainer.progress=false")
    grid = ("loss=[cross_entropy],[cross_entropy,pixelwise]", "adversary=none", "seed=0,1")
    sweep = command("train", "-m", *short, *grid, "trainer.log_gradient_shares_every=1", f"output_dir={runs}")
    assert sweep.code == 0, sweep.err
    _check_comparison(command("compare", f"runs={runs}/*", "format=csv"), runs)
    for job in "0123":
        assert command("evaluate", f"run={runs / job}", "dataset=streets", "workers=0").code == 0
    result = command("report", f"runs={runs}/*", f"output={page}", "images=2")
    assert result.code == 0, result.err
    assert result.out.splitlines()[-1].endswith(str(page))
    _check_numbers(Page(page.read_text()), runs)
    _check_content(page.read_text())
    _check_self_contained(page.read_text())


def _check_comparison(result: Result, runs: Path) -> None:
    """Check the gain in mIoU of the last validation; jobs 0 and 1 are the baseline."""
    assert result.code == 0, result.err
    _, baseline, pixelwise = csv.reader(result.out.splitlines())
    assert (baseline[0], pixelwise[0]) == ("baseline", "pixelwise")
    miou = [json.loads((runs / job / "summary.json").read_text())["val_miou"] for job in "0123"]
    gain = fmean([miou[2] - miou[0], miou[3] - miou[1]])
    assert float(pixelwise[3].split()[0]) == pytest.approx(100 * gain, abs=0.01)


def _check_numbers(page: Page, runs: Path) -> None:
    scores, classes, *_ = page.tables
    evaluations = [json.loads((runs / job / "evaluation.json").read_text()) for job in "0123"]
    baseline, distilled = ([evaluation["miou"] for evaluation in evaluations[i : i + 2]] for i in (0, 2))
    assert [row[0] for row in scores[1:]] == ["baseline", "pixelwise"]
    assert float(scores[1][2].split()[0]) == pytest.approx(100 * fmean(baseline), abs=0.006)
    assert float(scores[2][2].split()[0]) == pytest.approx(100 * fmean(distilled), abs=0.006)
    gain = 100 * fmean(after - before for before, after in zip(baseline, distilled, strict=True))
    assert float(scores[2][3].split()[0]) == pytest.approx(gain, abs=0.006)
    for name, before, difference in classes[1:]:
        iou = [evaluation["iou"][name] for evaluation in evaluations]
        assert float(before) == pytest.approx(50 * (iou[0] + iou[1]), abs=0.006)
        assert float(difference) == pytest.approx(50 * (iou[2] + iou[3] - iou[0] - iou[1]), abs=0.006)


def _check_content(text: str) -> None:
    for title in ("Scores", "Classes", "Confusions", "Curves", "Gradient shares", "Scenes", "Commands"):
        assert f">{title}</h2>" in text
    assert text.count('class="slider"') == 2
    layers = json.loads(re.search(r'data-layers="([^"]*)"', text)[1].replace("&#34;", '"'))
    assert layers.keys() == {"image", "ground truth", "teacher", "baseline", "pixelwise"}
    assert "segkd.train -m" in text
    assert "Streets val, 64 images; void: ignored; " in text


def _check_self_contained(text: str) -> None:
    assert "default-src 'none'" in text
    addresses = Page(text).addresses
    assert addresses
    assert [address for address in addresses if not address.startswith(("data:", "#"))] == []
    assert Page('<img src="https://example.com/x.png">').addresses == ["https://example.com/x.png"]  # would be detected
    assert "@import" not in text
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", text)  # clip paths of the figures


def test_confusions_are_shares_of_the_true_class(tmp_path: Path) -> None:
    def write_evaluation(run: Path, matrix: list[list[int]]) -> None:
        scores = {"classes": ["road", "car"], "miou": 0.5, "iou": {"road": 0.5, "car": 0.5}, "confusion_matrix": matrix}
        (run / "evaluation.json").write_text(json.dumps({**EVALUATION, **scores}))

    write_evaluation(write_run_folder(tmp_path, 0.5), [[8, 2], [5, 5]])
    write_evaluation(write_run_folder(tmp_path, 0.5, PIXELWISE), [[9, 1], [10, 30]])
    baseline, distilled = group_by_method(find_runs([str(tmp_path / "*")])[0]).values()
    difference = compute_confusion(distilled) - compute_confusion(baseline)
    assert np.allclose(difference, [[0.1, -0.1], [-0.25, 0.25]])


def test_report_of_a_single_run(command: Command, tmp_path: Path) -> None:
    write_run_folder(tmp_path, 0.43, PIXELWISE)
    page = tmp_path / "report.html"
    result = command("report", f"runs={tmp_path}/0*", f"output={page}", "images=0")
    assert result.code == 0, result.err
    assert "There is no baseline among these runs" in page.read_text()


def test_names_are_escaped(command: Command, tmp_path: Path) -> None:
    run = write_run_folder(tmp_path, 0.4, name="<script>alert(1)</script>")
    page = tmp_path / "report.html"
    assert command("report", f"runs={run}", f"output={page}", "images=0").code == 0
    assert "<script>alert" not in page.read_text()
    assert "&lt;script&gt;alert" in page.read_text()


def test_sections_without_content_are_left_out(tmp_path: Path) -> None:
    write_run_folder(tmp_path, 0.4)
    methods = compare_methods(group_by_method(find_runs([str(tmp_path / "*")])[0]))
    assert [section.title for section in build_sections(methods)] == ["Scores", "Classes"]


def test_mistakes_are_refused(command: Command, tmp_path: Path) -> None:
    run = write_run_folder(tmp_path, 0.4)
    (tmp_path / "file").write_text("")
    result = command("report", f"runs={run}", f"output={tmp_path / 'file' / 'report.html'}", "images=0")
    assert result.code == 2
    assert "give another output" in result.err
    assert "no folder matches" in command("report", "runs=nowhere/*").err


@pytest.mark.parametrize("words", [1, 6, 12, 40])
def test_legend_fits_into_its_figure(words: int) -> None:
    """Long names are stacked and wrapped."""
    names = [" ".join([f"loss{letter}=1"] * words) for letter in "abc"]
    svg = draw_scatter(dict.fromkeys(names, (1.0, 2.0)), names, "x", "y")
    view_box = re.search(r'viewBox="0 0 ([\d.]+) ', svg)
    assert view_box is not None
    assert float(view_box[1]) <= 7 * 72  # points in 7 inches


def test_curves_are_averaged_over_windows(tmp_path: Path) -> None:
    run = write_run_folder(tmp_path, 0.4)
    write_metrics(run, [{"step": i, "train/total": i % 2} for i in range(240)])
    (loaded,), _ = find_runs([str(run)])
    steps, values = thin_curves([loaded.read_curves()["train/total"]])
    assert len(steps) == 60
    assert steps[-1] == 239
    assert np.allclose(values, 0.5)


def test_class_names_are_no_markup_in_page_and_figures(command: Command, tmp_path: Path) -> None:
    """Odd numbers of dollars would be a broken formula, brackets a tag, and wide letters a warning each."""
    names = ["[/b]", "sign [front]", "$x^2", "<b>&amp;", "a|b", "道路", "שדה", "läufer", "\\frac{", "_x_"]
    for terms, miou in (((), 0.4), (PIXELWISE, 0.5)):
        run = write_run_folder(tmp_path, miou, terms)
        iou, matrix = dict.fromkeys(names, miou), np.eye(len(names), dtype=int).tolist()
        evaluation = {**EVALUATION, "miou": miou, "iou": iou, "classes": names, "confusion_matrix": matrix}
        (run / "evaluation.json").write_text(json.dumps(evaluation))
    result = command("report", f"runs={tmp_path}/*", f"output={tmp_path / 'report.html'}", "images=0")
    assert result.code == 0, result.err
    assert "Warning" not in result.err
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert [row[0] for row in Page(text).tables[1]][1:] == names
    assert text.count("道路") == 4  # in the table, among the bars, and on both axes of the heatmap
