"""Choose the checkpoint to resume from, and check that this run may resume it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segkd.config.training import TrainSettings
from segkd.data.base import SegmentationDataset
from segkd.data.identity import hash_names
from segkd.distillation.distiller import Distiller
from segkd.errors import UserError
from segkd.models.checkpoint_io import load_state_dict_strict, safe_load
from segkd.models.class_names import ClassCheck, explain_difference, find_class_difference
from segkd.models.renamed_specs import update_names
from segkd.models.student_io import to_spec
from segkd.train.check_settings import check_length
from segkd.train.checkpointing.files import CheckpointFiles, has_hash, hash_matches
from segkd.train.checkpointing.state import KEYS, State, count_steps

log = logging.getLogger(__name__)

RENAMED_FINGERPRINT_KEYS = {"data.unlabelled": "data.unlabeled"}
"""Key of the fingerprint in checkpoints of version 0.1.0 → the key now."""


ADDED_FINGERPRINT_KEYS = {"classes", "labels"}
"""Keys that checkpoints of version 0.1.0 lack; they are compared by name, and not at all with `check_classes=count`."""

IMAGE_NAMES = "image names"
"""Key of the hash of the training images' names, in their order; checkpoints of version 0.1.0 lack it, too."""


def compute_resume_fingerprint(
    settings: TrainSettings, dataset: SegmentationDataset, num_images: int, steps_per_epoch: int
) -> State:
    """Return what a run must share with the one that it resumes, or else a step would mean something else.

    Everything else may differ: workers, devices, the number of epochs, loss weights, augmentation.
    """
    arguments = {key: value for key, value in settings.dataset.arguments.items() if key != "root"}
    return {
        "dataset._target_": settings.dataset.path,
        **{f"dataset.{key}": value for key, value in arguments.items()},
        "data.train_split": settings.data.train_split,
        "data.batch_size": settings.data.batch_size,
        "data.unlabeled": settings.data.unlabeled is not None,
        "training images": num_images,
        "batches of an epoch": steps_per_epoch,
        "seed": settings.seed,
        "loss": sorted(settings.loss),
        "trainer.ema": settings.trainer.ema,
        "classes": list(dataset.classes),
        "labels": {int(value): int(index) for value, index in dataset.label_map.items()},
        IMAGE_NAMES: hash_names(dataset),
    }


def load_for_resume(
    settings: TrainSettings, files: CheckpointFiles, distiller: Distiller, fingerprint: State
) -> State | None:
    """Load the weights to resume from into the distiller, and return the state; None for a new run.

    Raises:
        UserError: there is no checkpoint, it is damaged, holds no training state, or is of a run that this one cannot resume.
    """
    if settings.resume is None:
        return None
    checkpoint = files.latest_valid() if settings.resume == "auto" else _check_file(settings.resume)
    if checkpoint is None:
        log.info("nothing to resume in %s; starting a new run", files.directory)
        return None
    state = _read_state(checkpoint)
    saved = {RENAMED_FINGERPRINT_KEYS.get(key, key): value for key, value in state["recipe"].items()}
    _check_classes(checkpoint, saved, fingerprint, settings.check_classes)
    _check_fingerprint(checkpoint, saved, fingerprint)
    load_state_dict_strict(distiller, state["state_dict"], checkpoint)
    student = {key: value for key, value in update_names(state["student"]).items() if key != "classes"}
    if student != to_spec(distiller.student):
        raise UserError(
            f"the student in {checkpoint} differs from this run's; give the student's keys of the run that it comes from"
        )
    _check_optimizers(checkpoint, distiller, state)
    check_length(checkpoint, count_steps(state), distiller.total_steps, settings.trainer.max_epochs)
    damaged = f" ({files.last.name} is damaged)" if settings.resume == "auto" and checkpoint != files.last else ""
    log.info("resuming from %s, step %d of %d%s", checkpoint, count_steps(state), distiller.total_steps, damaged)
    return state


def _check_file(checkpoint: Path) -> Path:
    if not checkpoint.is_file():
        raise UserError(f"no checkpoint to resume at {checkpoint}; give the last.ckpt of a run")
    if checkpoint.stat().st_size == 0:
        raise UserError(f"{checkpoint} is empty (0 bytes); resume from another")
    if has_hash(checkpoint) and not hash_matches(checkpoint):
        raise UserError(
            f"{checkpoint} differs from the hash beside it and is damaged; resume=auto takes the newest valid one"
        )
    return checkpoint


def _read_state(checkpoint: Path) -> State:
    content = safe_load(checkpoint)
    if not isinstance(content, dict) or not content.keys() >= KEYS:
        raise UserError(
            f"{checkpoint} holds no training state; give the last.ckpt of a run (weights alone go to student.checkpoint)"
        )
    return content


def _check_classes(checkpoint: Path, saved: State, current: State, check: ClassCheck) -> None:
    if not saved.keys() >= ADDED_FINGERPRINT_KEYS:
        return
    names, classes = saved["classes"], current["classes"]
    cure = "resume with the dataset= and the classes that it was trained on"
    if find_class_difference(names, classes, check) is not None:
        raise UserError(explain_difference(names, classes, str(checkpoint), "the dataset", cure))
    shared = saved["labels"].keys() & current["labels"].keys()
    moved = [value for value in sorted(shared) if saved["labels"][value] != current["labels"][value]]
    if moved and check == "names":
        was, now = (_name_class(state["labels"][moved[0]], state["classes"]) for state in (saved, current))
        raise UserError(f"label {moved[0]} was {was} in the training of {checkpoint} and is {now}; {cure}")


def _name_class(index: int, classes: Sequence[str]) -> str:
    return f"'{classes[index]}'" if index < len(classes) else "ignored"


def _check_fingerprint(checkpoint: Path, saved: State, current: State) -> None:
    keys = [
        key
        for key in (*current, *saved.keys() - current.keys())
        if key not in {*ADDED_FINGERPRINT_KEYS, IMAGE_NAMES} and saved.get(key) != current.get(key)
    ]
    if keys:
        differences = "; ".join(f"{key} was {saved.get(key)} and is {current.get(key)}" for key in keys)
        raise UserError(
            f"{checkpoint} is of another run: {differences}. Resume with the same, or start a new run from its weights with "
            "student.checkpoint"
        )
    if saved.get(IMAGE_NAMES, current[IMAGE_NAMES]) != current[IMAGE_NAMES]:
        raise UserError(
            f"{checkpoint} was trained on other images, which were as many: their names differ. Split and name them as before, or "
            "start a new run from its weights with student.checkpoint"
        )


def _check_optimizers(checkpoint: Path, distiller: Distiller, state: State) -> None:
    """Check that restored optimizers are this run's: they keep the values they were saved with, and moments go by position."""
    if list(state["state_dict"]) != list(distiller.state_dict()):
        raise UserError(
            f"{checkpoint} has its weights in another order, by another version of segkd; resume with that version"
        )
    for phase, optimizer in zip(distiller.phases, distiller.configure_optimizers(), strict=True):
        groups, saved_groups = optimizer.state_dict()["param_groups"], state["optimizers"][phase.name]["param_groups"]
        for current, saved in zip(groups, saved_groups, strict=True):
            _check_same(checkpoint, current, saved)


def _check_same(checkpoint: Path, current: dict[str, Any], saved: dict[str, Any]) -> None:
    for key in (current.keys() | saved.keys()) - {"params", "lr"}:
        if current.get(key) != saved.get(key):
            raise UserError(
                f"{checkpoint} was trained with {key.removeprefix('initial_')}={saved.get(key)}, and {current.get(key)} is given; "
                "resume with the same optimizers"
            )
