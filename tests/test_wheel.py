"""The wheel works outside a checkout: it contains the configs and the small teacher, and the examples run with it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
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


@pytest.mark.parametrize("name", sorted(path.name for path in (PROJECT / "examples").glob("*.py")))
def test_example_runs_with_the_wheel(installed: Path, name: str) -> None:
    """Each reads like what a user would write, in 60 lines, and prints a result."""
    example = shutil.copy(PROJECT / "examples" / name, installed / name)
    result = python(installed, str(example))
    assert result.returncode == 0, result.stderr
    assert re.search("mIoU|accuracy", result.stdout)
    assert len(Path(example).read_text().splitlines()) <= 60


def test_package_of_ones_own_works_with_the_wheel(installed: Path) -> None:
    """The commands of docs/how-to/plugins.md, section "Try it"; no part takes more than 40 lines."""
    shutil.copytree(PROJECT / "examples/my_parts", installed, dirs_exist_ok=True)
    assert all(len(path.read_text().splitlines()) <= 40 for path in (installed / "my_parts").glob("*.py"))
    page = (PROJECT / "docs/how-to/plugins.md").read_text()
    (commands,) = re.findall(r"## Try it\n\n```bash\n(.+?)```", page, re.S)
    runs = [shlex.split(line) for line in commands.replace("\\\n", " ").splitlines() if line.startswith("python")]
    assert len(runs) == 3
    for _, *arguments in runs:
        result = python(
            installed, *arguments, *(["workers=0"] if "segkd.evaluate" in arguments else ["wandb.mode=disabled"])
        )
        assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].startswith("mIoU ")
    assert (installed / "runs/teacher/metrics.jsonl").exists()


def test_page_shows_the_package_of_the_examples() -> None:
    """Each block of code in docs/how-to/plugins.md is a file of examples/my_parts."""
    page = (PROJECT / "docs/how-to/plugins.md").read_text()
    blocks = re.findall(r"```(?:python|yaml)\n(.+?)```", page, re.S)
    package = PROJECT / "examples/my_parts/my_parts"
    files = {path.read_text() for path in package.rglob("*") if path.suffix in (".py", ".yaml")}
    shown = [re.sub(r"^# my_parts/.*\n", "", block) for block in blocks]
    assert [block for block in shown if block not in files] == []
    assert len(shown) == 8
