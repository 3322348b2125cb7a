"""Make calls in a thread of their own, and wait for each no longer than so many seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any


class CallThread:
    """A thread that makes one call after another; it ends with the process, whatever it is doing then.

    All calls come from the same thread, since a connection to SQLite, for example, works in the thread alone that opened it.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def is_current(self) -> bool:
        """Return whether it is asked from within one of its calls."""
        return self._thread is threading.current_thread()

    def call(self, function: Callable[[], Any], seconds: float) -> Any:
        """Return or raise what the function does; what is not an Exception, such as SystemExit, becomes a RuntimeError.

        Raises:
            TimeoutError: it takes longer; it goes on, and the calls after it wait for it.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
        outcome: Future[Any] = Future()
        self._calls.put((function, outcome))
        return outcome.result(seconds)

    def _work(self) -> None:
        while True:
            function, outcome = self._calls.get()
            try:
                outcome.set_result(function())
            except BaseException as error:
                outcome.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))
            del function, outcome  # or they would live until the next call
