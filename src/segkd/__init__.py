"""segkd: knowledge distillation for semantic segmentation."""

import os
from pathlib import Path
from typing import Any

# albumentations asks the package index for its newest release at every import; an offline run would wait for it.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

__version__ = "0.2.0.dev0"
__all__ = ["__version__", "load_student"]
__path__ = [*__path__, str(Path(__file__).parent / "retired")]  # so that `python -m segkd.ladder` names its successor


def __getattr__(name: str) -> Any:
    """Import on first use: a command line that is refused does not wait for torch."""
    if name == "load_student":
        from segkd.models.student_io import load_student

        return load_student
    raise AttributeError(f"module 'segkd' has no attribute '{name}'")
