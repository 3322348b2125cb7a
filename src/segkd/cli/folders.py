"""The folder and the name of a command's run, as configs write them, and the removal of folders that a refused start made."""

from __future__ import annotations

import os
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from segkd.config.home import expand_home

_made_by_hydra: set[Path] = set()


def choose_folder(dry_run: object, folder: str) -> str:
    """Return the folder of a command, `${unless:${dry_run},DIR}`: its own, or the current one if it writes nothing."""
    if dry_run is True:
        return "."
    folder = expand_home(str(folder))  # Hydra makes it before the command can look at it
    path = Path(str(folder)).absolute()
    _made_by_hydra.update(part for part in (path, *path.parents) if not os.path.lexists(part))
    return folder


def remove_if_empty(directory: Path) -> None:
    """Remove the folder of a refused start, and the parents that Hydra made for it; what holds anything stays."""
    # A command without a folder of its own runs in the current one, which may be empty and stays.
    if directory == Path.cwd():
        return
    for folder in (directory, *directory.parents):
        if folder != directory and folder not in _made_by_hydra:
            return
        if folder.is_dir():
            if any(folder.iterdir()):
                return
            folder.rmdir()


def name_run(*, _root_: DictConfig) -> str:
    """Return the name of a training that is given none, `${run_name:}`.

    It is that of the given `output_dir`, with its parent's where it is a number, or else that of the experiment.
    """
    folder = None if OmegaConf.is_interpolation(_root_, "output_dir") else _root_.get("output_dir")
    if folder is not None and (name := Path(str(folder)).absolute().name):
        return f"{Path(str(folder)).absolute().parent.name}/{name}" if name.isdigit() else name
    hydra = _root_.get("hydra") or (HydraConfig.get() if HydraConfig.initialized() else None)
    experiment = hydra and hydra.runtime.choices.get("experiment")
    return str(experiment or "run").replace("/", "_")
