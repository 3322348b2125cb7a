"""Run a command under Hydra, print errors as one sentence, and exit with a code.

0 success · 1 faults found, or a crash · 2 a user's mistake · 130 interrupted · 143 terminated.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser  # the public API does not list Hydra's options
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from segkd.cli.commands import load_command
from segkd.cli.logs import configure_logging, configure_streams
from segkd.cli.messages import find_similar_keys, list_keys, print_error
from segkd.config.paths import CONFIGS, PRETRAINED
from segkd.errors import UserError
from segkd.utils.files import exclusive_lock

# ${pretrained:NAME} in a config is the checkpoint of a network that comes with segkd.
OmegaConf.register_new_resolver("pretrained", lambda name: str(PRETRAINED / name / "student.safetensors"), replace=True)

# ${unless:${dry_run},DIR} is the folder of a command: its own, or the current one if it writes nothing.
OmegaConf.register_new_resolver("unless", lambda dry, folder: "." if dry is True else folder, replace=True)

# ${sum:A,B} numbers the jobs of a resumed sweep.
OmegaConf.register_new_resolver("sum", lambda *numbers: sum(numbers), replace=True)

FAILURE_FILE = "failure.txt"
"""Traceback of a failed job of a sweep, in its folder."""


class JobFailed(Exception):
    """A job of a sweep failed with this exit code, and its error is printed; it may have run in another process."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def launch(command: str) -> NoReturn:
    """Run a command under Hydra and exit with its code.

    Its module is imported once the config is composed, so that `--help` and a mistyped key do not wait for torch. In a
    sweep, the error of a failed job is printed at once and its traceback written to its folder; the other jobs run, and
    the exit code is that of the first failure.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra would print its own report and end with 1 whatever the cause

    def run_job(cfg: DictConfig) -> Any:
        configure_logging()
        folder, is_multirun = Path(HydraConfig.get().runtime.output_dir), HydraConfig.get().mode == RunMode.MULTIRUN
        try:
            if not is_multirun:
                return load_command(command)(cfg)
            with exclusive_lock(folder / ".lock", f"another process that is at work in {folder}"):
                (folder / FAILURE_FILE).unlink(missing_ok=True)
                return load_command(command)(cfg)
        except Exception as error:
            code = print_error(error, command)
            if is_multirun:
                report = "".join(traceback.format_exception(error))
                (folder / FAILURE_FILE).write_text(report, encoding="utf-8", errors="backslashreplace")
                raise JobFailed(code) from None
            _remove_if_empty(folder)
            raise SystemExit(code) from None

    configure_streams()
    try:
        _check_options(command)
        hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=command)(run_job)()
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        sys.exit(_get_exit_code(error, command))
    sys.exit(0)


def _get_exit_code(error: BaseException, command: str) -> Any:
    """Return the exit code for what ended a command; print it if it is an error that is not printed yet."""
    match error:
        case KeyboardInterrupt():
            return 128 + signal.SIGINT
        case SystemExit() if type(error).__name__ == "SIGTERMException":  # Lightning's; importing it takes seconds
            return 128 + signal.SIGTERM
        case SystemExit():
            # Lightning answers an interrupt with exit(1).
            return 128 + signal.SIGINT if isinstance(error.__context__, KeyboardInterrupt) else error.code
        case JobFailed():
            return error.code
        case OSError() if not isinstance(error, HydraException):  # Hydra makes the run's folder
            sentence = f"cannot make the folder {error.filename} ({error.strerror}); give another output_dir"
            return print_error(UserError(sentence), command)
        case Exception():
            return print_error(error, command)
    raise error


def _check_options(config_name: str) -> None:
    """Check that every option with dashes is one of Hydra's.

    Raises:
        UserError: it is another, as in `--epochs 3`, or has a wrong value.
    """

    def refuse(message: str) -> NoReturn:
        option = re.search(r"--?([\w-]+)", message)
        keys = find_similar_keys(option[1].replace("-", "_"), list_keys(config_name)) if option else []
        hint = f" (did you mean {keys[0]}=VALUE?)" if keys else ""
        raise UserError(f"{message}{hint}; keys are written without dashes, KEY=VALUE; --help lists them")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]  # it would print Hydra's usage and exit
    if foreign := parser.parse_known_args()[1]:
        refuse(f"there is no option '{foreign[0].partition('=')[0]}'")


def _remove_if_empty(directory: Path) -> None:
    # A command without a folder of its own runs in the current one, which may be empty and stays.
    if directory != Path.cwd() and directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()
