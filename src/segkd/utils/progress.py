"""A progress bar on stderr."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from segkd.utils.text import escape_controls

T = TypeVar("T")


def track(items: Iterable[T], title: str, total: float | None) -> Iterator[T]:
    """Yield the items, and show how many have passed; the title is plain text, and an empty one shows no bar.

    Args:
        items: of any length.
        title: the text beside the bar.
        total: number of items; None if it is unknown.
    """
    if not title:
        yield from items
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(show_speed=True),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield from progress.track(items, total, description=escape_controls(title))
