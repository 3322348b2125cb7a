"""Write `KEY=VALUE` as Hydra reads it, and explain what it cannot read."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException

_QUOTED = r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'"
_UNREADABLE = re.compile(rf"(?:{_QUOTED})|(?P<character>[^\w/\\\-+.$%*@?|:,\s]|[^\x00-\x7f])", re.ASCII)
_LIST = re.compile(r"\[(.*)\]", re.S)
_TUPLE = re.compile(r"\(([^()]*)\)", re.S)


def format_override(key: str, value: object) -> str:
    """Return `KEY=VALUE` as Hydra reads it, whatever characters the value has."""
    text = str(value)
    if re.fullmatch(r"[\w/.-]+", text, re.ASCII):
        return f"{key}={text}"
    # Within quotes, backslashes are doubled only where a quote follows.
    escaped = re.sub(r'(\\*)("|$)', lambda match: 2 * match[1] + ('\\"' if match[2] else ""), text)
    return f'{key}="{escaped}"'


def format_shell_override(key: str, value: object) -> str:
    """Return `KEY=VALUE` as it is typed in a shell."""
    return shlex.quote(format_override(key, value))


def explain_unreadable(override: str, example: str) -> str:
    """Return the sentence for an argument that Hydra cannot read: which character is in the way, and the right form.

    Args:
        override: as it was typed.
        example: how the argument may have been meant if it has no `=`; "" if that is not known.
    """
    key, equals, value = override.partition("=")
    if not equals or not re.fullmatch(r"[~+]*[\w./@:$-]+", key):
        return f"cannot read '{override}'; write KEY=VALUE{example}"
    cure = next((form for text in _list_forms(value) if _is_readable(form := f"{key}={text}")), "KEY=VALUE")
    return f"cannot read '{override}': {_explain_cause(value)}; write {shlex.quote(cure)}"


def explain_several_values(override: str) -> str:
    """Return the sentence for `KEY=A,B` without -m, which may be a list, a text or a sweep."""
    key, _, value = override.partition("=")
    as_list, as_text = shlex.quote(f"{key}=[{value}]"), shlex.quote(f'{key}="{value}"')
    return f"'{override}' has several values; write {as_list} for a list, {as_text} for a text, or add -m to run each"


def _list_forms(value: str) -> Iterator[str]:
    """Yield what may have been meant, the likeliest first."""
    if match := _TUPLE.fullmatch(value):
        yield f"[{match[1].rstrip(', ')}]"
    if value.startswith("[") and not value.endswith("]"):
        yield f"{value.rstrip(', ')}]"
    if match := _LIST.fullmatch(value):
        elements = [element.strip() for element in re.findall(rf"(?:{_QUOTED}|[^,])+", match[1])]
        yield f"[{','.join(_quote(element) if _UNREADABLE.search(element) else element for element in elements)}]"
    yield _quote(value)


def _quote(text: str) -> str:
    if re.fullmatch(_QUOTED, text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' if '"' in text else f'"{text}"'


def _is_readable(override: str) -> bool:
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return parsed.type is not OverrideType.DEL and not parsed.is_sweep_override()


def _explain_cause(value: str) -> str:
    if _TUPLE.fullmatch(value):
        return "a list has brackets, not parentheses"
    inner = value[1:-1] if _LIST.fullmatch(value) else value
    character = next((match["character"] for match in _UNREADABLE.finditer(inner) if match["character"]), None)
    if character in _CLOSE and value.startswith(character) and value.count(character) != value.count(_CLOSE[character]):
        return f"{character} is not closed"
    if character in ("'", '"') and value.count(character) == 1:
        return f"{character} is not closed"
    return f"{character!r} needs quotes" if character else "it is not a value"


_CLOSE = {"[": "]", "{": "}"}
