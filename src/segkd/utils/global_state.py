"""Keep what a whole process shares as it is: random numbers, environment, working folder, filters of warnings, exit hooks."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch


@contextlib.contextmanager
def unaltered_global_state() -> Iterator[None]:
    """Restore on leaving what was changed within: also by another thread, and in spite of an error."""
    random_states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    on_cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    environment, folder = dict(os.environ), _get_folder()
    filters, hooks, dtype = warnings.filters[:], (sys.exit, sys.excepthook), torch.get_default_dtype()
    try:
        yield
    finally:
        random.setstate(random_states[0])
        np.random.set_state(random_states[1])  # noqa: NPY002
        torch.set_rng_state(random_states[2])
        if on_cuda is not None:
            torch.cuda.set_rng_state_all(on_cuda)
        torch.set_default_dtype(dtype)
        sys.exit, sys.excepthook = hooks
        _restore_environment(environment)
        _restore_filters(filters)
        if folder is not None and _get_folder() != folder:
            with contextlib.suppress(OSError):
                os.chdir(folder)


def _get_folder() -> str | None:
    """Return the working folder; None where it is gone."""
    try:
        return str(os.getcwd())  # noqa: PTH109
    except OSError:
        return None


def _restore_environment(saved: dict[str, str]) -> None:
    if os.environ != saved:
        for name in os.environ.keys() - saved.keys():
            del os.environ[name]
        os.environ.update(saved)


def _restore_filters(saved: Sequence[Any]) -> None:
    if warnings.filters != saved:
        warnings.filters[:] = saved  # type: ignore[index]
        with warnings.catch_warnings():  # on its end, the cache of what was shown is emptied
            pass
