"""Untrusted files and configs: code in them is refused in one sentence, and never runs."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from segkd.models.base import Normalization
from segkd.models.espnet import ESPNetC
from segkd.models.student_io import save_student
from tests.helpers.commands import Command
from tests.helpers.refusals import RunsCode, assert_refused

QUICK = (
    "trainer=cpu",
    "trainer.max_epochs=1",
    "trainer.progress=false",
    "data.workers=0",
    "wandb.mode=disabled",
    "output_dir=run",
)


class NetworkWithCode(torch.nn.Module):
    """A network whose TorchScript file holds code."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images + 1


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": RunsCode()}))


def write_nested(path: Path) -> None:
    torch.save({"state_dict": {"weight": torch.zeros(3), "deep": [{"deeper": RunsCode()}]}}, path)


def write_hyper_parameters(path: Path) -> None:
    torch.save({"state_dict": {"weight": torch.zeros(3)}, "hyper_parameters": {"width": RunsCode()}}, path)


def write_instantiator(path: Path) -> None:
    """Plain values, by which Lightning before 2.6.6 called whatever they name."""
    planted = {"_instantiator": "os.system", "command": "touch executed"}
    torch.save(
        {"state_dict": {"weight": torch.zeros(3)}, "hyper_parameters": planted, "pytorch-lightning_version": "2.6.6"},
        path,
    )


def write_archive_with_code(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(RunsCode(), protocol=2))
        archive.writestr("archive/code/run.py", "import os; os.system('touch executed')")
        archive.writestr("archive/version", "3\n")


def write_torchscript(path: Path) -> None:
    torch.jit.save(torch.jit.script(NetworkWithCode()), str(path))


FILES = (
    write_pickle,
    write_nested,
    write_hyper_parameters,
    write_instantiator,
    write_archive_with_code,
    write_torchscript,
)


def test_unpickling_leaves_the_marker() -> None:
    write_pickle(Path("foreign.pth"))
    with pytest.raises(AttributeError):  # what is loaded is the exit code of the command
        pickle.loads(Path("foreign.pth").read_bytes())["weight"].shape  # noqa: B018
    assert Path("executed").exists()


@pytest.mark.parametrize("make", FILES)
@pytest.mark.parametrize("key", ["student.checkpoint", "teacher.checkpoint", "resume"])
def test_file_with_code_is_refused(command: Command, make: Callable[[Path], None], key: str) -> None:
    make(Path("foreign.ckpt"))
    teacher = ("model@teacher=espnet", "loss=[cross_entropy,pixelwise]") if key.startswith("teacher") else ()
    assert_refused(command("train", *QUICK, *teacher, f"{key}=foreign.ckpt"), "foreign.ckpt")


TARGETS = {
    "system": ("student._target_=os.system", "'os.system' is not allowed as _target_"),
    "load": ("student._target_=torch.load", "'torch.load' is not allowed"),
    "unlink": ("student._target_=pathlib.Path.unlink", "'pathlib.Path.unlink' is not allowed"),
    "through segkd": ("student._target_=segkd.cli.launch.os.system", "there is no"),
    "a function of segkd": ("student._target_=segkd.models.checkpoint_io.safe_load", "is not a class of segkd"),
    "through the optimizers": ("optimizers.student._target_=torch.optim.lr_scheduler.os.system", "there is no"),
    "nested": ("adversary.gan_loss._target_=os.system", "'os.system' is not allowed"),
    "partial": ("+student._partial_=true", "takes no '_partial_'"),
    "call by method": ("+loss.cross_entropy._recursive_=false", "takes no '_recursive_'"),
    "interpolated": ("student._target_=${oc.env:PLANTED}", "'os.system' is not allowed"),
    "in a member": ("model@teacher=ensemble", "+teacher.members={a: {_target_: os.system}}", "'os.system' is not allowed"),
}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_foreign_target_is_refused(command: Command, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("PLANTED", "os.system")
    *arguments, phrase = TARGETS[name]
    adversary = ("adversary=holistic",) if name == "nested" else ()
    assert_refused(command("train", *QUICK, *adversary, *arguments), phrase)


def write_student(directory: Path) -> Path:
    """Write a student without the checksum, which a stranger would adapt."""
    save_student(ESPNetC(11, Normalization((110,) * 3, (55,) * 3), p=1, q=1), directory, {"dataset": "Streets"})
    description = directory / "student.yaml"
    entries = yaml.safe_load(description.read_text())
    del entries["sha256"]
    description.write_text(yaml.safe_dump(entries))
    return description


@pytest.mark.parametrize(
    ("line", "phrase"),
    [
        ("extra: !!python/object/apply:os.system ['touch executed']", "does not describe a network"),
        ("network: os.system", "names 'os.system', which is no network of segkd"),
        ("network: segkd.models.checkpoint_io.safe_load", "is no network of segkd"),
    ],
)
def test_untrusted_student_yaml_is_refused(command: Command, tmp_path: Path, line: str, phrase: str) -> None:
    description = write_student(tmp_path)
    description.write_text(f"{description.read_text()}{line}\n")
    for arguments in (
        ("evaluate", f"run={tmp_path}", "dataset=streets", "workers=0"),
        ("train", *QUICK, "student.checkpoint=student.safetensors"),
    ):
        assert_refused(command(*arguments), phrase)


@pytest.mark.parametrize(
    ("dataset", "phrase"),
    [
        ("!!python/object/apply:os.system ['touch executed']", "is damaged"),
        ("{_target_: os.system, command: touch executed}", "'os.system' is not allowed as _target_"),
        ("{_target_: segkd.losses.pixelwise.Pixelwise}", "Pixelwise is not a data"),
        ("[1]", "names no dataset that can be built"),
    ],
)
def test_untrusted_run_is_refused(command: Command, tmp_path: Path, dataset: str, phrase: str) -> None:
    write_student(tmp_path)
    (tmp_path / "config.yaml").write_text(f"dataset: {dataset}\n")
    assert_refused(command("evaluate", f"run={tmp_path}", "workers=0"), phrase, "dataset=NAME")


def test_experiment_with_a_python_tag_is_refused(command: Command, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign/experiment"
    foreign.mkdir(parents=True)
    (foreign / "theirs.yaml").write_text(
        "# @package _global_\nname: !!python/object/apply:os.system ['touch executed']\n"
    )
    assert_refused(
        command("train", "--config-dir", "foreign", "experiment=theirs", *QUICK),
        "theirs.yaml, line 2",
        "not valid YAML",
    )


def test_pickles_are_read_in_one_place_only() -> None:
    """Benchmarks and model cards run TorchScript files, which are programs; `classes.yaml` has a SafeLoader of its own."""
    source = Path(__file__).parents[2] / "src" / "segkd"
    calls = [
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
    assert sorted(calls) == [
        ("checkpoint_io.py", "torch.load("),
        ("class_table.py", "yaml.load("),
        ("dataset_samples.py", "pickle.load"),  # what check_part has just pickled
        ("other_contracts.py", "torch.load("),  # likewise
        ("own.py", "torch.load("),  # the states of own callbacks, tensors and plain values
        ("runtimes.py", "torch.jit.load"),
        ("usage.py", "torch.jit.load"),
    ]
