"""ImageNet weights for backbones: loading, refusing and downloading."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from segkd.builders.networks import build_network
from segkd.config.instantiate import NetworkSpec, parse_spec
from segkd.data.streets import Streets
from segkd.errors import UserError
from segkd.models import torchvision_weights
from segkd.models.base import Normalization, count_parameters
from segkd.models.checkpoint_io import state_hash
from segkd.models.espnet import ESPNetC
from segkd.models.pspnet import PSPNet
from segkd.models.resnet import ResNet
from segkd.models.student_io import load_student, save_student
from segkd.models.torchvision_weights import load_backbone
from tests.helpers.commands import Command

NORMALIZATION = Normalization((110, 110, 110), (55, 55, 55))


@pytest.fixture(scope="module")
def resnet_state() -> dict[str, Tensor]:
    """The state dict of torchvision's ResNet18, with random weights and statistics."""
    torch.manual_seed(3)
    backbone = ResNet(18, 64, deep_stem=False)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
    return {**backbone.state_dict(), "fc.weight": torch.randn(1000, 512), "fc.bias": torch.randn(1000)}


@pytest.fixture
def resnet_file(resnet_state: dict[str, Tensor], tmp_path: Path) -> Path:
    torch.save(resnet_state, tmp_path / "resnet18.pth")
    return tmp_path / "resnet18.pth"


# torchvision 0.20, models/resnet.py: num_params of IMAGENET1K_V1
@pytest.mark.parametrize(("depth", "count"), [(18, 11_689_512), (50, 25_557_032), (101, 44_549_160)])
def test_backbones_have_torchvision_s_number_of_parameters(depth: int, count: int) -> None:
    with torch.device("meta"):
        backbone = ResNet(depth, 64, deep_stem=False)
        assert count_parameters(backbone) + count_parameters(nn.Linear(backbone.channels, 1000)) == count


