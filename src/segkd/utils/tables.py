"""Print a table for people, or as markdown, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segkd.utils.text import escape_controls

Rows = Sequence[Sequence[str]]
"""Rows of a table, the header first; the first column holds names. Cells are plain text, which no format takes for markup."""
TableFormat = Literal["table", "markdown", "csv", "latex"]

_MIN_NAME_WIDTH = 10  # of the first column; a longer word breaks
_MARKDOWN = re.compile(r"[\\`*\[\]<>~|$&]|(?<!\w)_|_(?!\w)")
_LATEX = str.maketrans(
    {
        **{sign: rf"\{sign}" for sign in "%_&#${}"},
        **{sign: f"{{{sign}}}" for sign in "[]*"},  # after a line's \\ they would be its arguments
        "\\": r"\textbackslash{}",
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        "×": r"$\times$",
        "–": "--",
    }
)


def print_table(rows: Rows, table_format: TableFormat, title: str = "") -> None:
    """Print a table on stdout; only the one for people has its title."""
    if table_format == "table":
        rows, console = _escape_rows(rows), Console()
        if not console.is_terminal:  # a file or a pipe is as wide as needed
            console = Console(width=max(console.width, sum(_measure_columns(rows)) + _measure_frame(rows)))
        console.print(build_rich_table(rows, title, console.width))
    else:
        print(_WRITERS[table_format](rows))


def to_markdown(rows: Rows) -> str:
    """Return the table in GitHub's markdown."""
    ruler = ["---", *["---:"] * (len(rows[0]) - 1)]
    header, *lines = [[_MARKDOWN.sub(r"\\\g<0>", escape_controls(cell)) for cell in line] for line in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ruler, *lines))


def to_latex(rows: Rows) -> str:
    """Return the table as a `tabular` with the rules of booktabs."""
    header, *lines = [" & ".join(escape_controls(cell).translate(_LATEX) for cell in line) + r" \\" for line in rows]
    columns = "l" + "r" * (len(rows[0]) - 1)
    body = (header, r"\midrule", *lines)
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *body, r"\bottomrule", r"\end{tabular}"])


def to_csv(rows: Rows) -> str:
    """Return the table as CSV (RFC 4180, with newlines as line ends)."""
    return "\n".join(map(_to_csv_line, rows))


def build_rich_table(rows: Rows, title: str, width: int) -> Table:
    """Return the table for a terminal of `width` characters."""
    cells = _escape_rows(rows)
    header, *lines = [[Text(cell) for cell in line] for line in cells]
    table = Table(title=Text(escape_controls(title), "table.title") if title else None)
    column_widths = _fit_columns(cells, width - _measure_frame(rows))
    for index, (name, column_width) in enumerate(zip(header, column_widths, strict=True)):
        table.add_column(name, justify="right" if index else "left", width=column_width, overflow="fold")
    for line in lines:
        table.add_row(*line)
    return table


def _escape_rows(rows: Rows) -> Rows:
    return [[escape_controls(cell) for cell in line] for line in rows]


def _to_csv_line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)  # so cells with either of these are quoted
    return text.getvalue().removesuffix("\r\n")


def _fit_columns(rows: Rows, width: int) -> list[int]:
    """Return the width of each column; where all need more than `width`, numbers keep their longest word and names get the rest."""
    natural = _measure_columns(rows)
    if sum(natural) <= width:
        return natural
    numbers = _measure_columns(_keep_longest_words(rows))[1:]
    if _MIN_NAME_WIDTH + sum(numbers) > width:
        numbers = _measure_columns(_keep_longest_words(rows[1:] or rows))[1:]  # the header may break
    return [max(width - sum(numbers), _MIN_NAME_WIDTH), *numbers]


def _keep_longest_words(rows: Rows) -> Rows:
    return [[max(cell.split(), key=cell_len, default="") for cell in line] for line in rows]


def _measure_columns(rows: Rows) -> list[int]:
    return [max(map(cell_len, column)) for column in zip(*rows, strict=True)]


def _measure_frame(rows: Rows) -> int:
    """Return the characters of lines and blanks between columns."""
    return 3 * len(rows[0]) + 1


_WRITERS: dict[str, Callable[[Rows], str]] = {"markdown": to_markdown, "csv": to_csv, "latex": to_latex}
