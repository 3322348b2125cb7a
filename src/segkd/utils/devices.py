"""Where a run computes: on what, in how many processes, and whether the machine has it."""

from __future__ import annotations

import torch

from segkd.errors import UserError


def resolve_device(accelerator: str) -> torch.device:
    """Where a command without a Trainer computes.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise UserError(f"accelerator={accelerator}, but PyTorch sees no CUDA device; use accelerator=cpu")
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")
