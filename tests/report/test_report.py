"""`python -m segkd.report`: the page's figures are those of the runs, and it asks nobody for anything."""

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
from segkd.report.figures import _thinned, draw_scatter
from segkd.report.sections import _confusion, build_sections
from segkd.runs.methods import group_by_method
from segkd.runs.run import find_runs
from tests.helpers.commands import Command
from tests.test_compare import PIXELWISE, folder


class Page(HTMLParser):
    """Tables as lists of rows, and every address that a browser would fetch."""

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
def test_figures_are_those_of_the_runs_and_nothing_is_fetched(command: Command, tmp_path: Path) -> None:
    runs, page = tmp_path / "runs", tmp_path / "new" / "report.html"
    short = ("experiment=quickstart", "dataset.images=8", "trainer.max_epochs=2", "trainer.progress=false")
    cells = ("loss=[cross_entropy],[cross_entropy,pixelwise]", "adversary=none", "seed=0,1")
    swept = command("train", "-m", *short, *cells, "trainer.log_gradient_shares_every=1", f"output_dir={runs}")
    assert swept.code == 0, swept.err
    for job in "0123":
        assert command("evaluate", f"run={runs / job}", "dataset=streets", "workers=0").code == 0
    ended = command("report", f"runs={runs}/*", f"output={page}", "images=2")
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[-1].endswith(str(page))
    text = page.read_text()
    scores, classes, *_ = Page(text).tables

    found = [json.loads((runs / job / "evaluation.json").read_text()) for job in "0123"]  # alone 0, 1; pixelwise 0, 1
    alone, taught = ([facts["miou"] for facts in found[i : i + 2]] for i in (0, 2))
    assert [row[0] for row in scores[1:]] == ["student alone", "pixelwise"]
    assert float(scores[1][2].split()[0]) == pytest.approx(100 * fmean(alone), abs=0.006)
    assert float(scores[2][2].split()[0]) == pytest.approx(100 * fmean(taught), abs=0.006)
    gain = 100 * fmean(b - a for a, b in zip(alone, taught, strict=True))
    assert float(scores[2][3].split()[0]) == pytest.approx(gain, abs=0.006)
    for name, before, difference in classes[1:]:
        ious = [facts["iou"][name] for facts in found]
        assert float(before) == pytest.approx(50 * (ious[0] + ious[1]), abs=0.006)
        assert float(difference) == pytest.approx(50 * (ious[2] + ious[3] - ious[0] - ious[1]), abs=0.006)

    for title in ("Scores", "Classes", "Confusions", "Curves", "Who pulls how much", "Scenes", "What was run"):
        assert f">{title}</h2>" in text
    assert text.count('class="wipe"') == 2
    layers = json.loads(re.search(r'data-layers="([^"]*)"', text)[1].replace("&#34;", '"'))
    assert layers.keys() == {"image", "truth", "teacher", "student alone", "pixelwise"}
    assert "segkd.train -m" in text
    assert "Streets val, 64 images; void: ignored; " in text

    assert "default-src 'none'" in text
    parsed = Page(text)
    assert parsed.addresses
    assert [a for a in parsed.addresses if not a.startswith(("data:", "#"))] == []
    assert Page('<img src="https://elsewhere/x.png">').addresses == ["https://elsewhere/x.png"]  # it would be seen
    assert "@import" not in text
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", text)  # clip paths of the figures


def test_confusions_are_shares_of_the_truth(tmp_path: Path) -> None:
    def evaluated(run: Path, matrix: list[list[int]]) -> None:
        facts = {"dataset": "Streets", "split": "val", "images": 1, "protocol": {}, "classes": ["road", "car"]}
        iou = {"road": 0.5, "car": 0.5}
        (run / "evaluation.json").write_text(json.dumps({**facts, "miou": 0.5, "iou": iou, "confusion_matrix": matrix}))

    evaluated(folder(tmp_path, 0.5), [[8, 2], [5, 5]])
    evaluated(folder(tmp_path, 0.5, PIXELWISE), [[9, 1], [10, 30]])
    alone, taught = group_by_method(find_runs([str(tmp_path / "*")])[0]).values()
    difference = _confusion(taught) - _confusion(alone)
    assert np.allclose(difference, [[0.1, -0.1], [-0.25, 0.25]])


def test_of_a_single_run(command: Command, tmp_path: Path) -> None:
    folder(tmp_path, 0.43, PIXELWISE)
    page = tmp_path / "report.html"
    ended = command("report", f"runs={tmp_path}/0*", f"output={page}", "images=0")
    assert ended.code == 0, ended.err
    assert "No student alone is among these runs" in page.read_text()


def test_names_are_no_markup(command: Command, tmp_path: Path) -> None:
    run = folder(tmp_path, 0.4, name="<script>alert(1)</script>")
    page = tmp_path / "report.html"
    assert command("report", f"runs={run}", f"output={page}", "images=0").code == 0
    assert "<script>alert" not in page.read_text()
    assert "&lt;script&gt;alert" in page.read_text()


def test_sections_without_anything_to_show_are_left_out(tmp_path: Path) -> None:
    folder(tmp_path, 0.4)
    rows = compare_methods(group_by_method(find_runs([str(tmp_path / "*")])[0]))
    assert [section.title for section in build_sections(rows)] == ["Scores", "Classes"]


def test_mistakes(command: Command, tmp_path: Path) -> None:
    run = folder(tmp_path, 0.4)
    (tmp_path / "file").write_text("")
    ended = command("report", f"runs={run}", f"output={tmp_path / 'file' / 'report.html'}", "images=0")
    assert ended.code == 2
    assert "give another output" in ended.err
    assert "names no folder" in command("report", "runs=nowhere/*").err


@pytest.mark.parametrize("words", [1, 6, 12, 40])
def test_a_legend_is_no_wider_than_its_figure(words: int) -> None:
    """Long names stand beneath each other, and break."""
    names = [" ".join([f"loss{letter}=1"] * words) for letter in "abc"]
    svg = draw_scatter(dict.fromkeys(names, (1.0, 2.0)), names, "across", "up")
    wide = re.search(r'viewBox="0 0 ([\d.]+) ', svg)
    assert wide is not None
    assert float(wide[1]) <= 7 * 72  # points of 7 inches


def test_curves_are_means_over_stretches(tmp_path: Path) -> None:
    run = folder(tmp_path, 0.4)
    with (run / "metrics.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "train/total"])
        writer.writerows([[i, i % 2] for i in range(240)])
    (found,), _ = find_runs([str(run)])
    steps, values = _thinned([found.curves()["train/total"]])
    assert len(steps) == 60
    assert steps[-1] == 239
    assert np.allclose(values, 0.5)
