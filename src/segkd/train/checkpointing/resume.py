"""Which checkpoint a run goes on from, and whether it may."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from segkd.config.schema import TrainSettings
from segkd.distillation.distiller import Distiller
from segkd.errors import UserError
from segkd.models.checkpoint_io import load_state_dict_strict, safe_load, to_spec
from segkd.train.checkpointing.files import CheckpointFiles, has_hash, hash_matches
from segkd.train.checkpointing.state import KEYS, State, count_steps


def resume_fingerprint(settings: TrainSettings, images: int, steps_per_epoch: int) -> State:
    """What a run that continues another must share with it: a step would mean something else.

    Everything else may differ: workers, devices, the number of epochs, weights of losses, augmentation.
    """
    return {
        **{f"dataset.{key}": value for key, value in settings.dataset.items() if key != "root"},
        "data.train_split": settings.data.train_split,
        "data.batch_size": settings.data.batch_size,
        "data.unlabelled": settings.data.unlabelled is not None,
        "training images": images,
        "batches of an epoch": steps_per_epoch,
        "seed": settings.seed,
        "loss": sorted(settings.loss),
        "trainer.ema": settings.trainer.ema,
    }


def load_for_resume(
    settings: TrainSettings, files: CheckpointFiles, distiller: Distiller, recipe: State
) -> State | None:
    """The state to go on from, its weights already in the distiller; None where there is none. Says which it is.

    Raises:
        UserError: nothing there, damaged, no state of a run, or of a run that this one cannot continue.
    """
    if settings.resume is None:
        return None
    checkpoint = files.newest() if settings.resume == "auto" else _given(settings.resume)
    if checkpoint is None:
        print(f"segkd: nothing to resume in {files.directory}; this run starts anew", file=sys.stderr)
        return None
    state = _state(checkpoint)
    _check_recipe(checkpoint, state["recipe"], recipe)
    load_state_dict_strict(distiller, state["state_dict"], checkpoint)
    if state["student"] != to_spec(distiller.student):
        raise UserError(
            f"the student in {checkpoint} is not the one asked for; give the student's keys of the run that it comes from"
        )
    _check_optimizers(checkpoint, distiller, state)
    damaged = f" ({files.last.name} is damaged)" if settings.resume == "auto" and checkpoint != files.last else ""
    print(
        f"segkd: continuing from {checkpoint}, step {count_steps(state)} of {distiller.total_steps}{damaged}",
        file=sys.stderr,
    )
    return state


def _given(checkpoint: Path) -> Path:
    if not checkpoint.is_file():
        raise UserError(f"no checkpoint to resume at {checkpoint}; give the last.ckpt of a run")
    if checkpoint.stat().st_size == 0:
        raise UserError(f"{checkpoint} is empty (0 bytes); resume from another")
    if has_hash(checkpoint) and not hash_matches(checkpoint):
        raise UserError(
            f"{checkpoint} differs from the hash beside it and is damaged; resume=auto takes the newest that is whole"
        )
    return checkpoint


def _state(checkpoint: Path) -> State:
    content = safe_load(checkpoint)
    if not isinstance(content, dict) or not content.keys() >= KEYS:
        raise UserError(
            f"{checkpoint} holds no training state; give the last.ckpt of a run (weights alone go to student.checkpoint)"
        )
    return content


def _check_recipe(checkpoint: Path, saved: State, asked: State) -> None:
    others = [key for key in (*asked, *saved.keys() - asked.keys()) if saved.get(key) != asked.get(key)]
    if others:
        told = "; ".join(f"{key} was {saved.get(key)} and is {asked.get(key)}" for key in others)
        raise UserError(
            f"{checkpoint} is of another run: {told}. Resume with the same, or start anew from its weights with student.checkpoint"
        )


def _check_optimizers(checkpoint: Path, distiller: Distiller, state: State) -> None:
    """Restored optimisers keep the values they were saved with, so others would be ignored; moments go by position."""
    if list(state["state_dict"]) != list(distiller.state_dict()):
        raise UserError(
            f"{checkpoint} has its weights in another order, by another version of segkd; resume with that version"
        )
    for phase, optimizer in zip(distiller.phases, distiller.configure_optimizers(), strict=True):
        asked, saved = optimizer.state_dict()["param_groups"], state["optimizers"][phase.name]["param_groups"]
        for ours, theirs in zip(asked, saved, strict=True):
            _check_same(checkpoint, ours, theirs)


def _check_same(checkpoint: Path, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    for key in (ours.keys() | theirs.keys()) - {"params", "lr"}:
        if ours.get(key) != theirs.get(key):
            raise UserError(
                f"{checkpoint} was trained with {key.removeprefix('initial_')}={theirs.get(key)}, and {ours.get(key)} is asked for; "
                "resume with the same optimizers"
            )
