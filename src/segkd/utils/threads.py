"""Map a function over items in threads: OpenCV and hashing release Python's lock."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from segkd.utils.progress import track

T = TypeVar("T")
R = TypeVar("R")

_BUFFERED_PER_WORKER = 8  # results may be images, so few of them wait to be consumed


def thread_map(function: Callable[[T], R], items: Sequence[T], workers: int, progress: str) -> Iterator[R]:
    """Yield the function's results in the order of the items.

    Args:
        function: called with each item.
        items: its arguments.
        workers: threads.
        progress: the text beside a progress bar on stderr; empty for no bar.
    """
    yield from track(_map_in_chunks(function, items, workers), progress, len(items))


def _map_in_chunks(function: Callable[[T], R], items: Sequence[T], workers: int) -> Iterator[R]:
    with ThreadPoolExecutor(workers) as pool:
        size = _BUFFERED_PER_WORKER * workers
        for start in range(0, len(items), size):
            yield from pool.map(function, items[start : start + size])
