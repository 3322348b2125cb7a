"""What every command shares: Hydra's entry, errors in one sentence, exit codes.

0 well · 1 faults found, or a crash · 2 a user's mistake · 130 interrupted · 143 terminated.
"""

from __future__ import annotations

import difflib
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import hydra
import yaml
from hydra._internal.utils import get_args_parser  # which options are Hydra's own is said nowhere else
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.utilities.exceptions import SIGTERMException

from segkd.errors import Refused, UserError
from segkd.files import sole


def shipped(folder: str) -> Path:
    """Where a folder that comes with segkd lies: inside the wheel, or beside `src` in a checkout."""
    inside = Path(__file__).parent / folder
    return inside if inside.is_dir() else Path(__file__).parents[2] / folder


CONFIGS = shipped("configs")
PRETRAINED = shipped("pretrained")

# ${pretrained:NAME} in a config is the checkpoint of a network that comes with segkd.
OmegaConf.register_new_resolver("pretrained", lambda name: str(PRETRAINED / name / "student.safetensors"), replace=True)

# ${unless:${dry_run},DIR} is where a command runs: in its own folder, or, where it leaves nothing, in the user's.
OmegaConf.register_new_resolver("unless", lambda dry, folder: "." if dry is True else folder, replace=True)

# ${sum:A,B} numbers the jobs of a sweep that goes on where it was left.
OmegaConf.register_new_resolver("sum", lambda *numbers: sum(numbers), replace=True)

Task = Callable[[DictConfig], Any]

FAILURE = "failure.txt"
"""Why a job of a sweep has no result."""

_EXTRAS = {
    ("hydra/sweeper", "optuna"): "hpo",
    ("hydra/launcher", "joblib"): "launchers",
    ("hydra/launcher", "submitit_local"): "launchers",
    ("hydra/launcher", "submitit_slurm"): "launchers",
}
"""Parts of Hydra that come in packages of their own → the extra that has them."""


_MEANT = {
    **dict.fromkeys(
        ("trainer.accumulate", "trainer.accumulate_grad_batches"),
        "say trainer.micro_batches=N: the batch goes through the networks in N parts",
    ),
    "dataset.root": "say which data set lies there: dataset=NAME dataset.root=DIR",
    "model": "say whose: model@student=NAME, model@teacher=NAME",
    "optimizer": "say whose: optimizer@optimizers.student=NAME",
}
"""Keys that are nearly right → the cure."""

_NO_NAME = "Config group override must be a string or a list."  # all that Hydra says of trainer=4
_NO_BEST_TRIAL = "Record does not exist."  # all that Optuna says where Hydra's sweeper asks it for the best of none


class JobFailed(Exception):
    """A job of a sweep ended with this code, and has been reported: it may have run in another process."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def launch(task: Task, config_name: str) -> NoReturn:
    """Run `task` under Hydra and end the process with the code that the outcome deserves.

    In a sweep a failing job is reported at once, leaves its traceback in its folder, and the others go on; the code is that of
    the first that failed.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra would print its own report and end with 1 whatever the cause

    def job(cfg: DictConfig) -> Any:
        folder, one_of_many = Path(HydraConfig.get().runtime.output_dir), HydraConfig.get().mode == RunMode.MULTIRUN
        try:
            if not one_of_many:
                return task(cfg)
            with sole(folder / ".lock", f"another process that is at work in {folder}"):
                (folder / FAILURE).unlink(missing_ok=True)
                return task(cfg)
        except Exception as error:
            code = report(error, config_name)
            if one_of_many:
                (folder / FAILURE).write_text("".join(traceback.format_exception(error)))
                raise JobFailed(code) from None
            _remove_if_empty(folder)
            raise SystemExit(code) from None

    try:
        _check_options(config_name)
        hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)(job)()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except SIGTERMException:
        sys.exit(128 + signal.SIGTERM)
    except SystemExit as end:
        # Lightning answers an interrupt with exit(1).
        interrupted = isinstance(end.__context__, KeyboardInterrupt)
        sys.exit(128 + signal.SIGINT if interrupted else end.code)
    except JobFailed as failed:
        sys.exit(failed.code)
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, HydraException):  # Hydra makes the run's folder
            error = UserError(f"cannot make the folder {error.filename} ({error.strerror}); give another output_dir")
        sys.exit(report(error, config_name))
    sys.exit(0)


