"""Names of any Unicode text pass through every format of a table, and no format takes them for markup."""

from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from segkd.utils.progress import track
from segkd.utils.tables import build_rich_table, print_table, to_csv, to_latex, to_markdown
from segkd.utils.text import escape_controls
from segkd.utils.threads import thread_map

ODD_NAMES = (
    "sign [front]", "[/b]", "[red]x", ":car:", "a|b", "a\\|b", "50 % & $x^2$ {~\\}", "<b>", "*", "_x_", "läufer",
    "道路", "שדה", "a\nb", "\x1b[31mred", "‮cba", "",
)  # fmt: skip

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
quick = settings(derandomize=True, max_examples=60, deadline=None)


def parse_markdown(line: str) -> list[str]:
    """Return the cells of a line as GitHub shows them: split at bars without a backslash, and unescaped."""
    cells = re.findall(r"\|((?:\\.|[^|\\])*)", line, re.DOTALL)
    assert cells.pop() == ""  # behind the last bar
    return [re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", cell.removeprefix(" ").removesuffix(" ")) for cell in cells]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_in_the_table_for_people(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_table([["class", name], [name, "1.00"], ["other", "2.00"]], "table", f"scores of {name}")
    printed = capsys.readouterr().out.splitlines()
    assert escape_controls(name) in printed[0]
    assert printed[2].split("┃")[2].strip() == escape_controls(name).strip()
    assert printed[4].split("│")[1].strip() == escape_controls(name).strip()
    assert len({cell_len(line) for line in printed[1:]}) == 1  # the lines of the frame meet


@quick
@given(st.lists(st.tuples(names, names, names), min_size=1, max_size=4))
@example([(name, name, name) for name in ODD_NAMES])
@example([("\r", "a\rb", "\x00")])
def test_names_come_back_from_csv_and_markdown(rows: list[tuple[str, ...]]) -> None:
    assert [tuple(row) for row in csv.reader(io.StringIO(to_csv(rows), newline=""))] == rows
    header, ruler, *lines = map(parse_markdown, to_markdown(rows).split("\n"))
    assert ruler == ["---", "---:", "---:"]
    assert [header, *lines] == [[escape_controls(cell) for cell in row] for row in rows]


@quick
@given(st.lists(st.tuples(names, names), min_size=1, max_size=4))
@example([(name, name) for name in ODD_NAMES])
def test_latex_keeps_columns_and_braces(rows: list[tuple[str, ...]]) -> None:
    """No command begins and no group ends in a cell, besides the escapes."""
    lines = to_latex(rows).split("\n")
    assert len(lines) == len(rows) + 5
    for line in [lines[2], *lines[4:-2]]:
        text = re.sub(r"\\text[a-z]+\{\}|\$\\(pm|times)\$|\{[\[\]*]\}|\\[%&#${}_]", "x", line.removesuffix(r" \\"))
        assert text.count(" & ") >= 1
        assert text.count("&") == 1
        assert not set(text) & set("\\{}$#%_^~[]*")


@quick
@given(names, st.integers(24, 60))
def test_columns_meet_at_any_width(name: str, width: int) -> None:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(build_rich_table([["class", "IoU %"], [name, "12.34"]], "", width))
    lines = console.file.getvalue().rstrip("\n").split("\n")
    assert len({cell_len(line) for line in lines}) == 1
    assert "12.34" in console.file.getvalue()


def test_a_cell_taken_for_markup_would_lose_its_brackets() -> None:
    """What the table did before: two classes of one name, and an error at a tag that closes nothing."""
    console = Console(width=40, file=io.StringIO())
    console.print("sign [front]")
    assert "front" not in console.file.getvalue()


@pytest.mark.parametrize("name", ODD_NAMES)
def test_progress_shows_any_title(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(thread_map(abs, [-1, 2], 1, f"reading {name}")) == [1, 2]
    assert list(track(iter([3]), name, None)) == [3]
    assert f"reading {escape_controls(name)}"[:40] in capsys.readouterr().err
