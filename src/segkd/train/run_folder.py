"""The folder of a run: what is written there before, during and after the training."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from pytorch_lightning.loggers.logger import Logger

from segkd import __version__
from segkd.config.training import TrainSettings
from segkd.data.base import SegmentationDataset
from segkd.data.own_ids import describe_ids
from segkd.distillation.distiller import Distiller
from segkd.errors import UserError
from segkd.models.checkpoint_io import describe_zeroed
from segkd.models.student_io import save_student
from segkd.runs.layout import (
    LAST_CHECKPOINT,
    LOCK_FILE,
    LOGGER_IDS_FILE,
    METRICS_FILE,
    RECORD_FILES,
    SUMMARY_FILE,
)
from segkd.runs.record import write_record
from segkd.train.check_settings import is_multirun
from segkd.train.loggers.build import build_loggers
from segkd.train.loggers.csv import MetricsFileLogger
from segkd.train.loggers.guarded import GuardedLogger
from segkd.train.loggers.run_info import RunInfo
from segkd.utils.files import atomic_write, sha256, write_json
from segkd.utils.memory import is_out_of_memory
from segkd.utils.processes import is_rank_zero

log = logging.getLogger(__name__)


@contextlib.contextmanager
def explain_full_disk(directory: Path) -> Iterator[None]:
    """Turn "no space left" into a sentence; checkpoints and curves wait for room by themselves.

    Raises:
        UserError: the record or the result could not be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UserError(
            f"no space is left for {directory}; free some, and continue with resume=auto output_dir={directory}"
        ) from None


class RunFolder:
    """Writes a run's record when it is entered, and its result by `finish`.

    A run that a user's mistake or a lack of memory ends before its first checkpoint leaves nothing behind.

    Args:
        directory: the folder; made if it is not there.
        settings: of the training.
        config: the resolved config, which becomes `config.yaml`.
        distiller: what is trained.
        splits: train and val.
    """

    def __init__(
        self,
        directory: Path,
        settings: TrainSettings,
        config: dict[str, Any],
        distiller: Distiller,
        splits: Mapping[str, SegmentationDataset],
    ) -> None:
        self.directory, self.settings = directory, settings
        self._config = {**config, "output_dir": str(directory)}
        self._splits = splits
        self._step_count = int(distiller.step_count)
        self._distillation_terms = _list_distillation_terms(distiller)
        self._teacher_hash = _hash_teacher(distiller)
        self._is_trained = False

    def __enter__(self) -> RunFolder:
        curves = MetricsFileLogger(self.directory)
        self.loggers: list[Logger] = []
        if is_rank_zero():
            self.directory.mkdir(parents=True, exist_ok=True)
            self._is_new = not any(path.name != LOCK_FILE for path in self.directory.iterdir())
            write_record(self.directory, self._config, self.settings.seed, self._splits, self._distillation_terms)
            curves.truncate_after(self._step_count)
            if not self._step_count:
                (self.directory / LOGGER_IDS_FILE).unlink(missing_ok=True)
        info = RunInfo(
            self.directory, _name_run(self.settings), _name_sweep(), self._config, self._step_count, is_multirun()
        )
        try:
            for logger in build_loggers(self.settings.logger, self.settings.wandb, info, curves):
                self.loggers.append(logger)  # one by one: those that are built are closed where the next is refused
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_stop = isinstance(error, SystemExit | KeyboardInterrupt)
        for logger in self.loggers:
            if issubclass(type(logger), GuardedLogger):  # `isinstance` would ask the logger within
                cast("GuardedLogger", logger).close("success" if error is None else "aborted" if is_stop else "failed")
        is_refused = isinstance(error, UserError) or (error is not None and is_out_of_memory(error))
        if is_refused and not self._is_trained and is_rank_zero():
            _remove_partial_run(self.directory, self._is_new)

    def finish(self, trainer: pl.Trainer, distiller: Distiller, dataset: SegmentationDataset, seconds: float) -> float:
        """Write the student and the summary, print one line, and return the last `val/miou`.

        Raises:
            RuntimeError: the teacher changed during the training.
        """
        self._is_trained = True
        miou = float(trainer.callback_metrics.get("val/miou", math.nan))
        if not trainer.is_global_zero:
            return miou
        if _hash_teacher(distiller) != self._teacher_hash:
            raise RuntimeError("the teacher changed while the student was trained; the result is invalid")
        num_zeroed = save_student(distiller.eval_model, self.directory, self._describe_training(dataset))
        steps = int(distiller.step_count)
        stopped_early = steps < distiller.total_steps
        summary: dict[str, Any] = {
            "val_miou": None if math.isnan(miou) else miou,
            "steps": steps,
            **({"stopped_early": True} if stopped_early else {}),
            "seconds": round(seconds, 1),
            "teacher_sha256": self._teacher_hash,
            "denormal_weights_zeroed": num_zeroed,
        }
        with atomic_write(self.directory / SUMMARY_FILE) as part:
            write_json(part, summary)
        early = f" of {distiller.total_steps}, stopped early by a callback," if stopped_early else ""
        print(
            f"{self.settings.name}: val mIoU {100 * miou:.2f} after {steps} step{'s' * (steps != 1)}{early} "
            f"in {seconds:.0f} s{describe_zeroed(num_zeroed)} → {self.directory}"
        )
        return miou

    def _describe_training(self, dataset: SegmentationDataset) -> dict[str, Any]:
        return {
            "classes": list(dataset.classes),
            "colors": [list(color) for color in dataset.colors],
            **describe_ids(dataset),
            "dataset": dataset.display_name,
            "experiment": self.settings.name,
            "seed": self.settings.seed,
            "segkd": __version__,
            "config_sha256": sha256(self.directory / RECORD_FILES[0]),
        }


def _list_distillation_terms(distiller: Distiller) -> list[str]:
    """Return the names of the terms that use the teacher."""
    losses = [name for name, loss in distiller.losses.named_losses() if loss.needs_teacher]
    return losses if distiller.adversary is None else [*losses, "adversarial"]


def _hash_teacher(distiller: Distiller) -> str | None:
    return None if distiller.teacher is None else distiller.teacher.state_hash()


def _name_run(settings: TrainSettings) -> str:
    overrides = HydraConfig.get().job.override_dirname
    return f"{settings.name}: {overrides}" if overrides else settings.name


def _name_sweep() -> str | None:
    """Return the name of a sweep's folder; None for a run of its own."""
    return Path(HydraConfig.get().sweep.dir).name if is_multirun() else None


def _remove_partial_run(directory: Path, is_new: bool) -> None:
    if not (directory / LAST_CHECKPOINT).exists():
        for name in (*RECORD_FILES, METRICS_FILE, LOGGER_IDS_FILE):
            (directory / name).unlink(missing_ok=True)
        if is_new:  # what loggers have left
            for path in [path for path in directory.iterdir() if path.name != LOCK_FILE]:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
