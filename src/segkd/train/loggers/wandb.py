"""Log to Weights & Biases."""

from __future__ import annotations

import logging
import netrc
import os
import secrets
import string
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

from pytorch_lightning.loggers.logger import Logger

from segkd.train.loggers.run_info import RunInfo

Mode = Literal["auto", "online", "offline", "disabled"]

_ALPHABET = string.ascii_lowercase + string.digits

log = logging.getLogger(__name__)


class WandbLogger(Logger):
    """One W&B run, also where the training is resumed.

    What is not given here is what W&B's environment variables say, and else a default of segkd. An id of the environment is
    not used in a sweep, whose jobs are runs of their own.

    Args:
        run: the run; its folder also holds the files of an offline run (`wandb sync` uploads them later).
        mode: auto is WANDB_MODE, or else online where there is an API key, and offline where there is none.
        project: None for WANDB_PROJECT, or `segkd`.
        entity: user or team; None for WANDB_ENTITY, or that of the key.
        group: None for WANDB_RUN_GROUP, or the sweep's.
        tags: empty for WANDB_TAGS.
        timeout: seconds to wait for the server.
    """

    title = "W&B"

    def __init__(
        self,
        run: RunInfo,
        mode: Mode = "auto",
        project: str | None = None,
        entity: str | None = None,
        group: str | None = None,
        tags: Sequence[str] = (),
        timeout: float = 30,
    ) -> None:
        import wandb

        super().__init__()
        self._wandb, self._data_folder = wandb, str(run.directory.absolute() / "wandb")
        self._set_data_folder()
        environment = {key: value for key, value in os.environ.items() if key.startswith("WANDB_") and value}
        own_tags = list(tags) or [tag.strip() for tag in environment.get("WANDB_TAGS", "").split(",") if tag.strip()]
        run_id = _choose_id(run, environment.get("WANDB_RUN_ID"))
        self._run = wandb.init(
            dir=environment.get("WANDB_DIR") or str(run.directory),
            config=run.config,
            mode=choose_mode(mode),
            project=project or environment.get("WANDB_PROJECT") or "segkd",
            entity=entity or environment.get("WANDB_ENTITY"),
            name=environment.get("WANDB_NAME") or run.name,
            group=group or environment.get("WANDB_RUN_GROUP") or run.group,
            tags=own_tags,
            id=run_id,
            resume="allow",
            settings=wandb.Settings(init_timeout=timeout, silent=True),
        )
        # Our step is a value: W&B drops rows whose own step goes back, as after a resume.
        self._run.define_metric("*", step_metric="step")
        run.keep_id("wandb", run_id)

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
        """The W&B run."""
        return self._run

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the config was given at the start."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Send a row."""
        self._run.log({**metrics, "step": step})

    def log_media(self, build: Callable[[Any], dict[str, Any]], step: int) -> None:
        """Log images and tables, which `build` makes with the package `wandb`; they do not go to `metrics.csv`."""
        self._set_data_folder()
        self._run.log({**build(self._wandb), "step": step})

    def finalize(self, status: str) -> None:
        """Close the run, so that the next job of a sweep starts another."""
        self._run.finish(exit_code=int(status != "success"))

    def _set_data_folder(self) -> None:
        """Set the folder of W&B's copies of tables, which it would else keep in the user's home, and sync from there."""
        os.environ.setdefault("WANDB_DATA_DIR", self._data_folder)


def choose_mode(mode: Mode) -> Any:
    """Return W&B's word for the mode."""
    if mode != "auto":
        return mode
    return os.environ.get("WANDB_MODE") or ("online" if _has_api_key() else "offline")


def _choose_id(run: RunInfo, given: str | None) -> str:
    if given is not None and run.is_job:
        log.warning("WANDB_RUN_ID=%s is not used in a sweep, since each job is a W&B run of its own", given)
        given = None
    return given or run.find_id("wandb") or "".join(secrets.choice(_ALPHABET) for _ in range(8))


def _has_api_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "")).hostname or "api.wandb.ai"
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
