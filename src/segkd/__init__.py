"""segkd: knowledge distillation for semantic segmentation."""

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segkd.builders.parts import create_loss, create_model, list_losses, list_models
    from segkd.cli.compose import create_datamodule
    from segkd.distillation.distiller import Distiller
    from segkd.evaluate.scoring import evaluate
    from segkd.models.student_io import load_student, save_student
    from segkd.models.wrapped import wrap_model

# albumentations asks the package index for its newest release at every import; an offline run would wait for it.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

__version__ = "0.2.0.dev0"
__all__ = [
    "Distiller",
    "__version__",
    "create_datamodule",
    "create_loss",
    "create_model",
    "evaluate",
    "list_losses",
    "list_models",
    "load_student",
    "save_student",
    "wrap_model",
]
__path__ = [*__path__, str(Path(__file__).parent / "retired")]  # so that `python -m segkd.ladder` names its successor

_MODULES = {
    "Distiller": "segkd.distillation.distiller",
    "create_datamodule": "segkd.cli.compose",
    "create_loss": "segkd.builders.parts",
    "create_model": "segkd.builders.parts",
    "list_losses": "segkd.builders.parts",
    "list_models": "segkd.builders.parts",
    "load_student": "segkd.models.student_io",
    "save_student": "segkd.models.student_io",
    "wrap_model": "segkd.models.wrapped",
}
"""Public name → its module."""


def __getattr__(name: str) -> Any:
    """Import on first use: a command line that is refused does not wait for torch."""
    if name == "evaluate":
        return import_module("segkd.evaluate")  # a package that can be called
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'segkd' has no attribute '{name}'")


def __dir__() -> list[str]:
    """Return the public names too, which are not imported yet."""
    return sorted({*globals(), *__all__})