def test_backbone_and_normalization_come_from_the_file(
    resnet_file: Path, resnet_state: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = PSPNet(11, NORMALIZATION)
    classifier_hash = state_hash(network.get_submodule("classifier"))
    summary = load_backbone(network, str(resnet_file))
    backbone = network.get_submodule("backbone").state_dict()
    assert backbone.keys() == {key for key in resnet_state if not key.startswith("fc.")}
    assert all(torch.equal(backbone[key], resnet_state[key]) for key in backbone)
    assert summary == "resnet18.pth: the ResNet18 of a PSPNet; normalizing as on ImageNet"
    pixel = network.normalization(torch.tensor([182.07, 116.28, 103.53]).view(1, 3, 1, 1))
    torch.testing.assert_close(pixel.flatten(), torch.tensor([1.0, 0.0, 0.0]))
    assert state_hash(network.get_submodule("classifier")) == classifier_hash
    save_student(network, tmp_path, {})
    assert load_student(tmp_path).normalization.to_dict() == network.normalization.to_dict()


def test_init_from_recognizes_a_file_of_torchvision(resnet_file: Path, resnet_state: dict[str, Tensor]) -> None:
    spec = parse_spec({"_target_": "segkd.models.pspnet.PSPNet", "init_from": str(resnet_file)})
    assert isinstance(spec, NetworkSpec)
    torch.manual_seed(0)
    network = build_network(spec, Streets("train"))
    assert torch.equal(network.get_parameter("backbone.conv1.weight"), resnet_state["conv1.weight"])
    torch.manual_seed(0)
    random_network = build_network(NetworkSpec(PSPNet, {}), Streets("train"))
    assert random_network.normalization.to_dict()["mean"] == pytest.approx(Streets.mean)
    classifiers = (random_network.get_submodule("classifier"), network.get_submodule("classifier"))
    assert state_hash(classifiers[0]) == state_hash(classifiers[1])


def test_file_without_batchnorm_counters_loads(resnet_state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({k: v for k, v in resnet_state.items() if not k.endswith("num_batches_tracked")}, tmp_path / "old.pth")
    network = PSPNet(5, NORMALIZATION)
    load_backbone(network, str(tmp_path / "old.pth"))
    assert torch.equal(network.backbone.layer4[1].bn2.running_mean, resnet_state["layer4.1.bn2.running_mean"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {k: v for k, v in state.items() if k != "conv1.weight"}, r"1 of 120 keys are missing \(conv1"),
        (lambda state: {**state, "layer5.weight": torch.zeros(1)}, r"1 of 120 keys are not this network's \(layer5"),
        (lambda state: {**state, "conv1.weight": torch.zeros(64, 3, 3, 3)}, r"1 of 120 keys have another shape \(conv1"),
        (lambda state: {"weight": torch.zeros(3)}, r"120 of 120 keys are missing"),
    ],
)  # fmt: skip
def test_wrong_file_changes_nothing(change, message: str, resnet_state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(change(resnet_state), tmp_path / "other.pth")
    network = PSPNet(5, NORMALIZATION)
    before = state_hash(network)
    with pytest.raises(UserError, match=rf"other\.pth holds no ResNet18: {message}"):
        load_backbone(network, str(tmp_path / "other.pth"))
    assert state_hash(network) == before


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (ESPNetC(5, NORMALIZATION, p=1, q=1), "this is a ESPNetC; choose pspnet_resnet18"),
        (PSPNet(5, NORMALIZATION, width=32, pyramid=8), "this is a PSPNet with deep_stem=false, width=32; choose"),
        (PSPNet(5, NORMALIZATION, deep_stem=True, pyramid=8), "this is a PSPNet with deep_stem=true, width=64; choose"),
    ],
)
def test_network_with_another_backbone_is_refused(network, message: str, resnet_file: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_backbone(network, str(resnet_file))


@pytest.fixture
def published_resnet_file(resnet_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file at a URL whose name holds its hash, and an empty cache."""
    digest = hashlib.sha256(resnet_file.read_bytes()).hexdigest()[:8]
    path = resnet_file.rename(tmp_path / f"resnet18-{digest}.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(torchvision_weights, "URLS", {18: path.as_uri()})
    return path


def test_imagenet_weights_are_downloaded_once(
    published_resnet_file: Path, resnet_state: dict[str, Tensor], tmp_path: Path
) -> None:
    for _ in range(2):
        network = PSPNet(5, NORMALIZATION)
        load_backbone(network, "imagenet")
        assert torch.equal(network.backbone.conv1.weight, resnet_state["conv1.weight"])
        published_resnet_file.unlink(missing_ok=True)
    assert [path.name for path in (tmp_path / "cache/hub/checkpoints").iterdir()] == [published_resnet_file.name]


def test_failed_download_is_an_error_and_leaves_no_file(
    published_resnet_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = published_resnet_file.with_name("resnet18-00000000.pth")
    published_resnet_file.rename(changed)
    for url, message in {
        published_resnet_file.as_uri(): "No such file",
        changed.as_uri(): "invalid hash",
        "http://127.0.0.1:9/resnet18-00000000.pth": "refused",
    }.items():
        monkeypatch.setattr(torchvision_weights, "URLS", {18: url})
        with pytest.raises(
            UserError, match=rf"cannot fetch {url} \(.*{message}.*\); check the connection, or get resnet18-"
        ):
            load_backbone(PSPNet(5, NORMALIZATION), "imagenet")
    assert not [*(tmp_path / "cache/hub/checkpoints").iterdir()]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("student.init_from=nowhere.pth",), "no checkpoint at nowhere.pth; give the path of a file"),
        (
            ("student.init_from=a.pth", "student.checkpoint=b.pth"),
            "checkpoint=b.pth holds the whole network; give it or init_from=a.pth, not both",
        ),
        (
            ("student.init_from=imagenet", "model@student=espnet_c"),
            "init_from=imagenet needs a PSPNet",
        ),
    ],
)
def test_train_reports_invalid_init_from(
    command: Command, overrides: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = command("train", "model@student=pspnet_resnet18", *overrides)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1
