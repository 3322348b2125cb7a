"""Record SIGTERM and SIGINT, so that a run stops where it can be resumed."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM)


class GracefulShutdown:
    """A context in which SIGINT and SIGTERM exit with 128 + number: at once, or, while `deferred`, when the run is ready.

    The handler only sets a flag: saving, or talking to other processes, within a handler could interrupt itself halfway. Forked
    processes (a loader's workers) leave the reaction to their parent.
    """

    def __init__(self) -> None:
        self.received = 0
        """The number of the last signal; 0 for none."""
        self.deferred = False
        self._process = os.getpid()
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> GracefulShutdown:
        self._previous = {number: signal.getsignal(number) for number in STOPPING}
        self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._set_handlers(self._previous)

    def install(self) -> None:
        """Install the handlers; again, after Lightning has installed its own, which deadlock between processes."""
        self._set_handlers(dict.fromkeys(STOPPING, self._record))

    def _record(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if os.getpid() != self._process:
            return
        self.received = number
        if not self.deferred:
            raise SystemExit(128 + number)

    @staticmethod
    def _set_handlers(handlers: dict[signal.Signals, Any]) -> None:
        if threading.current_thread() is threading.main_thread():  # no other thread may
            for number, handler in handlers.items():
                signal.signal(number, handler)
