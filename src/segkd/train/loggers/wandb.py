"""Log to Weights & Biases; whatever fails there, the training continues."""

from __future__ import annotations

import contextlib
import logging
import netrc
import os
import threading
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

_NO_DATA_FOLDER = "WANDB_DATA_DIR" not in os.environ

Mode = Literal["auto", "online", "offline", "disabled"]

log = logging.getLogger(__name__)


class ResilientWandbLogger(Logger):
    """One W&B run.

    An error or a timeout of W&B is logged once; its run is closed if possible, and nothing more is sent. `metrics.csv` holds all
    curves anyway.

    Args:
        directory: the run's folder, which also holds the files of an offline run (`wandb sync` uploads them later).
        config: the resolved config.
        mode: auto is online where there is an API key, else offline.
        project: W&B project.
        entity: W&B user or team; None for that of the key.
        name: of the run.
        group: of the run, for the members of a sweep.
        tags: of the run.
        timeout: seconds to wait for the server at the start, and for W&B at any later call.
    """

    def __init__(
        self,
        directory: Path,
        config: Mapping[str, Any],
        mode: Mode = "auto",
        project: str = "segkd",
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        tags: Sequence[str] = (),
        timeout: int = 30,
    ) -> None:
        super().__init__()
        self._run: Any = None
        self._wandb: Any = None
        self._timeout = timeout
        chosen = ("online" if _has_api_key() else "offline") if mode == "auto" else mode
        if mode == "auto":
            chosen = os.environ.get("WANDB_MODE", chosen)  # type: ignore[assignment]
        if chosen != "disabled":
            self._start(
                dir=str(directory),
                config=dict(config),
                mode=chosen,
                project=project,
                entity=entity,
                name=name,
                group=group,
                tags=list(tags),
            )

    @property
    def name(self) -> str:
        """The logger's name."""
        return "wandb"

    @property
    def version(self) -> str:
        """Empty: W&B numbers its runs itself."""
        return ""

    @property
    def experiment(self) -> Any:
        """The W&B run, or None."""
        return self._run

    @rank_zero_only
    def _start(self, **arguments: Any) -> None:
        try:
            import wandb
        except ImportError:
            log.warning("wandb is not installed; curves go to metrics.csv only")
            return
        self._wandb = wandb
        if _NO_DATA_FOLDER:  # W&B would keep copies of tables in the user's home, and sync them from there
            os.environ["WANDB_DATA_DIR"] = str(Path(arguments["dir"]).absolute() / "wandb")

        def start() -> Any:
            run = wandb.init(**arguments, settings=wandb.Settings(init_timeout=self._timeout, silent=True))
            # Our step is a value: W&B drops rows whose own step goes back, as after a resume.
            run.define_metric("*", step_metric="step")
            return run

        self._run = self._call_safely(start, 1.5 * self._timeout)  # W&B's own error says more, and comes first

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the config was given at the start."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Send a row."""
        if (run := self._run) is not None:
            self._call_safely(lambda: run.log({**metrics, "step": step}), self._timeout)

    @rank_zero_only
    def log_media(self, build: Callable[[Any], dict[str, Any]], step: int) -> None:
        """Log images and tables, which `build` makes with the package `wandb`; they do not go to `metrics.csv`."""
        if (run := self._run) is not None:
            self._call_safely(lambda: run.log({**build(self._wandb), "step": step}), self._timeout)

    @rank_zero_only
    def finish(self) -> None:
        """Close the run, so that the next job of a sweep starts another."""
        run, self._run = self._run, None
        if run is not None:
            self._call_safely(run.finish, self._timeout)

    def _call_safely(self, call: Callable[[], Any], seconds: float) -> Any:
        """Return the call's result; on an error or a timeout, close the run and return None."""
        try:
            return _run_within(seconds, call)
        except Exception as error:
            reason = str(error) or f"no answer in {seconds:g} s"
            log.warning("W&B failed and is disabled from here on (%s: %s)", type(error).__name__, reason)
            run, self._run = self._run, None
            if run is not None:
                with contextlib.suppress(Exception):
                    _run_within(seconds, run.finish)
            return None


def _run_within(seconds: float, call: Callable[[], Any]) -> Any:
    """Return or raise what the call does; raise TimeoutError where it takes longer, and leave it running."""
    outcome: Future[Any] = Future()
    threading.Thread(target=_store_outcome, args=(outcome, call), daemon=True).start()
    return outcome.result(seconds)


def _store_outcome(outcome: Future[Any], call: Callable[[], Any]) -> None:
    try:
        outcome.set_result(call())
    except BaseException as error:
        outcome.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))


def _has_api_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
