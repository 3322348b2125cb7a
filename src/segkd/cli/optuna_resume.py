"""An Optuna sweep that can be resumed: its study is stored on disk, and the same command continues it."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write

from segkd.cli.logs import configure_logging
from segkd.cli.messages import print_error
from segkd.errors import UserError
from segkd.utils.files import exclusive_lock, make_dir

log = logging.getLogger(__name__)

_LOCK = ExitStack()  # of this process and not an attribute of the callback, which is pickled for other processes


class ResumableStudy(Callback):
    """Restore the study, and adapt the sweeper's config to it, before Hydra's Optuna sweeper starts; log the best trial.

    The sweeper alone would run all trials again, number their folders from 0, and leave an interrupted trial in the state
    `RUNNING`.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Lock the sweep's folder and prepare the rest of the sweep; exit with a sentence if that fails.

        Hydra would log an exception here as a warning, and start the sweep unchanged.
        """
        configure_logging()
        directory = Path(config.hydra.sweep.dir)
        try:
            lock = make_dir(directory) / ".lock"
            _LOCK.enter_context(exclusive_lock(lock, f"another process that is at work on the sweep in {directory}"))
            with read_write(config), open_dict(config):
                resume_study(config, directory)
        except Exception as error:
            _LOCK.close()
            raise SystemExit(print_error(error, "train")) from None

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the best trial; exit with code 1 if a trial failed."""
        _LOCK.close()
        trials = _load_study(config).trials
        complete = [trial for trial in trials if trial.value is not None]
        best = max(complete, key=lambda trial: trial.value)
        params = " ".join(f"{key}={value}" for key, value in best.params.items())
        folder = Path(config.hydra.sweep.dir) / str(best.number)
        num_failed = len(trials) - len(complete)
        print(
            f"{len(trials)} trials{f', {num_failed} failed' if num_failed else ''}; "
            f"best val mIoU {100 * best.value:.2f}: {params} → {folder}"
        )
        if num_failed:
            raise SystemExit(1)


def resume_study(config: DictConfig, directory: Path) -> None:
    """Reduce the sweep's config to the trials that are left; trials that were running are run again first.

    Args:
        config: config of the whole sweep; it is changed in place.
        directory: folder of the sweep.

    Raises:
        UserError: the folder holds a sweep and `resume` is not set, or the study would not be stored.
    """
    sweeper = config.hydra.sweeper
    if sweeper.storage is None:
        raise UserError("a sweep without storage could not be continued; leave hydra.sweeper.storage=null out")
    trials = _load_study(config).trials
    if trials and config.resume is None:
        raise UserError(
            f"{directory} already holds a sweep of {len(trials)} trials; "
            "choose another output_dir, or continue it with resume=auto"
        )
    _requeue_running_trials(sweeper.storage, trials)
    num_finished = sum(trial.state.is_finished() for trial in trials)
    sweeper.n_trials = max(0, sweeper.n_trials - num_finished)
    # A folder has the number of its trial: the sweeper numbers its jobs from 0 and reports the trials of a batch in order.
    config.hydra.overrides.hydra.append(f"hydra.sweep.subdir='${{sum:{num_finished},${{hydra.job.num}}}}'")
    if sweeper.sampler.get("seed") is not None:
        sweeper.sampler.seed += len(trials)  # or it would sample the values of the first trials again
    if trials:
        log.info(f"{num_finished} trials of {directory} are done; {sweeper.n_trials} are left")


def _load_study(config: DictConfig) -> Any:
    """Return the stored study; create it if there is none."""
    import optuna

    optuna.logging.set_verbosity(logging.WARNING)
    sweeper = config.hydra.sweeper
    return optuna.create_study(
        storage=sweeper.storage, study_name=sweeper.study_name, direction="maximize", load_if_exists=True
    )


def _requeue_running_trials(storage_url: str, trials: list[Any]) -> None:
    """Set interrupted trials to `WAITING`: they keep number and values, and the sweeper takes them first."""
    import optuna

    storage = optuna.storages.get_storage(storage_url)
    for trial in trials:
        if trial.state == optuna.trial.TrialState.RUNNING:
            storage.set_trial_state(trial._trial_id, optuna.trial.TrialState.WAITING)