def report(error: Exception, config_name: str) -> int:
    """Print what went wrong on stderr; the exit code it stands for."""
    if isinstance(error, UserError):
        # A data loader's worker wraps the text of an error in its own traceback.
        print(f"segkd: {str(error).rsplit('UserError: ', 1)[-1].strip()}", file=sys.stderr)
        return 2
    if isinstance(error, Refused):
        print(f"segkd: {error}", file=sys.stderr)
        return 1
    if isinstance(error, HydraException | OmegaConfBaseException):
        print(f"segkd: {explain(error, config_name)}", file=sys.stderr)
        return 2
    if isinstance(error, yaml.YAMLError):
        print(f"segkd: a config is no valid YAML: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    if isinstance(error, ValueError) and str(error).startswith(_NO_NAME):
        print("segkd: a part is chosen by its name, as in trainer=cpu; --help lists the names", file=sys.stderr)
        return 2
    if isinstance(error, ValueError) and str(error) == _NO_BEST_TRIAL:
        print("segkd: no trial of the sweep has succeeded; each has its reason in its failure.txt", file=sys.stderr)
        return 1
    traceback.print_exception(error)
    return 1


def explain(error: Exception, config_name: str) -> str:
    """Hydra's complaint as one sentence with the cure."""
    if isinstance(error, OverrideParseException):
        folder = next((key for key in ("run", "runs", "before") if key in _flat_keys(config_name)), None)
        there = os.path.exists(str(error.override))  # noqa: PTH110  Path.exists fails on a name that is too long
        like = f", as in {folder}={error.override}" if folder and there else ""
        return f"cannot read '{error.override}'; write KEY=VALUE{like}, and 'KEY=\"VALUE\"' where the value has blanks or '='"
    text = str(error)
    if unknown := re.search(r"Could not (?:override|append to config\. An item is already at) '([^']+)'", text):
        return unknown_key(unknown[1], _flat_keys(config_name))
    if unknown := re.search(r"In '[^']*': Could not find '([^']+)'\s+Available options in '([^']+)':", text):
        return _unknown_option(unknown[2], unknown[1].removeprefix(f"{unknown[2]}/"))
    if unknown := re.search(r"Could not load '(.+)/([^/']+)'", text):
        return _unknown_option(unknown[1], unknown[2])
    if unknown := re.search(r"Could not override '([^']+)'.*No match in the defaults list", text, re.S):
        return unknown_key(unknown[1], _flat_keys(config_name))
    lines = [line.strip() for line in text.splitlines() if line.strip() and "full_key" not in line]
    return "; ".join(line for line in lines if not line.startswith(("object_type", "reference_type")))


def _unknown_option(group: str, name: str) -> str:
    if extra := _EXTRAS.get((group, name)):
        return f"{group}={name} needs a package that is not installed; pip install 'segkd[{extra}]'"
    folder = CONFIGS / group
    options = sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))
    return unknown(group, name, options)


def unknown(kind: str, name: str, known: list[str]) -> str:
    """The sentence for a name that nothing has."""
    return f"there is no {kind} called '{name}'{_closest(name, known)}; there are {', '.join(known)}"


def unknown_key(key: str, keys: list[str]) -> str:
    """The sentence for a key that is not in the config."""
    key = key.split("@")[-1]
    if (
        (parts := key.split("."))[0] == "loss"
        and len(parts) > 1
        and not any(k.startswith(f"loss.{parts[1]}.") for k in keys)
    ):
        return f"'{key}' speaks of a loss that is not selected; add '{parts[1]}' to loss=[...] or leave '{key}' out"
    leaf = parts[-1]
    if meant := _MEANT.get(key):
        return f"there is no key '{key}'; {meant}"
    meant_keys = _namesakes(leaf, keys)
    hint = f"; did you mean '{meant_keys[0]}'?" if meant_keys else _closest(key, keys)
    return f"there is no key '{key}'{hint}{'' if hint else '; --help lists the keys'}"


def _check_options(config_name: str) -> None:
    """Options are Hydra's own.

    Raises:
        UserError: another, as in `--epochs 3`, or one of them with what it does not take.
    """

    def refuse(message: str) -> NoReturn:
        option = re.search(r"--?([\w-]+)", message)
        keys = _namesakes(option[1].replace("-", "_"), _flat_keys(config_name)) if option else []
        hint = f" (did you mean {keys[0]}=VALUE?)" if keys else ""
        raise UserError(f"{message}{hint}; keys are written without dashes, KEY=VALUE; --help lists them")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]  # it would print how Hydra is used, and end the process
    if foreign := parser.parse_known_args()[1]:
        refuse(f"there is no option '{foreign[0].partition('=')[0]}'")


def _namesakes(name: str, keys: list[str]) -> list[str]:
    """Keys whose last part is the name, or ends with it: `max_epochs` for `epochs`; the first kind before the second."""
    leaves_of = {key: key.split(".")[-1] for key in keys}
    same = [key for key, leaf in leaves_of.items() if leaf == name]
    return same + [key for key, leaf in leaves_of.items() if leaf.endswith(f"_{name}")]


def _closest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def _flat_keys(config_name: str) -> list[str]:
    """Every key of the config as the command line composes it, as far as it can be composed."""
    from hydra import compose
    from hydra.core.global_hydra import GlobalHydra
    from hydra.initialize import initialize_config_dir

    groups = [
        a for a in sys.argv[1:] if re.match(r"(experiment|dataset|adversary|loss|model@\w+)=", a) and "],[" not in a
    ]
    for overrides in (groups, []):
        try:
            GlobalHydra.instance().clear()
            with initialize_config_dir(str(CONFIGS), version_base="1.3"):
                cfg = compose(config_name, overrides)
        except Exception:  # noqa: S112  only a hint is lost
            continue
        return [key for key, _ in leaves(OmegaConf.to_container(cfg, resolve=False))]
    return []


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys of a config with their values; an empty mapping has none."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def _remove_if_empty(directory: Path) -> None:
    # A command without a folder of its own runs in the user's, which may be empty and stays.
    if directory != Path.cwd() and directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()
