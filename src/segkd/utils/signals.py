"""SIGTERM and SIGINT as a wish that is granted where a run can be continued from."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM)


class GracefulShutdown:
    """Within it, a signal that asks to stop ends the process with 128 + its number: at once, or, while `deferred`, when asked.

    The handler itself only takes a note: whatever saves, or speaks with other processes, within a handler can meet itself half
    done. Processes that are forked meanwhile (a loader's workers) leave the answer to their parent.
    """

    def __init__(self) -> None:
        self.received = 0
        """The number of the signal that came last."""
        self.deferred = False
        self._process = os.getpid()
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> GracefulShutdown:
        self._former = {number: signal.getsignal(number) for number in STOPPING}
        self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._set(self._former)

    def install(self) -> None:
        """Take the signals over; again, where Lightning has put handlers of its own, which deadlock between processes."""
        self._set(dict.fromkeys(STOPPING, self._note))

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if os.getpid() != self._process:
            return
        self.received = number
        if not self.deferred:
            raise SystemExit(128 + number)

    @staticmethod
    def _set(handlers: dict[signal.Signals, Any]) -> None:
        if threading.current_thread() is threading.main_thread():  # no other may
            for number, handler in handlers.items():
                signal.signal(number, handler)
