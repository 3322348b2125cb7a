"""Score a network on a split of a dataset: `python -m segkd.evaluate`, and `segkd.evaluate(model, dataset)` from Python."""

import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    """A package that can be called: Python binds `segkd.evaluate` to it, as soon as any of its modules is imported."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Score a network; see `segkd.evaluate.scoring.evaluate`."""
        from segkd.evaluate.scoring import evaluate

        return evaluate(*arguments, **options)


sys.modules[__name__].__class__ = _CallablePackage
