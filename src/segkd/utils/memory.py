"""Recognize that memory has run out."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

_EXHAUSTED = re.compile(
    r"out of memory|OutOfMemoryError|can't allocate memory|cannot allocate memory|not enough memory|insufficient memory"
    r"|failed to allocate|unable to allocate|_ALLOC_FAILED|bad_alloc|bad allocation|MemoryError"
    r"|DataLoader worker .*(?:killed by signal: (?:Killed|Bus error)|exited unexpectedly)",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error, or one that it was raised from, says that the memory of the machine or its GPU has run out.

    It goes by names and texts: importing torch and OpenCV for their types would take seconds.
    """
    return any(map(_is_exhausted, _list_causes(error)))


def _is_exhausted(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # torch raises RuntimeError, OpenCV cv2.error, ONNX Runtime classes of its own; another text may only quote the words.
    is_foreign = isinstance(error, RuntimeError) or not type(error).__module__.startswith(
        ("builtins", "segkd", "hydra")
    )
    return is_foreign and _EXHAUSTED.search(str(error)) is not None


def _list_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it was raised from."""
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__
