"""What is found about a part: one finding for each line of its contract."""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import torch

import segkd
from segkd.errors import UserError

Verdict = Literal["keeps", "exempt", "does not apply", "lacks", "FAILS"]

_LIBRARIES = (str(Path(torch.__file__).parents[1]), sysconfig.get_path("stdlib"))
_SEGKD = str(Path(segkd.__file__).parent)


class ContractFault(AssertionError):
    """A line of the contract that a part does not keep; the message is a sentence that says what was found."""


class NotApplicable(Exception):
    """A line of the contract that says nothing about a part; the message gives the reason."""


class Finding(NamedTuple):
    """A line of the contract and whether a part keeps it."""

    line: str
    verdict: Verdict
    """`lacks` is said of an optional line, and is no fault."""
    detail: str = ""

    @property
    def is_fault(self) -> bool:
        """Whether the part breaks the contract."""
        return self.verdict == "FAILS"

    @property
    def sentence(self) -> str:
        """The verdict with its reason."""
        match self.verdict:
            case "keeps":
                return "keeps"
            case "FAILS":
                return f"FAILS: {self.detail}"
            case "lacks":
                return f"lacks (optional): {self.detail}"
        return f"{self.verdict} ({self.detail})"

    def __str__(self) -> str:
        return f"{self.line} {self.sentence}"


def check_line(
    line: str, check: Callable[[], None], exemption: str | None = None, is_optional: bool = False
) -> Finding:
    """Return what a check finds.

    Args:
        line: name of the line.
        check: raises `ContractFault` for a fault, `NotApplicable`, or whatever the code of the part raises.
        exemption: the reason why the part need not keep the line, if it declares one. It is a fault if the part keeps it.
        is_optional: whether a part without fault may lack it.
    """
    try:
        check()
    except NotApplicable as reason:
        return Finding(line, "does not apply", str(reason))
    except ContractFault as fault:
        if exemption is not None:
            return Finding(line, "exempt", exemption)
        return Finding(line, "lacks" if is_optional else "FAILS", str(fault))
    except Exception as error:  # of any kind: it comes from the code of the part
        return Finding(line, "lacks" if is_optional else "FAILS", describe_crash(error))
    if exemption is not None:
        return Finding(line, "FAILS", f"declared exempt ('{exemption}') and kept; remove it from `exemptions`")
    return Finding(line, "keeps")


def require(holds: bool, sentence: str) -> None:
    """Raise a ContractFault with the sentence unless the condition holds."""
    if not holds:
        raise ContractFault(sentence)


def describe_crash(error: Exception) -> str:
    """Return the last line of an error's traceback and the line of the part's own code at which it was raised."""
    message = next(iter(str(error).strip().splitlines()), "")
    text = message if isinstance(error, UserError) else f"{type(error).__name__}{message and f': {message}'}"
    place = _find_line_of_code(error)
    return f"{text} ({place})" if place else text


def _find_line_of_code(error: Exception) -> str | None:
    """Return `file:line` of the innermost frame that is of no library, else of segkd's parts; None without one."""
    # torch.compile names the line of the compiled code in its message alone.
    named = [(file, int(line)) for file, line in re.findall(r'File "(.+?)", line (\d+)', str(error))]
    frames = [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)] + named
    here = str(Path(__file__).parent)
    own = [frame for frame in frames if not frame[0].startswith((here, "<")) and not _is_library(frame[0])]
    foreign = [frame for frame in own if not frame[0].startswith(_SEGKD)]
    return next((f"{file}:{line}" for file, line in reversed(foreign or own)), None)


def _is_library(file: str) -> bool:
    packages, standard = _LIBRARIES
    installed = any(file.startswith(f"{packages}/{name}/") for name in ("torch", "numpy", "cv2", "PIL", "safetensors"))
    return installed or (file.startswith(standard) and "-packages" not in file)
