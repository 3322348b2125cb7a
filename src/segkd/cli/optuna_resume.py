"""An Optuna sweep that may be killed: its study is on the disk, and a second start goes on where the first one ended."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write

from segkd.cli.logs import configure_logging
from segkd.cli.messages import print_error
from segkd.errors import UserError
from segkd.utils.files import exclusive_lock, make_dir

_AT_WORK = ExitStack()  # here and not in the callback, which goes to other processes


class ResumableStudy(Callback):
    """Puts the study, and what Hydra's Optuna sweeper is asked for, right before the sweeper starts; says in the end what was found.

    The sweeper alone would take as many trials as ever, number their folders from 0, and leave a trial that was running when
    it was killed running for ever.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Hydra would make a warning of an exception here, and start the sweep as it is."""
        configure_logging()
        directory = Path(config.hydra.sweep.dir)
        try:
            lock = make_dir(directory) / ".lock"
            _AT_WORK.enter_context(exclusive_lock(lock, f"another process that is at work on the sweep in {directory}"))
            with read_write(config), open_dict(config):
                continue_study(config, directory)
        except Exception as error:
            _AT_WORK.close()
            raise SystemExit(print_error(error, "train")) from None

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the best trial; exit with code 1 if a trial failed."""
        _AT_WORK.close()
        trials = _study(config).trials
        complete = [trial for trial in trials if trial.value is not None]
        best = max(complete, key=lambda trial: trial.value)
        asked = " ".join(f"{key}={value}" for key, value in best.params.items())
        folder = Path(config.hydra.sweep.dir) / str(best.number)
        failed = len(trials) - len(complete)
        print(
            f"{len(trials)} trials{f', {failed} failed' if failed else ''}; best val mIoU {100 * best.value:.2f}: {asked} → {folder}"
        )
        if failed:
            raise SystemExit(1)


def continue_study(config: DictConfig, directory: Path) -> None:
    """Make of a sweep that was begun the rest of it: trials left running are run again first, the others count.

    Args:
        config: of the whole sweep, which is changed.
        directory: the sweep's.

    Raises:
        UserError: there is a sweep, and nobody asked to go on with it; or it would be kept nowhere.
    """
    sweeper = config.hydra.sweeper
    if sweeper.storage is None:
        raise UserError("a sweep that is kept nowhere could not be continued; leave hydra.sweeper.storage=null out")
    begun = _study(config).trials
    if begun and config.resume is None:
        raise UserError(
            f"{directory} already holds a sweep of {len(begun)} trials; choose another output_dir, or go on with resume=auto"
        )
    import optuna  # after `_study`, which quietens it

    storage = optuna.storages.get_storage(sweeper.storage)
    for trial in begun:
        if trial.state == optuna.trial.TrialState.RUNNING:
            # It keeps its number and its values, and is the first that the sweeper takes.
            storage.set_trial_state(trial._trial_id, optuna.trial.TrialState.WAITING)
    done = sum(trial.state.is_finished() for trial in begun)
    sweeper.n_trials = max(0, sweeper.n_trials - done)
    # What is not done follows what is, as the sweeper reports a batch of trials in order: a folder has its trial's number.
    config.hydra.overrides.hydra.append(f"hydra.sweep.subdir='${{sum:{done},${{hydra.job.num}}}}'")
    if sweeper.sampler.get("seed") is not None:
        sweeper.sampler.seed += len(begun)  # or it would draw the values of the first trials again
    if begun:
        print(f"segkd: {done} trials of {directory} are done; {sweeper.n_trials} are left", file=sys.stderr)


def _study(config: DictConfig) -> Any:
    os.environ.setdefault("SQLALCHEMY_SILENCE_UBER_WARNING", "1")  # it speaks of version 2, which the extra excludes
    import optuna

    optuna.logging.set_verbosity(logging.WARNING)
    sweeper = config.hydra.sweeper
    return optuna.create_study(
        storage=sweeper.storage, study_name=sweeper.study_name, direction="maximize", load_if_exists=True
    )
