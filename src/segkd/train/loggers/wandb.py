"""The curves of a run at Weights & Biases, which may fail in any way without the run noticing."""

from __future__ import annotations

import contextlib
import netrc
import os
import sys
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


class ResilientWandbLogger(Logger):
    """One W&B run.

    Whatever goes wrong at W&B, or takes longer than it may, is told once, on stderr; its run is closed as far as that can be
    and nothing more is sent. `metrics.csv` has it all anyway.

    Args:
        directory: the run's folder, which also holds what an offline run leaves (`wandb sync` uploads it later).
        config: the resolved config.
        mode: auto is online where a key is known, else offline.
        project: W&B project.
        entity: W&B user or team; None for the key's own.
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
        chosen = ("online" if _has_key() else "offline") if mode == "auto" else mode
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
        return "wandb"

    @property
    def version(self) -> str:
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
            print("segkd: wandb is not installed; curves go to metrics.csv alone", file=sys.stderr)
            return
        self._wandb = wandb
        if _NO_DATA_FOLDER:  # W&B would keep copies of tables in the user's home, and sync them from there
            os.environ["WANDB_DATA_DIR"] = str(Path(arguments["dir"]).absolute() / "wandb")

        def start() -> Any:
            run = wandb.init(**arguments, settings=wandb.Settings(init_timeout=self._timeout, silent=True))
            # Our step is a value: W&B drops rows whose own step goes back, as after a resume.
            run.define_metric("*", step_metric="step")
            return run

        self._run = self._safely(start, 1.5 * self._timeout)  # W&B's own error says more, and comes first

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the config was given at the start."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if (run := self._run) is not None:
            self._safely(lambda: run.log({**metrics, "step": step}), self._timeout)

    @rank_zero_only
    def log_media(self, made: Callable[[Any], dict[str, Any]], step: int) -> None:
        """A row of pictures and tables, made of the package `wandb`, which does not go to `metrics.csv`."""
        if (run := self._run) is not None:
            self._safely(lambda: run.log({**made(self._wandb), "step": step}), self._timeout)

    @rank_zero_only
    def finish(self) -> None:
        """Close the run, so that the next one of a sweep is another."""
        run, self._run = self._run, None
        if run is not None:
            self._safely(run.finish, self._timeout)

    def _safely(self, call: Callable[[], Any], seconds: float) -> Any:
        """What the call returns; None where it fails or is not over in time, and then there is no run any more."""
        try:
            return _within(seconds, call)
        except Exception as error:
            why = str(error) or f"no answer in {seconds:g} s"
            print(f"segkd: W&B failed and is left out from here on ({type(error).__name__}: {why})", file=sys.stderr)
            run, self._run = self._run, None
            if run is not None:
                with contextlib.suppress(Exception):
                    _within(seconds, run.finish)
            return None


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """What the call returns or raises; a TimeoutError where that takes longer, and then it is left to itself."""
    outcome: Future[Any] = Future()
    threading.Thread(target=_settle, args=(outcome, call), daemon=True).start()
    return outcome.result(seconds)


def _settle(outcome: Future[Any], call: Callable[[], Any]) -> None:
    try:
        outcome.set_result(call())
    except BaseException as error:
        outcome.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
