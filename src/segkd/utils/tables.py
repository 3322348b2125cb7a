"""A table for people, and the same for a page, a paper and a program."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import Literal

from rich.console import Console
from rich.table import Table

Rows = Sequence[Sequence[str]]
"""Rows of a table, its titles first; the first column holds names."""
TableFormat = Literal["table", "markdown", "csv", "latex"]

_LATEX = str.maketrans({"%": r"\%", "_": r"\_", "&": r"\&", "#": r"\#", "±": r"$\pm$", "×": r"$\times$", "–": "--"})


def print_table(cells: Rows, form: TableFormat, title: str = "") -> None:
    """Print a table on stdout; only the one for people has its title."""
    if form == "table":
        console = Console()
        if not console.is_terminal:  # a file or a pipe is as wide as need be
            console = Console(width=max(console.width, sum(_longest(cells)) + _frame(cells)))
        console.print(rich_table(cells, title, console.width))
    else:
        print(_WRITERS[form](cells))


def to_markdown(cells: Rows) -> str:
    """As GitHub shows it."""
    titles, *lines = cells
    ruler = ["---", *["---:"] * (len(titles) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (titles, ruler, *lines))


def to_latex(cells: Rows) -> str:
    """A `tabular` with the rules of booktabs."""
    titles, *lines = [" & ".join(cell.translate(_LATEX) for cell in line) + r" \\" for line in cells]
    columns = "l" + "r" * (len(cells[0]) - 1)
    body = (titles, r"\midrule", *lines)
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *body, r"\bottomrule", r"\end{tabular}"])


def to_csv(cells: Rows) -> str:
    """RFC 4180, lines ended as here."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(cells)
    return text.getvalue().rstrip("\n")


def rich_table(cells: Rows, title: str, room: int) -> Table:
    """For people, on lines of `room` letters."""
    titles, *lines = cells
    table = Table(title=title)
    for place, (name, width) in enumerate(zip(titles, _widths(cells, room - _frame(cells)), strict=True)):
        table.add_column(name, justify="right" if place else "left", width=width, overflow="fold")
    for line in lines:
        table.add_row(*line)
    return table


def _widths(cells: Rows, room: int) -> list[int]:
    """Of the columns. Where the whole has no room, figures take what their longest word does and names get the rest."""
    longest = _longest(cells)
    if sum(longest) <= room:
        return longest
    figures = _longest(_words(cells))[1:]
    if _NAME + sum(figures) > room:
        figures = _longest(_words(cells[1:] or cells))[1:]  # titles may break
    return [max(room - sum(figures), _NAME), *figures]


def _words(cells: Rows) -> Rows:
    """The longest word of each cell."""
    return [[max(cell.split(), key=len, default="") for cell in line] for line in cells]


def _longest(cells: Rows) -> list[int]:
    return [max(map(len, column)) for column in zip(*cells, strict=True)]


def _frame(cells: Rows) -> int:
    """What lines and blanks between columns take."""
    return 3 * len(cells[0]) + 1


_NAME = 10
"""What a name has at least; a longer word breaks."""

_WRITERS: dict[str, Callable[[Rows], str]] = {"markdown": to_markdown, "csv": to_csv, "latex": to_latex}
