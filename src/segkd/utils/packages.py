"""Optional packages."""

from __future__ import annotations

import importlib
from typing import Any

from segkd.errors import UserError


def require_package(package: str, extra: str) -> Any:
    """Import a package that an extra of segkd installs.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError:
        raise UserError(f"the package '{package}' is not installed; pip install 'segkd[{extra}]'") from None
