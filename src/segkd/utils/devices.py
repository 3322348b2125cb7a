"""Resolve the device to compute on."""

from __future__ import annotations

import torch

from segkd.errors import UserError


def resolve_device(accelerator: str, key: str = "accelerator") -> torch.device:
    """Return the device that `accelerator` names; for `auto`, a GPU if there is one.

    Args:
        accelerator: auto, cpu, gpu or cuda.
        key: the key that was set, for the error.

    Raises:
        UserError: a GPU is given and there is none.
    """
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        remedy = "trainer=cpu" if key.startswith("trainer.") else f"{key}=cpu"
        raise UserError(f"{key}={accelerator}, but PyTorch sees no CUDA device; use {remedy}")
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")
