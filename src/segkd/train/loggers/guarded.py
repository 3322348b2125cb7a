"""Keep loggers from stopping or altering a run."""

from __future__ import annotations

import atexit
import contextlib
import logging
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pytorch_lightning.loggers.logger import DummyExperiment, Logger  # type: ignore[attr-defined]

from segkd.errors import UserError
from segkd.utils.call_thread import CallThread
from segkd.utils.global_state import unaltered_global_state

MAX_REASON = 200
"""Greatest length of an error's text in the message."""

_MISSING = object()

log = logging.getLogger(__name__)


class GuardedLogger(Logger):
    """A logger that is made and called in a thread of its own, without effect on random numbers and other global state.

    The first error or timeout is logged; the logger is then closed if possible, and left alone. To callbacks it looks like
    the logger itself: it passes `isinstance`, and has its attributes. What a callback does with `experiment` is not guarded.

    Args:
        title: what it is called in messages.
        build: makes the logger; None for a process that does not log.
        timeout: seconds to wait for each call.

    Raises:
        UserError: a package that the logger needs is not installed.
    """

    def __init__(self, title: str, build: Callable[[], Logger] | None, timeout: float) -> None:
        super().__init__()
        self._title, self._timeout, self._thread = title, timeout, CallThread()
        self._logger: Logger | None = None
        self._exit_functions: list[Callable[..., Any]] = []
        self._has_failed = False
        if build is not None:
            # A package that is missing is always missing, and no reason to train without the logger.
            self._logger = self._call(build, factor=1.5, fatal=ModuleNotFoundError)  # W&B's own timeout says more

    @property
    def is_active(self) -> bool:
        """Whether it still logs."""
        return self._logger is not None

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self) if self._logger is None else type(self._logger)

    @property
    def name(self) -> str | None:
        """The logger's name; empty for one that has failed."""
        return self._get("name", "")  # type: ignore[no-any-return]

    @property
    def version(self) -> int | str | None:
        """The logger's version; empty for one that has failed."""
        return self._get("version", "")  # type: ignore[no-any-return]

    @property
    def save_dir(self) -> str | None:
        """The logger's folder."""
        return self._get("save_dir", None)  # type: ignore[no-any-return]

    @property
    def root_dir(self) -> str | None:
        """The logger's root folder."""
        return self._get("root_dir", None)  # type: ignore[no-any-return]

    @property
    def log_dir(self) -> str | None:
        """The logger's folder for this run."""
        return self._get("log_dir", None)  # type: ignore[no-any-return]

    @property
    def experiment(self) -> Any:
        """What the logger logs to; of one that has failed, an object whose methods do nothing."""
        value = self._get("experiment", DummyExperiment())
        if value is _MISSING:  # a logger needs none, and Lightning asks whether there is one
            raise AttributeError("the logger has no experiment")
        return value

    def __getattr__(self, name: str) -> Any:
        """Return a method of the logger, guarded, or another attribute."""
        if name.startswith("__"):
            raise AttributeError(name)
        value = self._get(name, None)
        if value is _MISSING:
            raise AttributeError(f"the logger has no {name}")
        return value if not callable(value) and self.is_active else lambda *a, **k: self._do(name, *a, **k)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Pass a row on."""
        self._do("log_metrics", dict(metrics), step)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Pass the config on."""
        self._do("log_hyperparams", params, *args, **kwargs)

    def log_graph(self, *args: Any, **kwargs: Any) -> None:
        """Pass the model on."""
        self._do("log_graph", *args, **kwargs)

    def save(self) -> None:
        """Let the logger write what it keeps."""
        self._do("save")

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Tell the logger of a checkpoint of Lightning's own callback."""
        self._do("after_save_checkpoint", checkpoint_callback)

    def finalize(self, status: str) -> None:
        """Do nothing: Lightning calls this after each of a run's loops; see `close`."""

    def close(self, status: str) -> None:
        """End the logger: `success`, `failed`, or `aborted` for a run that was asked to stop."""
        self._do("finalize", status)
        self._logger = None

    def _do(self, method: str, *args: Any, **kwargs: Any) -> Any:
        logger = self._logger
        return None if logger is None else self._call(lambda: getattr(logger, method)(*args, **kwargs))

    def _get(self, name: str, default: Any) -> Any:
        logger = self.__dict__.get("_logger")
        value = None if logger is None else self._call(lambda: getattr(logger, name, _MISSING))
        return value if self.__dict__.get("_logger") is not None else default

    def _call(self, function: Callable[[], Any], factor: float = 1.0, fatal: type[Exception] | tuple[()] = ()) -> Any:
        """Return the call's result; on an error that is not fatal, or a timeout, close the logger and return None."""
        seconds = factor * self._timeout
        try:
            with unaltered_global_state(), self._recorded_exit_functions():
                return self._thread.call(function, seconds)
        except fatal as error:
            raise UserError(f"{self._title} cannot log: {error}; install it, or leave it out of logger=[…]") from None
        except Exception as error:
            text = " ".join(str(error).split())[:MAX_REASON]
            reason = text or (f"no answer in {seconds:g} s" if isinstance(error, TimeoutError) else "no reason given")
            log.warning("%s failed and is disabled from here on (%s: %s)", self._title, type(error).__name__, reason)
            self._abandon()
            return None

    def _abandon(self) -> None:
        """Close the logger, in another thread, since the first may hang in it."""
        logger, self._logger, self._has_failed = self._logger, None, True
        if logger is not None:
            with contextlib.suppress(Exception), unaltered_global_state():
                CallThread().call(lambda: logger.finalize("failed"), self._timeout)
        for function in self._exit_functions:  # W&B's waits for its own process, even for one that hangs
            atexit.unregister(function)

    @contextlib.contextmanager
    def _recorded_exit_functions(self) -> Iterator[None]:
        """Note what the logger asks Python to do at the end of the process; refuse it once the logger has failed."""
        register = atexit.register

        def record(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[..., Any]:
            if self._thread.is_current() and self._has_failed:
                return function
            if self._thread.is_current():
                self._exit_functions.append(function)
            return register(function, *args, **kwargs)

        atexit.register = record  # type: ignore[assignment]
        try:
            yield
        except TimeoutError:  # the thread goes on, and may ask for more
            raise
        except BaseException:
            atexit.register = register
            raise
        atexit.register = register
