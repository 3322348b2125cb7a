"""The curves of a run at Weights & Biases, which may fail in any way without the run noticing."""

from __future__ import annotations

import netrc
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

Mode = Literal["auto", "online", "offline", "disabled"]


class WandbCurves(Logger):
    """One W&B run.

    Whatever goes wrong at W&B is told once, on stderr, and nothing more is sent; `metrics.csv` has it all anyway.

    Args:
        directory: the run's folder, which also holds what an offline run leaves (`wandb sync` uploads it later).
        config: the resolved config.
        mode: auto is online where a key is known, else offline.
        project: W&B project.
        entity: W&B user or team; None for the key's own.
        name: of the run.
        group: of the run, for the members of a sweep.
        tags: of the run.
        timeout: seconds to wait for the server at the start.
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
                timeout=timeout,
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
    def _start(self, timeout: int, **arguments: Any) -> None:
        try:
            import wandb
        except ImportError:
            print("segkd: wandb is not installed; curves go to metrics.csv alone", file=sys.stderr)
            return

        def start() -> None:
            self._run = wandb.init(**arguments, settings=wandb.Settings(init_timeout=timeout, silent=True))
            # Our step is a value: W&B drops rows whose own step goes back, as after a resume.
            self._run.define_metric("*", step_metric="step")

        self._safely(start)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the config was given at the start."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._safely(lambda: self._run.log({**metrics, "step": step}))

    @rank_zero_only
    def finish(self) -> None:
        """Close the run, so that the next one of a sweep is another."""
        self._safely(lambda: self._run.finish())
        self._run = None

    def _safely(self, call: Callable[[], Any]) -> None:
        if self._run is None and call.__name__ != "start":
            return
        try:
            call()
        except Exception as error:
            self._run = None
            print(f"segkd: W&B failed and is left out from here on ({type(error).__name__}: {error})", file=sys.stderr)


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
