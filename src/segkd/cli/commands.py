"""The commands: `python -m segkd.NAME`, or `segkd NAME`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, NoReturn

COMMANDS = {
    "train": "train a student from labels, a frozen teacher and a discriminator",
    "evaluate": "score a network on a split of a dataset",
    "predict": "predict images, videos or a camera stream",
    "serve": "serve a web demo that compares networks",
    "export": "export a student to ONNX, OpenVINO, TorchScript or int8, and verify its mIoU",
    "benchmark": "measure networks, exported files and training steps",
    "compare": "compare methods over seeds, at equal steps and at equal time",
    "report": "write an HTML report that compares runs",
    "study": "train, score and tabulate methods over seeds",
    "calibrate": "find loss weights for given shares of the gradient",
    "check": "check the images and labels of a dataset",
    "check_part": "check whether a loss, a network or a dataset keeps its contract",
    "stats": "compute means, class frequencies and class weights of a dataset",
    "import": "write labels that an annotation tool exported as a dataset of images and label PNGs",
    "pack": "pack a dataset into one memory-mapped file",
    "download": "download CamVid, or the authors' weights",
}
"""Name → purpose."""

RETIRED = {
    "demo": "python -m segkd.study plan=demo",
    "clip": "python -m segkd.predict run=[DIR,DIR] …",
    "ladder": "python -m segkd.study …",
}
"""A command of earlier versions → what replaces it."""


_PACKAGES = {"import": "import_labels"}
"""A command that cannot be a name in Python → its package and function."""


def load_module(name: str) -> ModuleType:
    """Import and return the module that holds a command."""
    module = import_module(f"segkd.{_PACKAGES.get(name, name)}")
    is_package = hasattr(module, "__path__")
    return import_module(f"{module.__name__}.main") if is_package else module


def load_command(name: str) -> Callable[..., Any]:
    """Import the module of a command and return its function."""
    command: Callable[..., Any] = getattr(load_module(name), _PACKAGES.get(name, name))
    return command


def refuse_retired_command(name: str) -> NoReturn:
    """Name the successor of a command of earlier versions, and exit with code 2."""
    print(f"segkd: there is no command 'segkd.{name}'; use: {RETIRED[name]}", file=sys.stderr)
    sys.exit(2)
