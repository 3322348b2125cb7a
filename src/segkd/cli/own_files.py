"""The user's own yaml files, in the folders of `--config-dir` and `hydra.searchpath`, and what is wrong with them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import yaml
from omegaconf.errors import OmegaConfBaseException

from segkd.cli.arguments import list_own_folders
from segkd.config.paths import CONFIGS, list_options
from segkd.config.suggestions import suggest
from segkd.errors import UserError

_GLOBAL = "# @package _global_"


def list_own_files() -> list[Path]:
    """Return the own yaml files that the command line chooses, as `experiment=NAME` does."""
    chosen = [argument.lstrip("+").partition("=") for argument in sys.argv[1:]]
    paths = [
        folder / group.partition("@")[0] / f"{name.removesuffix('.yaml')}.yaml"
        for group, _, names in chosen
        for name in re.split(r"[\[\],\s\"']+", names)
        for folder in (list_own_folders() if name else [])
    ]
    return [path for path in dict.fromkeys(paths) if path.is_file()]


def check_own_files() -> None:
    """Check that each chosen file has keys and, in a group like `experiment`, says that they are those of the whole config.

    Raises:
        UserError: a file does not; Hydra would leave it out, or put its keys below `experiment`.
    """
    for path in list_own_files():
        group = path.parent.name
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        if all(line.strip() == "" or line.lstrip().startswith("#") for line in lines):
            raise UserError(f"{path} is empty; write its keys, or leave it out")
        if not any(_is_global(shipped) for shipped in (CONFIGS / group).glob("*.yaml")) or _is_global(path):
            continue
        if path.read_bytes().startswith(b"\xef\xbb\xbf"):
            raise UserError(
                f"{path} begins with a byte-order mark, which hides its first line; save it as UTF-8 without"
            )
        raise UserError(f"{path}: its first line must be '{_GLOBAL}'")


def explain_own_file(error: Exception) -> str | None:
    """Return the sentence for an error that comes from how an own file is written; None if it is not known.

    The error may be any: Hydra and PyYAML let through what their own code trips over.
    """
    if isinstance(error, yaml.YAMLError):
        return explain_yaml_error(error)
    files = ", ".join(map(str, list_own_files()))
    text = str(error)
    if match := re.search(r"Multiple values for (\S+)\. To override a value use 'override ([^']+)'", text):
        return f"{files or 'the defaults list'}: write '- override /{match[2]}' in place of '- /{match[2]}'"
    relative = re.search(r"In '([\w/]+)/[^/']+': Could not (?:find|override) '\1/([^@'/]+)([^']*)'", text)
    if relative and (CONFIGS / relative[2]).is_dir():
        return f"{files or 'the defaults list'}: write 'override /{relative[2]}' with a slash, as in '- override /{relative[2]}: NAME'"
    unknown = re.search(r"In '[^']+': Could not override '([^'@]+)'\. No match in the defaults list", text)
    if unknown and not (CONFIGS / unknown[1]).is_dir():
        groups = [str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*") if path.is_dir()]
        return f"{files or 'the defaults list'}: there is no config group '{unknown[1]}'{suggest(unknown[1], groups)}"
    is_known = isinstance(error, OmegaConfBaseException) or "Could not" in text
    if not files or (is_known and text):
        return None
    reason = describe_reason(text or str(error.__cause__ or "")) or type(error).__name__
    return f"{files} cannot be read ({reason[:200]}); mend it, or leave it out"


def describe_reason(text: str) -> str:
    """Return a message of Hydra or OmegaConf in one line, with the key that it is about and without its own terms."""
    text = re.sub(r"^(?:In '[^']+': )?\w+ raised while (?:composing config|resolving interpolation): *", "", text)
    key = re.search(r"full_key: (\S+)", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("full_key", "object_type", "reference_type"))]
    return (f"{key[1][:80]}: " if key else "") + "; ".join(kept)


def explain_yaml_error(error: yaml.YAMLError) -> str:
    """Return the sentence for a file that is not valid YAML: which, where, and why."""
    mark = getattr(error, "problem_mark", None)
    where = (
        f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}" if mark else getattr(error, "name", "a config")
    )
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).partition("\n")[0]
    return f"{where}: not valid YAML ({reason})"


def list_all_options(group: str) -> list[str]:
    """Return the options of a config group, own ones included."""
    own = [list_options(group, folder) for folder in list_own_folders()]
    return sorted({*list_options(group), *(name for names in own for name in names)})


def _is_global(path: Path) -> bool:
    """Return whether a file's leading comments have the line that puts its keys at the top of the config."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if re.fullmatch(r"#\s*@package\s+_global_\s*", line.strip(" ")):
            return True
        if line.strip() and not line.startswith("#"):
            return False
    return False
