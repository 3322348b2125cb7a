"""Record what was run: enough to know it, and to run it again."""

from __future__ import annotations

import json
import logging
import math
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from segkd import __version__
from segkd.data.base import SegmentationDataset
from segkd.data.identity import identify_data
from segkd.runs.layout import DISTILLATION_TERMS, RECORD_FILES, SUMMARY_FILE
from segkd.runs.paths import STARTED_IN
from segkd.utils.files import dump_yaml, write_json
from segkd.utils.plugins import list_plugins

log = logging.getLogger(__name__)

_PACKAGES = (
    "torch",
    "pytorch-lightning",
    "torchmetrics",
    "hydra-core",
    "omegaconf",
    "albumentations",
    "numpy",
    "opencv-python-headless",
)


def write_record(
    directory: Path,
    config: dict[str, Any],
    seed: int,
    splits: Mapping[str, SegmentationDataset],
    distillation_terms: Sequence[str],
) -> None:
    """Write `config.yaml` (resolved) and `environment.json` (command, versions, seed, data, git state, machine).

    Args:
        directory: the folder of the run.
        config: the resolved config.
        seed: of the run.
        splits: train and val, whose contents are hashed.
        distillation_terms: names of the terms that use the teacher.
    """
    config_file, environment_file = (directory / name for name in RECORD_FILES)
    config_file.write_text(dump_yaml(config), encoding="utf-8")
    plugins = list_plugins()
    named = [f"plugins=[{','.join(plugins)}]"] if plugins else []
    environment = {
        "segkd": __version__,
        "command": ["python", "-m", "segkd.train", *named, *sys.argv[1:]],
        "plugins": {name: getattr(sys.modules.get(name), "__version__", None) for name in plugins},
        DISTILLATION_TERMS: list(distillation_terms),
        STARTED_IN: str(Path.cwd()),
        "seed": seed,
        "data": {name: identify_data(dataset) for name, dataset in splits.items()},
        "python": platform.python_version(),
        "packages": {name: _find_version(name) for name in _PACKAGES},
        "git": _read_git_state(),
        "machine": platform.machine(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    write_json(environment_file, environment)


def read_finished_miou(directory: Path, steps: int) -> float | None:
    """Return the last `val/miou` of a run that finished after `steps` steps or was stopped early; None if there is no such run.

    A run has finished if its folder holds a summary, which is written last.
    """
    file = directory / SUMMARY_FILE
    summary = json.loads(file.read_bytes()) if file.is_file() else {}
    if summary.get("steps") != steps and not summary.get("stopped_early"):
        return None
    log.info("%s has nothing left to do", directory)
    return math.nan if summary["val_miou"] is None else float(summary["val_miou"])


def _find_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _read_git_state() -> dict[str, Any] | None:
    """Return the commit of the checkout that segkd runs from, and whether it is modified; None for an installed wheel."""
    root = Path(__file__).parents[3]
    if not (root / "pyproject.toml").is_file():
        return None
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, encoding="utf-8", check=True
        ).stdout.strip()
        changes = subprocess.run(
            ["git", "status", "--porcelain"], cwd=root, capture_output=True, encoding="utf-8", check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "modified": bool(changes.strip())}
