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
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.utilities.exceptions import SIGTERMException

from segkd.errors import Refused, UserError


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

Task = Callable[[DictConfig], Any]

FAILURE = "failure.txt"
"""Why a job of a sweep has no result."""


def launch(task: Task, config_name: str) -> NoReturn:
    """Run `task` under Hydra and end the process with the code that the outcome deserves.

    In a sweep a failing job is reported at once, leaves its traceback in its folder, and the others go on.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra would print its own report and end with 1 whatever the cause
    codes: list[int] = []

    def job(cfg: DictConfig) -> Any:
        try:
            return task(cfg)
        except Exception as error:
            codes.append(report(error, config_name))
            folder = Path(HydraConfig.get().runtime.output_dir)
            if HydraConfig.get().mode == RunMode.RUN:
                _remove_if_empty(folder)
                raise SystemExit(codes[-1]) from None
            (folder / FAILURE).write_text("".join(traceback.format_exception(error)))
            return None

    try:
        hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)(job)()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except SIGTERMException:
        sys.exit(128 + signal.SIGTERM)
    except SystemExit as end:
        # Lightning answers an interrupt with exit(1).
        interrupted = isinstance(end.__context__, KeyboardInterrupt)
        sys.exit(128 + signal.SIGINT if interrupted else end.code)
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, HydraException):  # Hydra makes the run's folder
            error = UserError(f"cannot make the folder {error.filename} ({error.strerror}); give another output_dir")
        sys.exit(report(error, config_name))
    sys.exit(min(codes, default=0))


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
    traceback.print_exception(error)
    return 1


def explain(error: Exception, config_name: str) -> str:
    """Hydra's complaint as one sentence with the cure."""
    if isinstance(error, OverrideParseException):
        return f"cannot read '{error.override}'; write KEY=VALUE, and 'KEY=\"VALUE\"' where the value has blanks or '='"
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
    options = sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))
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
    namesakes = [k for k in keys if k.split(".")[-1] == leaf]
    hint = f"; did you mean '{namesakes[0]}'?" if namesakes else _closest(key, keys)
    return f"there is no key '{key}'{hint}{'' if hint else '; --help lists the keys'}"


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
