"""Backbones that start from ImageNet: what fits, what is refused, and what is fetched."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from segkd.build.networks import build_network
from segkd.data.streets import Streets
from segkd.errors import UserError
from segkd.models import torchvision_weights as imagenet
from segkd.models.base import Normalization, count_parameters
from segkd.models.checkpoint_io import state_hash
from segkd.models.espnet import ESPNetC
from segkd.models.pspnet import PSPNet, ResNet
from segkd.models.student_io import load_student, save_student
from segkd.models.torchvision_weights import load_backbone
from tests.helpers.commands import Command

ANY = Normalization((110, 110, 110), (55, 55, 55))
TARGET = "segkd.models.pspnet.PSPNet"


@pytest.fixture(scope="module")
def theirs() -> dict[str, Tensor]:
    """What torchvision saves of a ResNet18, with random weights and statistics."""
    torch.manual_seed(3)
    backbone = ResNet(18, 64, deep_stem=False)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
    return {**backbone.state_dict(), "fc.weight": torch.randn(1000, 512), "fc.bias": torch.randn(1000)}


@pytest.fixture
def file(theirs: dict[str, Tensor], tmp_path: Path) -> Path:
    torch.save(theirs, tmp_path / "resnet18.pth")
    return tmp_path / "resnet18.pth"


# torchvision 0.20, models/resnet.py: num_params of IMAGENET1K_V1
@pytest.mark.parametrize(("depth", "count"), [(18, 11_689_512), (50, 25_557_032), (101, 44_549_160)])
def test_backbones_have_the_size_of_torchvision_s(depth: int, count: int) -> None:
    with torch.device("meta"):
        backbone = ResNet(depth, 64, deep_stem=False)
        assert count_parameters(backbone) + count_parameters(nn.Linear(backbone.channels, 1000)) == count


def test_a_student_starts_from_the_file_and_normalises_as_it(
    file: Path, theirs: dict[str, Tensor], tmp_path: Path
) -> None:
    node = {"_target_": TARGET, "checkpoint": None, "init_from": file}
    torch.manual_seed(0)
    network, line = build_network(node, Streets("train"))
    ours = network.get_submodule("backbone").state_dict()
    assert ours.keys() == {key for key in theirs if not key.startswith("fc.")}
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert line == "resnet18.pth: the ResNet18 of a PSPNet, 0 denormal weights zeroed; normalising as on ImageNet"
    red = network.normalization(torch.tensor([182.07, 116.28, 103.53]).view(1, 3, 1, 1))
    torch.testing.assert_close(red.flatten(), torch.tensor([1.0, 0.0, 0.0]))

    torch.manual_seed(0)
    fresh, _ = build_network({"_target_": TARGET}, Streets("train"))
    assert fresh.normalization.to_dict()["mean"] == pytest.approx(Streets.mean)
    assert state_hash(fresh.get_submodule("classifier")) == state_hash(network.get_submodule("classifier"))
    save_student(network, tmp_path, {})
    assert load_student(tmp_path).normalization.to_dict() == network.normalization.to_dict()


def test_old_files_without_counters_fit(theirs: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({k: v for k, v in theirs.items() if not k.endswith("num_batches_tracked")}, tmp_path / "old.pth")
    network = PSPNet(5, ANY)
    load_backbone(network, str(tmp_path / "old.pth"))
    assert torch.equal(network.backbone.layer4[1].bn2.running_mean, theirs["layer4.1.bn2.running_mean"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: {k: v for k, v in state.items() if k != "conv1.weight"}, r"1 of 120 keys are missing \(conv1"),
        (lambda state: {**state, "layer5.weight": torch.zeros(1)}, r"1 of 120 keys are not this network's \(layer5"),
        (lambda state: {**state, "conv1.weight": torch.zeros(64, 3, 3, 3)}, r"1 of 120 keys have another shape \(conv1"),
        (lambda state: {"weight": torch.zeros(3)}, r"120 of 120 keys are missing"),
    ],
)  # fmt: skip
def test_another_file_is_refused_whole(change, said: str, theirs: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(change(theirs), tmp_path / "other.pth")
    network = PSPNet(5, ANY)
    before = state_hash(network)
    with pytest.raises(UserError, match=rf"other\.pth is not of a ResNet18: {said}"):
        load_backbone(network, str(tmp_path / "other.pth"))
    assert state_hash(network) == before


@pytest.mark.parametrize(
    ("network", "called"),
    [
        (ESPNetC(5, ANY, p=1, q=1), "this is a ESPNetC; choose pspnet_resnet18"),
        (PSPNet(5, ANY, width=32, pyramid=8), "this is a PSPNet with deep_stem=false, width=32; choose"),
        (PSPNet(5, ANY, deep_stem=True, pyramid=8), "this is a PSPNet with deep_stem=true, width=64; choose"),
    ],
)
def test_other_networks_have_no_such_backbone(network, called: str, file: Path) -> None:
    with pytest.raises(UserError, match=called):
        load_backbone(network, str(file))


@pytest.fixture
def published(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file under an address whose name holds its hash, and an empty cache."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    there = file.rename(tmp_path / f"resnet18-{digest}.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(imagenet, "ADDRESSES", {18: there.as_uri()})
    return there


def test_imagenet_is_fetched_once(published: Path, theirs: dict[str, Tensor], tmp_path: Path) -> None:
    for _ in range(2):
        network = PSPNet(5, ANY)
        load_backbone(network, "imagenet")
        assert torch.equal(network.backbone.conv1.weight, theirs["conv1.weight"])
        published.unlink(missing_ok=True)
    assert [path.name for path in (tmp_path / "cache/hub/checkpoints").iterdir()] == [published.name]


def test_what_cannot_be_fetched_is_said_and_leaves_nothing(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = published.with_name("resnet18-00000000.pth")
    published.rename(changed)
    for address, said in {
        published.as_uri(): "No such file",
        changed.as_uri(): "invalid hash",
        "http://127.0.0.1:9/resnet18-00000000.pth": "refused",
    }.items():
        monkeypatch.setattr(imagenet, "ADDRESSES", {18: address})
        with pytest.raises(
            UserError, match=rf"cannot fetch {address} \(.*{said}.*\); check the connection, or get resnet18-"
        ):
            load_backbone(PSPNet(5, ANY), "imagenet")
    assert not [*(tmp_path / "cache/hub/checkpoints").iterdir()]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("student.init_from=nowhere.pth",), "no checkpoint at nowhere.pth; give the path of a file"),
        (
            ("student.init_from=a.pth", "student.checkpoint=b.pth"),
            "checkpoint=b.pth holds the backbone too; give it or init_from=a.pth, not both",
        ),
        (
            ("student.init_from=imagenet", "model@student=espnet_c"),
            "init_from=imagenet needs a PSPNet",
        ),
    ],
)
def test_the_command_says_what_is_wrong(
    command: Command, typed: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = command("train", "model@student=pspnet_resnet18", *typed)
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1
