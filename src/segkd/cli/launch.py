"""Run a command under Hydra, print errors as one sentence, and exit with a code.

0 success · 1 faults found, or a crash · 2 a user's mistake · 130 interrupted · 143 terminated.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from segkd.cli.arguments import arrange_arguments
from segkd.cli.commands import load_command
from segkd.cli.folders import choose_folder, name_run, remove_if_empty
from segkd.cli.logs import configure_logging, configure_streams
from segkd.cli.messages import find_similar_keys, is_explained, list_keys, print_error
from segkd.cli.own_files import check_own_files, explain_own_file
from segkd.config.home import expand_home, expand_home_in_config
from segkd.config.paths import CONFIGS, PRETRAINED
from segkd.config.plugin_configs import register_plugin_configs
from segkd.errors import UserError
from segkd.utils.plugins import load_plugins, refuse_plugins_in_file

_DISTRIBUTED_COMMANDS = ("train", "benchmark")

FAILURE_FILE = "failure.txt"
"""Traceback of a failed job of a sweep, in its folder."""


class JobFailed(Exception):
    """A job of a sweep failed with this exit code, and its error is printed; it may have run in another process."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def register_resolvers() -> None:
    """Let configs refer to paths, names and sums as `${NAME:…}`."""
    resolvers: dict[str, Callable[..., object]] = {
        "pretrained": lambda name: str(PRETRAINED / name / "student.safetensors"),  # of a network that comes with segkd
        "unless": choose_folder,
        "home": lambda folder: expand_home(str(folder)),
        "run_name": name_run,
        "sum": lambda *numbers: sum(numbers),  # numbers the jobs of a resumed sweep
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)


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
            _check_launcher(command)
            refuse_plugins_in_file(HydraConfig.get().job.env_set, "hydra.job.env_set")
            load_plugins()
            expand_home_in_config(cfg)
            result = load_command(command)(cfg)
            if is_multirun:
                (folder / FAILURE_FILE).unlink(missing_ok=True)  # of an earlier attempt
            return result
        except Exception as error:
            code = print_error(error, command)
            if is_multirun:
                report = "".join(traceback.format_exception(error))
                (folder / FAILURE_FILE).write_text(report, encoding="utf-8", errors="backslashreplace")
                raise JobFailed(code) from None
            remove_if_empty(folder)
            raise SystemExit(code) from None

    configure_streams()
    register_resolvers()
    try:
        arrange_arguments(partial(_refuse_option, command))
        check_own_files()
        register_plugin_configs()
        hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=command)(run_job)()
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        sys.exit(_get_exit_code(error, command))
    sys.exit(0)


def _check_launcher(command: str) -> None:
    """Raise a UserError if torchrun or srun started several processes of a command that is one."""
    from segkd.utils.processes import find_launcher  # it imports a part of Lightning

    launcher = None if command in _DISTRIBUTED_COMMANDS else find_launcher()
    if launcher is not None and launcher.processes > 1:
        raise UserError(
            f"{launcher.name} started {launcher.processes} processes, and segkd.{command} is one; run it without {launcher.name}"
        )


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
        case Exception() if not is_explained(error, command) and (reason := explain_own_file(error)):
            return print_error(UserError(reason), command)  # Hydra tripped over it before the command began
        case Exception():
            return print_error(error, command)
    raise error


def _refuse_option(command: str, message: str) -> NoReturn:
    """Raise the UserError for an option with dashes that is not one of Hydra's, as in `--epochs 3`."""
    option = re.search(r"--?([\w-]+)", message)
    keys = find_similar_keys(option[1].replace("-", "_"), list_keys(command)) if option else []
    hint = f" (did you mean {keys[0]}=VALUE?)" if keys else ""
    raise UserError(f"{message}{hint}; keys are written without dashes, KEY=VALUE; --help lists them")
