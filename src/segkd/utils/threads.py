"""The same for many things at once, in threads: OpenCV and hashes leave Python's lock alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 8  # results for each thread that may wait for who takes them: pictures are large


def thread_map(function: Callable[[T], R], things: Sequence[T], workers: int, progress: str) -> Iterator[R]:
    """The function's results in the things' order.

    Args:
        workers: threads.
        progress: the text beside a progress bar on stderr; without it there is no bar.
    """
    console = Console(stderr=True)
    yield from track(_results(function, things, workers), progress, len(things), console=console, disable=not progress)


def _results(function: Callable[[T], R], things: Sequence[T], workers: int) -> Iterator[R]:
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(things), _AHEAD * workers):
            yield from pool.map(function, things[start : start + _AHEAD * workers])
