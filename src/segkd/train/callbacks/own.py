"""Callbacks of the user's own: build them, keep their state in checkpoints, and name the one that raised."""

from __future__ import annotations

import io
import logging
import traceback
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

from segkd.config.instantiate import Spec
from segkd.errors import UserError

_UNUSED_HOOKS = ("on_save_checkpoint", "on_load_checkpoint")

log = logging.getLogger(__name__)


class OwnCallbacks:
    """The callbacks of `callbacks=[…]`, by name.

    Their `state_dict` goes into each checkpoint, and into `load_state_dict` of those of a run that resumes from it.

    Args:
        specs: name → what to build.

    Raises:
        UserError: a callback refuses a value.
    """

    def __init__(self, specs: Mapping[str, Spec]) -> None:
        self.by_name = {name: _build(name, spec) for name, spec in specs.items()}
        self._is_told: set[str] = set()

    def collect_states(self) -> dict[str, Any]:
        """Return the states by name, without empty ones and those that a checkpoint does not take."""
        states = {name: self._copy_state(name, callback.state_dict()) for name, callback in self.by_name.items()}
        return {name: state for name, state in states.items() if state}

    def restore_states(self, states: Mapping[str, Any]) -> None:
        """Restore the states of a checkpoint."""
        for name, state in states.items():
            if name in self.by_name:
                self.by_name[name].load_state_dict(state)
            else:
                log.warning("the checkpoint holds a state of the callback '%s', which this run does not have", name)

    def explain(self, error: BaseException) -> None:
        """Add to an error which callback raised it, if one did."""
        objects = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
        for name, callback in self.by_name.items():
            if any(callback is own for own in objects):
                error.add_note(
                    f"raised by the callback '{name}' ({type(callback).__module__}.{type(callback).__name__})"
                )

    def _copy_state(self, name: str, state: dict[str, Any]) -> Any:
        """Return a copy of a state as it is read back; None if it holds what reading a checkpoint does not allow."""
        serialized = io.BytesIO()
        try:
            torch.save(state, serialized)
            serialized.seek(0)
            return torch.load(serialized, weights_only=True)
        except Exception:
            if name not in self._is_told:
                log.warning(
                    "the state of the callback '%s' is not saved, and begins anew where the run is resumed: a checkpoint takes "
                    "tensors, numbers, texts, lists and dicts alone",
                    name,
                )
            self._is_told.add(name)
            return None


def _build(name: str, spec: Spec) -> pl.Callback:
    try:
        callback: pl.Callback = spec.build()
    except MisconfigurationException as error:
        raise UserError(f"callbacks.{name}: {' '.join(str(error).split())}") from None
    unused = [hook for hook in _UNUSED_HOOKS if getattr(type(callback), hook) is not getattr(pl.Callback, hook)]
    if unused:
        log.warning("%s of the callback '%s' is never called; state_dict is saved instead", " and ".join(unused), name)
    return callback
