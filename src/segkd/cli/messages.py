"""Error messages of the command line: one sentence, with the cure."""

from __future__ import annotations

import os
import re
import sys
import traceback

import yaml
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segkd.config.keys import flatten
from segkd.config.paths import CONFIGS
from segkd.config.suggestions import suggest, unknown_name_message
from segkd.errors import CheckFailed, UserError

_EXTRAS = {
    ("hydra/sweeper", "optuna"): "hpo",
    ("hydra/launcher", "joblib"): "launchers",
    ("hydra/launcher", "submitit_local"): "launchers",
    ("hydra/launcher", "submitit_slurm"): "launchers",
}
"""Parts of Hydra that come in packages of their own → the extra that has them."""


KNOWN_MISTAKES = {
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


def print_error(error: Exception, config_name: str) -> int:
    """Print what went wrong on stderr; the exit code it stands for."""
    if isinstance(error, UserError):
        # A data loader's worker wraps the text of an error in its own traceback.
        print(f"segkd: {str(error).rsplit('UserError: ', 1)[-1].strip()}", file=sys.stderr)
        return 2
    if isinstance(error, CheckFailed):
        print(f"segkd: {error}", file=sys.stderr)
        return 1
    if isinstance(error, HydraException | OmegaConfBaseException):
        print(f"segkd: {hydra_error_message(error, config_name)}", file=sys.stderr)
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


def hydra_error_message(error: Exception, config_name: str) -> str:
    """Hydra's complaint as one sentence with the cure."""
    if isinstance(error, OverrideParseException):
        folder = next((key for key in ("run", "runs", "before") if key in list_keys(config_name)), None)
        there = os.path.exists(str(error.override))  # noqa: PTH110  Path.exists fails on a name that is too long
        like = f", as in {folder}={error.override}" if folder and there else ""
        return f"cannot read '{error.override}'; write KEY=VALUE{like}, and 'KEY=\"VALUE\"' where the value has blanks or '='"
    text = str(error)
    if unknown := re.search(r"Could not (?:override|append to config\. An item is already at) '([^']+)'", text):
        return unknown_key_message(unknown[1], list_keys(config_name))
    if unknown := re.search(r"In '[^']*': Could not find '([^']+)'\s+Available options in '([^']+)':", text):
        return _unknown_option_message(unknown[2], unknown[1].removeprefix(f"{unknown[2]}/"))
    if unknown := re.search(r"Could not load '(.+)/([^/']+)'", text):
        return _unknown_option_message(unknown[1], unknown[2])
    if unknown := re.search(r"Could not override '([^']+)'.*No match in the defaults list", text, re.S):
        return unknown_key_message(unknown[1], list_keys(config_name))
    lines = [line.strip() for line in text.splitlines() if line.strip() and "full_key" not in line]
    return "; ".join(line for line in lines if not line.startswith(("object_type", "reference_type")))


def _unknown_option_message(group: str, name: str) -> str:
    if extra := _EXTRAS.get((group, name)):
        return f"{group}={name} needs a package that is not installed; pip install 'segkd[{extra}]'"
    folder = CONFIGS / group
    options = sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))
    return unknown_name_message(group, name, options)


def unknown_key_message(key: str, keys: list[str]) -> str:
    """The sentence for a key that is not in the config."""
    key = key.split("@")[-1]
    if (
        (parts := key.split("."))[0] == "loss"
        and len(parts) > 1
        and not any(k.startswith(f"loss.{parts[1]}.") for k in keys)
    ):
        return f"'{key}' speaks of a loss that is not selected; add '{parts[1]}' to loss=[...] or leave '{key}' out"
    leaf = parts[-1]
    if meant := KNOWN_MISTAKES.get(key):
        return f"there is no key '{key}'; {meant}"
    meant_keys = keys_named(leaf, keys)
    hint = f"; did you mean '{meant_keys[0]}'?" if meant_keys else suggest(key, keys)
    return f"there is no key '{key}'{hint}{'' if hint else '; --help lists the keys'}"


def keys_named(name: str, keys: list[str]) -> list[str]:
    """Keys whose last part is the name, or ends with it: `max_epochs` for `epochs`; the first kind before the second."""
    leaves_of = {key: key.split(".")[-1] for key in keys}
    same = [key for key, leaf in leaves_of.items() if leaf == name]
    return same + [key for key, leaf in leaves_of.items() if leaf.endswith(f"_{name}")]


def list_keys(config_name: str) -> list[str]:
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
        return [key for key, _ in flatten(OmegaConf.to_container(cfg, resolve=False))]
    return []
