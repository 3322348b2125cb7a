"""`python -m segkd.cli.reference`: write the help of each command, and docs/reference/config.md.

Both come from the descriptions in the settings classes, the docstrings of the losses, and the composed configs.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from segkd.cli.commands import COMMANDS, load_module
from segkd.cli.reference_keys import EXTRA_KEYS, PAGES
from segkd.config.paths import CONFIGS, list_options
from segkd.config.reference import KeyDoc, KeyTable, describe_settings, read_argument_docs
from segkd.config.schema import Settings
from segkd.config.targets import resolve_target
from segkd.config.values import format_default

PAGE = Path("docs/reference/config.md")
HELP_FOLDER = Path("configs/hydra/help")
MAX_WIDTH = 118
"""Greatest length of a line of the help."""
MAX_KEY_WIDTH = 41
"""Greatest width of the first column of the help; a longer key has its description on the next line."""

_INTRODUCTION = """\
# Configuration keys

`python -m segkd.COMMAND --help` lists the keys of a command; `--cfg job --resolve` prints all of them with their values.
A mistyped key is refused with the key that was probably meant. This page is generated: `python -m segkd.cli.reference`.
"""
_HELP_ENDS = {
    "download": """
An interrupted download continues with the same command. Cityscapes needs a registration of your own: its site and
its tool csDownload are the only way to get it.
""",
    "calibrate": "\n$APP_CONFIG_GROUPS\n",
    "train": "\n$APP_CONFIG_GROUPS\nMore keys, those of each loss for example: docs/reference/config.md, or --cfg job --resolve.\n",
}
"""What follows the keys in a command's help: all config groups where it takes all keys of a training, or a remark."""


def main() -> None:
    """Write the files into the checkout that holds this package."""
    for path, text in render_files().items():
        (CONFIGS.parent / path).parent.mkdir(parents=True, exist_ok=True)
        (CONFIGS.parent / path).write_text(text, encoding="utf-8")


def render_files() -> dict[Path, str]:
    """Return the text of each generated file by its path in the repository."""
    tables = {command: describe_command(command) for command in COMMANDS}
    files = {HELP_FOLDER / f"{command}.yaml": render_help(command, tables[command]) for command in COMMANDS}
    return {**files, PAGE: render_page(tables)}


def list_settings(command: str) -> dict[str, type[Settings]]:
    """Return the settings classes of a command by mode; "" for a command without modes."""
    module = load_module(command)
    name = f"{command.title().replace('_', '')}Settings"
    return {"": getattr(module, name)} if hasattr(module, name) else dict(module.SETTINGS)


