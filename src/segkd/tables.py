"""A table for people, and the same for a page, a paper and a program."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import Literal

from rich.console import Console
from rich.table import Table

Cells = Sequence[Sequence[str]]
"""Rows of a table, its titles first; the first column holds names."""
Format = Literal["table", "markdown", "csv", "latex"]

_LATEX = str.maketrans({"%": r"\%", "_": r"\_", "&": r"\&", "#": r"\#", "±": r"$\pm$", "×": r"$\times$", "–": "--"})


def show(cells: Cells, form: Format, title: str = "") -> None:
    """Print a table on stdout; only the one for people has its title."""
    if form == "table":
        Console().print(_rich(cells, title))
    else:
        print(_WRITERS[form](cells))


def markdown(cells: Cells) -> str:
    """As GitHub shows it."""
    titles, *lines = cells
    ruler = ["---", *["---:"] * (len(titles) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (titles, ruler, *lines))


def latex(cells: Cells) -> str:
    """A `tabular` with the rules of booktabs."""
    titles, *lines = [" & ".join(cell.translate(_LATEX) for cell in line) + r" \\" for line in cells]
    columns = "l" + "r" * (len(cells[0]) - 1)
    body = (titles, r"\midrule", *lines)
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *body, r"\bottomrule", r"\end{tabular}"])


def comma_separated(cells: Cells) -> str:
    """RFC 4180, lines ended as here."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(cells)
    return text.getvalue().rstrip("\n")


def _rich(cells: Cells, title: str) -> Table:
    titles, *lines = cells
    table = Table(title=title)
    for place, name in enumerate(titles):
        table.add_column(name, justify="right" if place else "left", no_wrap=not place)
    for line in lines:
        table.add_row(*line)
    return table


_WRITERS: dict[str, Callable[[Cells], str]] = {"markdown": markdown, "csv": comma_separated, "latex": latex}
