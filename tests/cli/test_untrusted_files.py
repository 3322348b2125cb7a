"""Files and configs from somebody else: whatever they ask to be executed is refused in a sentence, and nothing of it runs."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from segkd.models.base import Normalization
from segkd.models.espnet import ESPNetC
from segkd.models.student_io import save_student
from tests.helpers.commands import Command

QUICK = (
    "trainer=cpu",
    "trainer.max_epochs=1",
    "trainer.progress=false",
    "data.workers=0",
    "wandb.mode=disabled",
    "output_dir=run",
)


class Executes:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch executed",)


class Planted(torch.nn.Module):
    """A network with code of its own."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images + 1


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": Executes()}))


def nested(path: Path) -> None:
    torch.save({"state_dict": {"weight": torch.zeros(3), "deep": [{"deeper": Executes()}]}}, path)


def in_hyper_parameters(path: Path) -> None:
    torch.save({"state_dict": {"weight": torch.zeros(3)}, "hyper_parameters": {"width": Executes()}}, path)


def instantiator(path: Path) -> None:
    """Plain values, by which Lightning before 2.6.6 called whatever they name."""
    planted = {"_instantiator": "os.system", "command": "touch executed"}
    torch.save(
        {"state_dict": {"weight": torch.zeros(3)}, "hyper_parameters": planted, "pytorch-lightning_version": "2.6.6"},
        path,
    )


def archive_with_code(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Executes(), protocol=2))
        archive.writestr("archive/code/run.py", "import os; os.system('touch executed')")
        archive.writestr("archive/version", "3\n")


def torchscript(path: Path) -> None:
    torch.jit.save(torch.jit.script(Planted()), str(path))


FILES = (pickled, nested, in_hyper_parameters, instantiator, archive_with_code, torchscript)


def assert_refused(result: Any, *said: str) -> None:
    assert result.code == 2, result.err
    assert "Traceback" not in result.err
    told = [line for line in result.err.splitlines() if line.startswith("segkd: ")]
    assert len(told) == 1, result.err
    assert all(words in told[0] for words in said), told
    assert not Path("executed").exists()
    assert not Path("run").exists()


def test_the_marker_would_be_seen() -> None:
    pickled(Path("foreign.pth"))
    with pytest.raises(AttributeError):  # what is loaded is the exit code of the command
        pickle.loads(Path("foreign.pth").read_bytes())["weight"].shape  # noqa: B018
    assert Path("executed").exists()


@pytest.mark.parametrize("make", FILES)
@pytest.mark.parametrize("key", ["student.checkpoint", "teacher.checkpoint", "resume"])
def test_a_file_that_would_run_code(command: Command, make: Callable[[Path], None], key: str) -> None:
    make(Path("foreign.ckpt"))
    teacher = ("model@teacher=espnet", "loss=[cross_entropy,pixelwise]") if key.startswith("teacher") else ()
    assert_refused(command("train", *QUICK, *teacher, f"{key}=foreign.ckpt"), "foreign.ckpt")


TARGETS = {
    "system": ("student._target_=os.system", "'os.system' is not allowed as _target_"),
    "load": ("student._target_=torch.load", "'torch.load' is not allowed"),
    "unlink": ("student._target_=pathlib.Path.unlink", "'pathlib.Path.unlink' is not allowed"),
    "through us": ("student._target_=segkd.cli.launch.os.system", "there is no"),
    "a function of ours": ("student._target_=segkd.models.checkpoint_io.safe_load", "is not a class of segkd"),
    "through the optimisers": ("optimizers.student._target_=torch.optim.lr_scheduler.os.system", "there is no"),
    "nested": ("adversary.gan_loss._target_=os.system", "'os.system' is not allowed"),
    "partial": ("+student._partial_=true", "takes no '_partial_'"),
    "call by method": ("+loss.cross_entropy._recursive_=false", "takes no '_recursive_'"),
    "interpolated": ("student._target_=${oc.env:PLANTED}", "'os.system' is not allowed"),
    "in a member": ("model@teacher=ensemble", "+teacher.members={a: {_target_: os.system}}", "'os.system' is not allowed"),
}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_that_is_none_of_ours(command: Command, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("PLANTED", "os.system")
    *typed, said = TARGETS[name]
    critic = ("adversary=holistic",) if name == "nested" else ()
    assert_refused(command("train", *QUICK, *critic, *typed), said)


def student(directory: Path) -> Path:
    save_student(ESPNetC(11, Normalization((110,) * 3, (55,) * 3), p=1, q=1), directory, {"dataset": "Streets"})
    return directory / "student.yaml"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("extra: !!python/object/apply:os.system ['touch executed']", "does not describe a network"),
        ("network: os.system", "names 'os.system', which is no network of segkd"),
        ("network: segkd.models.checkpoint_io.safe_load", "is no network of segkd"),
    ],
)
def test_a_yaml_beside_weights(command: Command, tmp_path: Path, line: str, said: str) -> None:
    description = student(tmp_path)
    description.write_text(f"{description.read_text()}{line}\n")
    for typed in (
        ("evaluate", f"run={tmp_path}", "dataset=streets", "workers=0"),
        ("train", *QUICK, "student.checkpoint=student.safetensors"),
    ):
        assert_refused(command(*typed), said)


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        ("!!python/object/apply:os.system ['touch executed']", "names no dataset that can be built"),
        ("{_target_: os.system, command: touch executed}", "'os.system' is not allowed as _target_"),
        ("{_target_: segkd.losses.pixelwise.Pixelwise}", "Pixelwise is no data set"),
        ("[1]", "names no dataset that can be built"),
    ],
)
def test_a_run_of_somebody_else(command: Command, tmp_path: Path, dataset: str, said: str) -> None:
    student(tmp_path)
    (tmp_path / "config.yaml").write_text(f"dataset: {dataset}\n")
    assert_refused(command("evaluate", f"run={tmp_path}", "workers=0"), said, "dataset=NAME")


def test_an_experiment_with_a_python_tag(command: Command, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign/experiment"
    foreign.mkdir(parents=True)
    (foreign / "theirs.yaml").write_text(
        "# @package _global_\nname: !!python/object/apply:os.system ['touch executed']\n"
    )
    assert_refused(command("train", "--config-dir", "foreign", "experiment=theirs", *QUICK), "no valid YAML")


def test_there_is_one_way_to_load() -> None:
    """No other call in the project reads a pickle; a TorchScript file is a program, which a benchmark of it has to run."""
    source = Path(__file__).parents[2] / "src" / "segkd"
    found = [
        (path.name, word)
        for path in source.rglob("*.py")
        for word in (
            "torch.load(",
            "pickle.load",
            "yaml.load(",
            "allow_pickle",
            "load_from_checkpoint",
            "torch.jit.load",
        )
        if word in path.read_text()
    ]
    assert sorted(found) == [("checkpoint_io.py", "torch.load("), ("runtimes.py", "torch.jit.load")]
