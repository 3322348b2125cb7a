"""Resolve the device to compute on."""

from __future__ import annotations

import torch

from segkd.errors import UserError


def resolve_device(accelerator: str) -> torch.device:
    """Return the device that `accelerator` names; for `auto`, a GPU if there is one.

    Raises:
        UserError: a GPU is given and there is none.
    """
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise UserError(f"accelerator={accelerator}, but PyTorch sees no CUDA device; use accelerator=cpu")
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")
