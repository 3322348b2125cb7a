"""`python -m segkd`: every command, and what it is for."""

from __future__ import annotations

import subprocess
import sys

from segkd.__main__ import commands
from segkd.cli import CONFIGS


def test_all_commands_are_named() -> None:
    printed = subprocess.run([sys.executable, "-m", "segkd"], capture_output=True, text=True, check=True).stdout
    configs = {path.stem for path in CONFIGS.glob("*.yaml")} - {"help"}
    assert commands().keys() == configs
    assert all(f"  {name} " in printed for name in configs)