def compose_defaults(command: str, *overrides: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the composed config of a command, and the chosen option of each config group."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose(command, list(overrides), return_hydra_config=True)
    config: Any = OmegaConf.to_container(cfg, resolve=False)
    return config, config.pop("hydra")["runtime"]["choices"]


def describe_command(command: str) -> list[KeyTable]:
    """Return the keys of a command in tables; keys of another command that it accepts are left out."""
    tables: list[KeyTable] = []
    for mode, settings in list_settings(command).items():
        config, choices = compose_defaults(command, *([f"mode={mode}"] if mode else []))
        extra_keys: dict[str, list[KeyDoc]] = {}
        for extra in EXTRA_KEYS:
            if extra.is_of(command, mode):
                extra_keys.setdefault(extra.after, []).extend(extra.keys)
        tables += describe_settings(settings, config, choices, extra_keys)
    return tables


def describe_losses() -> Iterator[KeyTable]:
    """Yield the keys of each loss, and of the adversarial loss, as their docstrings explain them."""
    for name in list_options("loss"):
        node = yaml.safe_load((CONFIGS / "loss" / f"{name}.yaml").read_bytes())[name]
        yield _describe_node(f"loss.{name}", node)
    yield _describe_node("adversary", yaml.safe_load((CONFIGS / "adversary/holistic.yaml").read_bytes()))


def render_help(command: str, tables: list[KeyTable]) -> str:
    """Return the yaml file with the help of a command."""
    shown = [[doc for doc in table.keys if doc.in_help] for table in tables]
    width = max(len(key) for docs in shown for doc in docs if len(key := _format_assignment(doc)) <= MAX_KEY_WIDTH)
    blocks = ["\n".join(line for doc in docs for line in _render_help_lines(doc, width)) for docs in shown if docs]
    end = _HELP_ENDS.get(command, _list_networks(doc for docs in shown for doc in docs))
    text = f"python -m segkd.{command}: {COMMANDS[command]}\n\n" + "\n\n".join(blocks) + f"\n{end}"
    source = "# Generated by python -m segkd.cli.reference\n"
    return f"{source}app_name: segkd.{command}\ntemplate: |\n{textwrap.indent(text, '  ')}"


def _list_networks(docs: Iterable[KeyDoc]) -> str:
    """Return the names for the keys that choose a network, which are too many for their descriptions."""
    if all(doc.key.partition("@")[0] != "model" for doc in docs):
        return ""
    names = f"networks: {', '.join(list_options('model'))}"
    return f"\n{textwrap.fill(names, MAX_WIDTH, break_on_hyphens=False)}\n"


def render_page(tables: dict[str, list[KeyTable]]) -> str:
    """Return docs/reference/config.md."""
    sections = [_INTRODUCTION]
    for command, parts in tables.items():
        sections.append(f"## {command}\n\n`python -m segkd.{command}`: {COMMANDS[command]}\n")
        sections += [_render_table(part, is_titled="python -m" not in part.title) for part in parts]
    sections.append("## Keys of the losses\n\n[Losses](losses.md) has the formulas; `loss=[NAME,…]` selects.\n")
    sections += [_render_table(part, is_titled=True) for part in describe_losses()]
    return "\n".join(sections)


def _describe_node(prefix: str, node: dict[str, Any]) -> KeyTable:
    docs = read_argument_docs(resolve_target(node["_target_"]))
    keys = [
        KeyDoc(f"{prefix}.{key}", "", format_default(value), _name_null(docs.get(key, "")))
        for key, value in node.items()
        if key not in ("_target_", "defaults") and not isinstance(value, dict)
    ]
    return KeyTable(prefix, keys)


def _name_null(text: str) -> str:
    """Return the docstring of an argument in the words of the command line."""
    return re.sub(r"\bNone\b", "null", text).rstrip(".")


def _format_assignment(doc: KeyDoc) -> str:
    return f"{doc.key}={doc.values}"


def _render_help_lines(doc: KeyDoc, width: int) -> Iterator[str]:
    key, margin = f"  {_format_assignment(doc)}", " " * (width + 5)
    if len(key) > width + 2:
        yield key
        key = ""
    lines = textwrap.wrap(doc.description, MAX_WIDTH - len(margin), break_on_hyphens=False) or [""]
    yield f"{key.ljust(len(margin))}{lines[0]}".rstrip()
    yield from (f"{margin}{line}" for line in lines[1:])


def _render_table(table: KeyTable, is_titled: bool) -> str:
    has_values = any(doc.values for doc in table.keys)
    head = ["key", "values", "default", "meaning"] if has_values else ["key", "default", "meaning"]
    rows = [_render_row(head), _render_row(["---"] * len(head))]
    for doc in table.keys:
        meaning = _escape_markdown(doc.description) + _format_link(doc.key)
        cells = [f"`{doc.key}`", _quote_values(doc.values), _quote_default(doc.default), meaning]
        rows.append(_render_row(cells if has_values else [cells[0], *cells[2:]]))
    title = f"### {table.title}\n\n" if is_titled else ""
    return title + "\n".join(rows) + "\n"


def _format_link(key: str) -> str:
    page = PAGES.get(key, "")
    title = page.rpartition("#")[2].rpartition("/")[2].removesuffix(".md").replace("-", " ")
    return f" ([{title}]({page}))" if page else ""


def _render_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _quote_values(values: str) -> str:
    alternatives = re.split(r"\|(?![^\[]*\])", values)  # not inside brackets
    return ", ".join(f"`{value}`" for value in alternatives if value)


def _quote_default(default: str) -> str:
    default = re.sub(r"\$\{now:[^}]*\}", "TIME", default)
    default = default.replace("${name}", "NAME").replace("${run_name:}", "NAME")
    return default if default in ("", "required") or default.startswith("per ") else f"`{default}`"


def _escape_markdown(text: str) -> str:
    """Return a text whose `|`, `<` and `*` stand for themselves in a Markdown table."""
    return re.sub(r"([|<*])", r"\\\1", text)


if __name__ == "__main__":
    main()
