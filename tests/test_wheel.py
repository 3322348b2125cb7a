"""The wheel works outside a checkout: it contains the configs and the small teacher."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.process

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the unpacked wheel in `site`, and nothing of the checkout."""
    directory = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--quiet",
        "-w",
        directory,
        PROJECT,
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (wheel,) = directory.glob("segkd-*.whl")
    zipfile.ZipFile(wheel).extractall(directory / "site")
    return directory


def python(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed / "site"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=installed, env=environment, capture_output=True, text=True, timeout=200
    )


def test_wheel_contains_every_config(installed: Path) -> None:
    configs = {path.relative_to(PROJECT / "configs") for path in (PROJECT / "configs").rglob("*.yaml")}
    packaged = installed / "site/segkd/configs"
    assert {path.relative_to(packaged) for path in packaged.rglob("*.yaml")} == configs
    assert (installed / "site/segkd/py.typed").exists()


def test_two_processes_train_from_the_wheel(installed: Path) -> None:
    """`segkd train`: Lightning starts the second process by the name of the module that is `__main__`."""
    where = python(installed, "-c", "import segkd; print(segkd.__file__)")
    assert where.stdout.strip() == str(installed / "site/segkd/__init__.py")
    result = python(
        installed, "-m", "segkd", "train", "experiment=quickstart", "trainer=cpu", "trainer.devices=2", "trainer.max_epochs=1",
        "trainer.limit_train_batches=2", "trainer.limit_val_batches=2", "wandb.mode=disabled", "output_dir=run",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert (installed / "run/student.safetensors").exists()
    assert len(torch.load(installed / "run/last.ckpt", weights_only=True)["processes"]) == 2
