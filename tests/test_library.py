"""`import segkd`: public names, networks and losses by name, students from files."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import segkd
from segkd.config.paths import CONFIGS
from segkd.errors import UserError
from segkd.losses.base import Loss
from segkd.losses.pixelwise import Pixelwise
from segkd.models.base import IMAGENET_MEAN, SegmentationModel
from segkd.models.espnet import ESPNet, ESPNetC
from segkd.models.student_io import read_student_metadata
from tests.helpers.own_data_worker import CLASSES, make_pairs

ROOT = Path(__file__).parents[1]


def run_program(program: str, *arguments: str, cwd: Path | None = None) -> str:
    """Run a program in a process of its own and return what it prints."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, check=True, timeout=250, capture_output=True, text=True, cwd=cwd).stdout


def test_import_waits_for_nothing() -> None:
    program = (
        "import sys, segkd; dir(segkd); print(*sorted({'torch', 'hydra', 'numpy', 'cv2', 'yaml'} & {*sys.modules}))"
    )
    assert run_program(program).strip() == ""


def test_public_names_are_there() -> None:
    assert {*segkd.__all__} <= {*dir(segkd)}
    for name in segkd.__all__:
        assert getattr(segkd, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'create_modle'"):
        _ = segkd.create_modle
    assert not hasattr(segkd, "__wrapped__")


@pytest.mark.parametrize(("group", "names"), [("model", segkd.list_models()), ("loss", segkd.list_losses())])
def test_names_are_those_of_the_configs(group: str, names: list[str]) -> None:
    assert names == sorted({path.stem for path in (CONFIGS / group).glob("*.yaml")} - {"none"})


def test_arguments_replace_those_of_the_yaml_file() -> None:
    network = segkd.create_model("espnet", 5, q=1)
    assert type(network) is ESPNet
    assert network.training
    assert network.arguments == {"p": 2, "q": 1, "skip": 19, "width": 1}
    assert network.normalization.to_dict()["mean"] == pytest.approx(IMAGENET_MEAN)
    assert network(torch.zeros(1, 3, 64, 64)).logits.shape[1] == 5
    own = segkd.create_model("espnet_c", 5, mean=(1, 2, 3), std=[4, 5, 6])
    assert own.normalization.to_dict() == {"mean": [1, 2, 3], "std": [4, 5, 6], "bgr": False}


def test_an_adapter_gets_its_own_normalization() -> None:
    network = segkd.create_model("adapter", 4, network="torch.nn.Conv2d", mean=(0, 0, 0), std=(255, 255, 255),
                                 arguments={"in_channels": 3, "kernel_size": 1}, classes_argument="out_channels")  # fmt: skip
    assert network.normalization.to_dict()["std"] == [255, 255, 255]
    assert network.num_classes == 4


def test_losses_have_the_weights_of_their_yaml_files() -> None:
    for name in segkd.list_losses():
        assert isinstance(segkd.create_loss(name), Loss)
    loss = segkd.create_loss("pixelwise", temperature=3)
    assert isinstance(loss, Pixelwise)
    assert loss.temperature == 3
    assert segkd.create_loss("pairwise").weight == 10


FAULTS: dict[str, tuple[Callable[[], object], str]] = {
    "network": (lambda: segkd.create_model("espnett", 3), "there is no model called 'espnett'; did you mean 'espnet'?"),
    "none": (lambda: segkd.create_model("none", 3), "there is no model called 'none'"),
    "argument": (lambda: segkd.create_model("espnet", 3, pp=1), r"ESPNet takes no 'pp' \(did you mean 'p'\?\)"),
    "value": (lambda: segkd.create_model("espnet", 3, p="two"), "'p' must be a whole number"),
    "class": (lambda: segkd.create_model("espnet", 3, _target_="os.system"), "the name fixes the class"),
    "file": (lambda: segkd.create_model("espnet", 3, checkpoint="none.safetensors"), "none.safetensors"),
    "both files": (lambda: segkd.create_model("espnet", 3, checkpoint="a.pt", init_from="b.pt"), "not both"),
    "ensemble": (lambda: segkd.create_model("ensemble", 3), "give them to segkd.models.ensemble.Ensemble"),
    "loss": (lambda: segkd.create_loss("pixelwize"), "there is no loss called 'pixelwize'; did you mean 'pixelwise'?"),
    "loss's argument": (lambda: segkd.create_loss("pixelwise", temprature=2), "did you mean 'temperature'"),
    "loss's value": (lambda: segkd.create_loss("pairwise", weight=-1.0), "weight must be 0 or more"),
    "rule": (lambda: segkd.create_loss("cross_entropy", class_weights="enet"), "give numbers"),
    "student": (lambda: segkd.load_student("nowhere"), "student.yaml is missing"),
    "statistics": (lambda: segkd.create_model("espnet", 3, mean=(1,)), "give three numbers each"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call, sentence = FAULTS[fault]
    with pytest.raises(UserError, match=sentence):
        call()


def test_students_are_saved_with_their_classes_and_loaded_by_folder_or_file(tmp_path: Path) -> None:
    student = segkd.create_model("espnet_c", 3, p=1, q=1)
    segkd.Distiller(student, None, {"cross_entropy": segkd.create_loss("cross_entropy")}, classes=CLASSES)
    segkd.save_student(student, str(tmp_path / "new/run"))
    weights = tmp_path / "new/run/student.safetensors"
    for path in (tmp_path / "new/run", weights, str(weights)):
        loaded = segkd.load_student(path)
        assert type(loaded) is ESPNetC
        assert loaded.classes == tuple(CLASSES)
        assert not loaded.training
    images = make_pairs(1).tensors[0]
    assert torch.equal(loaded(images).logits, student.eval()(images).logits)
    renamed = weights.rename(weights.with_name("best.safetensors"))
    weights.with_suffix(".yaml").rename(renamed.with_suffix(".yaml"))
    assert segkd.load_student(renamed).num_classes == 3
    teacher = segkd.create_model("espnet_c", 3, checkpoint=renamed)
    assert torch.equal(teacher.eval()(images).logits, loaded(images).logits)
    with pytest.raises(UserError, match=r"best\.safetensors has 3 outputs, and num_classes=5"):
        segkd.create_model("espnet_c", 5, checkpoint=renamed)


def test_a_student_of_a_plugin_is_loaded_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "library_plugin").mkdir()
    (tmp_path / "library_plugin/__init__.py").write_text(
        "from segkd.models.espnet import ESPNetC\n\nclass Net(ESPNetC):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SEGKD_PLUGINS", "library_plugin")
    import library_plugin  # type: ignore[import-not-found]

    plain = segkd.create_model("espnet_c", 3, p=1, q=1)
    network: SegmentationModel = library_plugin.Net(3, plain.normalization, **plain.arguments)
    segkd.save_student(network, tmp_path)
    monkeypatch.setenv("SEGKD_PLUGINS", "")
    with pytest.raises(UserError, match=r"plugins=\[library_plugin\]"):
        segkd.load_student(tmp_path)
    assert type(segkd.load_student(tmp_path, plugins=["library_plugin"])) is library_plugin.Net
    assert read_student_metadata(tmp_path)["network"] == "library_plugin.Net"


def test_parts_of_a_plugin_are_created_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples/my_parts"))
    monkeypatch.setenv("SEGKD_PLUGINS", "")
    own_parts: list[Callable[..., Any]] = [
        partial(segkd.create_model, "tiny_net", 3, width=4),
        partial(segkd.create_loss, "feature_l1", weight=2.0),
    ]
    for create in own_parts:
        with pytest.raises(UserError, match=r"; for one of your own, name its package, plugins=\[my_pkg\]$"):
            create()
    assert not {"tiny_net", "feature_l1"} & {*segkd.list_models(), *segkd.list_losses()}
    for create, name in zip(own_parts, ("TinyNet", "FeatureL1"), strict=True):
        monkeypatch.setenv("SEGKD_PLUGINS", "")
        assert type(create(plugins=["my_parts"])).__name__ == name
    monkeypatch.setenv("SEGKD_PLUGINS", "")
    assert "tiny_net" in segkd.list_models(plugins=["my_parts"])
    assert "feature_l1" in segkd.list_losses()
    with pytest.raises(UserError, match="; the plugins my_parts have none of that name"):
        segkd.create_loss("xyz")


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code blocks, one after another."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/how-to/python.md").read_text(), re.DOTALL)
    assert len(blocks) == 6
    monkeypatch.chdir(tmp_path)
    segkd.save_student(segkd.create_model("espnet_c", 3, p=1, q=1), "runs/distilled")
    pairs = make_pairs(4, size=64)
    names = {"train_data": pairs, "val_data": pairs}
    for block in blocks:
        exec(block.replace("pl.Trainer(", "pl.Trainer(accelerator='cpu', logger=False, "), names)
    assert segkd.load_student("runs/mine").classes == ("background", "disk", "square")
    assert sorted(path.name for path in Path("checkpoints").iterdir()) == ["epoch=0-step=1.ckpt", "last.ckpt"]
