"""Say what to lower where memory has run out."""

from __future__ import annotations

import re

from segkd.utils.memory import is_out_of_memory

_CURES = {
    "train": "lower data.batch_size or data.crop_size, or split a batch with trainer.micro_batches=N",
    "calibrate": "lower data.batch_size or data.crop_size",
    "study": "lower data.batch_size or data.crop_size in overrides=[…], or parallel",
    "evaluate": "score in windows with window=[H,W], or lower workers",
    "predict": "predict in windows with window=[H,W], lower batch_size, or make the images smaller",
    "serve": "lower max_side, or compare fewer networks",
    "export": "lower calibration.images or workers, or export on a machine with more memory",
    "benchmark": "lower size, batch_size or data.batch_size, whichever the mode has",
}
"""Command → what lowers its need; the others read images alone."""


def explain_memory(error: BaseException, command: str) -> str | None:
    """Return the sentence for an error that comes from a lack of memory; None for any other."""
    if not is_out_of_memory(error):
        return None
    device = "GPU memory" if re.search(r"cuda|cublas|cudnn|gpu", str(error), re.IGNORECASE) else "memory"
    return f"out of {device}; {_CURES.get(command, 'lower workers')}, or end what else uses it"
