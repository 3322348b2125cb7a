"""Turn errors into one sentence with the cure."""

from __future__ import annotations

import os
import re
import sys
import traceback

import yaml
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segkd.cli.arguments import list_own_folders
from segkd.cli.memory import explain_memory
from segkd.cli.own_files import describe_reason, explain_own_file, list_all_options
from segkd.cli.quoting import explain_several_values, explain_unreadable
from segkd.cli.renamed_keys import RENAMED, RENAMED_OPTIONS, find_cure, find_new_key
from segkd.config.keys import flatten
from segkd.config.paths import CONFIGS
from segkd.config.suggestions import explain_unknown_name, suggest
from segkd.errors import CheckFailed, UserError
from segkd.utils.packages import explain_install
from segkd.utils.plugins import explain_own_part, list_plugins

_EXTRAS = {
    ("hydra/sweeper", "optuna"): "hpo",
    ("hydra/launcher", "joblib"): "launchers",
    ("hydra/launcher", "submitit_local"): "launchers",
    ("hydra/launcher", "submitit_slurm"): "launchers",
}
"""Plugin of Hydra → the extra of segkd that installs it."""

_NO_NAME = "Config group override must be a string or a list."  # Hydra's message for trainer=4
_NO_BEST_TRIAL = "Record does not exist."  # Optuna's message where no trial has succeeded


def print_error(error: Exception, command: str) -> int:
    """Print an error on stderr and return the exit code."""
    sentence, code = explain(error, command)
    if sentence is None:
        traceback.print_exception(error)
    else:
        print(f"segkd: {sentence}", file=sys.stderr)
    return code


def is_explained(error: Exception, command: str) -> bool:
    """Return whether an error has a sentence, and is no crash."""
    return explain(error, command)[0] is not None


def explain(error: Exception, command: str) -> tuple[str | None, int]:
    """Return the sentence and the exit code for an error; no sentence for a crash, which shows its traceback."""
    match error:
        case UserError():
            # A data loader's worker wraps the text of an error in its own traceback.
            return str(error).rsplit("UserError: ", 1)[-1].strip(), 2
        case CheckFailed():
            return str(error), 1
        case _ if sentence := explain_memory(error, command):
            return sentence, 2
        case HydraException() | OmegaConfBaseException() | yaml.YAMLError():
            return explain_own_file(error) or explain_hydra_error(error, command), 2
        case ValueError() if str(error).startswith(_NO_NAME):
            return "a config group takes a name, as in trainer=cpu; --help lists the names", 2
        case ValueError() if str(error) == _NO_BEST_TRIAL:
            return "no trial of the sweep has succeeded; each folder has the reason in failure.txt", 1
    return None, 1


def explain_hydra_error(error: Exception, command: str) -> str:
    """Return Hydra's error as one sentence with the cure."""
    if isinstance(error, OverrideParseException):
        return _explain_unreadable(str(error.override), command)
    text = str(error)
    if match := re.search(r"Ambiguous value for argument '(.+?)'\n", text, re.S):
        return explain_several_values(match[1])
    if match := re.search(r"Could not append to config\. An item is already at '([^']+)'", text):
        return f"the key '{match[1]}' exists; write it without '+'"
    if match := re.search(r"Could not override '([^']+)'", text):
        return explain_unknown_key(match[1], list_keys(command))
    if match := re.search(r"In '[^']*': Could not find '([^']+)'\s+Available options in '([^']+)':", text):
        return explain_unknown_option(match[2], match[1].removeprefix(f"{match[2]}/"))
    if match := re.search(r"Could not load '(.+)/([^/']+)'", text):
        return explain_unknown_option(match[1], match[2])
    if match := re.search(r"Could not override '([^']+)'.*No match in the defaults list", text, re.S):
        return explain_unknown_key(match[1], list_keys(command))
    return describe_reason(text)


def explain_unknown_key(key: str, keys: list[str]) -> str:
    """Return the sentence for a key that the config does not have.

    Args:
        key: as it was typed.
        keys: the keys of the command.
    """
    key = key.split("@")[-1]
    if new := find_new_key(key, keys):
        return (
            f"there is no key '{key}'; it is now '{new}'" if key in RENAMED else f"there is no key '{key}'; use '{new}'"
        )
    group, *rest = key.split(".")
    if cure := find_cure(key, keys):
        return f"there is no key '{key}'; {cure}"
    if group == "loss" and rest and not any(known.startswith(f"loss.{rest[0]}.") for known in keys):
        return f"'{key}' belongs to a loss that is not selected; add '{rest[0]}' to loss=[...] or leave '{key}' out"
    similar = find_similar_keys(key.rpartition(".")[2], keys)
    hint = f"; did you mean '{similar[0]}'?" if similar else suggest(key, keys)
    return f"there is no key '{key}'{hint or '; --help lists the keys'}"


def find_similar_keys(name: str, keys: list[str]) -> list[str]:
    """Return keys whose last part is `name`, and then those whose last part ends with it: `max_epochs` for `epochs`."""
    last_parts = {key: key.rpartition(".")[2] for key in keys}
    same = [key for key, last in last_parts.items() if last == name]
    return same + [key for key, last in last_parts.items() if last.endswith(f"_{name}")]


def list_keys(command: str) -> list[str]:
    """Return every key of a command's config, with the parts that the command line selects if they can be composed."""
    from hydra import compose
    from hydra.core.global_hydra import GlobalHydra
    from hydra.initialize import initialize_config_dir

    groups = [
        a
        for a in sys.argv[1:]
        if re.match(r"(experiment|dataset|adversary|loss|logger|callbacks|model@\w+)=", a) and "],[" not in a
    ]
    own = [f"hydra.searchpath=[{','.join(f'file://{folder.absolute()}' for folder in list_own_folders())}]"]
    for overrides in ([*groups, *own], groups, []):
        try:
            GlobalHydra.instance().clear()
            with initialize_config_dir(str(CONFIGS), version_base="1.3"):
                cfg = compose(command, overrides)
        except Exception:  # noqa: S112  only a hint is lost
            continue
        return [key for key, _ in flatten(OmegaConf.to_container(cfg, resolve=False))]
    return []


def _explain_unreadable(override: str, command: str) -> str:
    is_path = os.path.exists(override)  # noqa: PTH110  Path.exists fails on a name that is too long
    folder_key = next((key for key in ("run", "runs") if key in list_keys(command)), None) if is_path else None
    return explain_unreadable(override, f", as in {folder_key}={override}" if folder_key else "")


def explain_unknown_option(group: str, name: str) -> str:
    """Return the sentence for an option that a config group does not have."""
    if extra := _EXTRAS.get((group, name)):
        return f"{group}={name} needs a package that is not installed; {explain_install(extra)}"
    if new := RENAMED_OPTIONS.get((group, name)):
        return f"there is no {group} called '{name}'; it is now '{new}'"
    known = list_all_options(group)
    is_near = bool(suggest(name, known))
    return explain_unknown_name(group, name, known) + ("" if is_near else _explain_own_option())


def _explain_own_option() -> str:
    """Return how to name a part of one's own."""
    return explain_own_part() + ("" if list_plugins() else ", or its folder, --config-dir DIR")
