"""The losses that have a yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from segkd.check_part.steps import get_feature_infos

__all__ = ["SPECS", "YAMLS", "get_feature_infos"]

YAMLS = sorted((Path(__file__).parents[2] / "configs" / "loss").glob("*.yaml"))
SPECS: dict[str, dict[str, Any]] = {
    name: spec for path in YAMLS for name, spec in yaml.safe_load(path.read_text()).items()
}
