"""Choose the folder of a run, and keep other trainings out of it."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from segkd.config.training import TrainSettings
from segkd.errors import UserError
from segkd.runs.layout import LOCK_FILE
from segkd.train.check_settings import is_multirun
from segkd.utils.files import exclusive_lock
from segkd.utils.processes import is_rank_zero


def choose_run_folder(cfg: DictConfig, settings: TrainSettings) -> Path:
    """Return the folder of the run, which Hydra has made; by default every start has a new one.

    Raises:
        UserError: `resume=auto` in a new folder, where there is never anything to resume.
    """
    directory = Path(HydraConfig.get().runtime.output_dir)
    config = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=False))
    is_default = "${now:" in str(config["output_dir"])
    is_new = is_default and (settings.dry_run or directory == settings.output_dir.absolute())
    if is_new and settings.resume == "auto" and not is_multirun():
        raise UserError("resume=auto continues the run in output_dir, and none is given; give output_dir=DIR")
    if is_new and not settings.dry_run and not is_rank_zero():
        with contextlib.suppress(OSError):
            directory.rmdir()  # the first process has another, which is that of the run
    return directory


@contextlib.contextmanager
def lock_run_folder(directory: Path, settings: TrainSettings) -> Iterator[None]:
    """Keep other trainings out of the folder; a job of a sweep waits for its turn.

    Raises:
        UserError: another training is at work there, or the folder cannot be written.
    """
    if settings.dry_run or not is_rank_zero():  # the other processes are of the same run
        yield
        return
    refusal = f"another training is at work in {directory}; wait for it, or give another output_dir"
    holder = f"another process that is at work in {directory}"
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive_lock(directory / LOCK_FILE, holder, None if is_multirun() else refusal))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            raise UserError(f"cannot write to {directory} ({error.strerror}); give another output_dir") from None
        yield
