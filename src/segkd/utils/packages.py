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
        raise UserError(f"the package '{package}' is not installed; {explain_install(extra)}") from None


def explain_install(extra: str) -> str:
    """Return the command that installs an extra of segkd, from an index and from a clone."""
    return f"pip install 'segkd[{extra}]' (in a clone: pip install -e '.[{extra}]')"
