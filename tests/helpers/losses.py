"""The losses that have a yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

YAMLS = sorted((Path(__file__).parents[2] / "configs" / "loss").glob("*.yaml"))
SPECS: dict[str, dict[str, Any]] = {
    name: spec for path in YAMLS for name, spec in yaml.safe_load(path.read_text()).items()
}
