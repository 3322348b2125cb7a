"""Warm starts from a network of the same family that was trained on other classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segkd.builders.networks import build_network
from segkd.config.instantiate import NetworkSpec, parse_spec
from segkd.data.streets import Streets
from segkd.errors import UserError
from segkd.models.adapter import Adapter
from segkd.models.base import Normalization, SegmentationModel
from segkd.models.checkpoint_io import state_hash
from segkd.models.enet import ENet
from segkd.models.espnet import ESPNet, ESPNetC
from segkd.models.pspnet import PSPNet
from segkd.models.student_io import load_student, save_student
from segkd.models.warm_start import copy_matching_weights, read_source_network

NORMALIZATION = Normalization((10, 20, 30), (40, 50, 60))
SOURCE_NORMALIZATION = Normalization((1, 2, 3), (4, 5, 6))
NUM_CLASSES = len(Streets.classes)

DECODER = {"classifier", "norm3", "up3", "project2", "join2", "fuse2", "up2", "norm_act2", "fuse1", "up1"}


@pytest.fixture(autouse=True)
def _named_as_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the networks of this file, as a user names those of a package."""
    monkeypatch.setenv("SEGKD_PLUGINS", __name__)


def build(network_class: type[SegmentationModel], **arguments: Any) -> SegmentationModel:
    torch.manual_seed(0)
    return network_class(num_classes=NUM_CLASSES, normalization=NORMALIZATION, **arguments)


def warm_start(network: SegmentationModel, file: Path) -> list[str]:
    """Warm-start a network; return the modules that are randomly initialized."""
    source = read_source_network(file, network)
    summary = copy_matching_weights(network, source, file)
    assert summary.startswith(f"{file.name}: ")
    return summary.rpartition("randomly initialized: ")[2].split(", ")


def build_source(network: type[SegmentationModel], classes: int, **arguments: int) -> SegmentationModel:
    """Build a network after one training pass: its counters are not those of a new network."""
    torch.manual_seed(1)
    source = network(num_classes=classes, normalization=SOURCE_NORMALIZATION, **arguments)
    source.train()(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))
    return source


@pytest.mark.parametrize(
    ("source_class", "source_classes", "network_class", "random_modules"),
    [
        (ESPNetC, 19, ESPNetC, {"classifier"}),
        (ESPNetC, 11, ESPNetC, set()),
        (ESPNetC, 11, ESPNet, DECODER - {"classifier"}),
        (ESPNet, 11, ESPNetC, set()),
        (ESPNet, 11, ESPNet, set()),
        (ESPNet, 19, ESPNet, DECODER),
        (ESPNet, 12, ESPNet, DECODER),  # some branches of `fuse2` would fit
    ],
    ids=["other classes", "same classes", "second stage", "encoder of ESPNet", "same network", "19", "12"],
)
def test_matching_modules_are_copied_and_others_keep_their_random_weights(
    source_class: type[SegmentationModel],
    source_classes: int,
    network_class: type[SegmentationModel],
    random_modules: set[str],
    tmp_path: Path,
) -> None:
    source = build_source(source_class, source_classes, p=1, q=2)
    save_student(source, tmp_path, {})
    network = build(network_class, p=1, q=2)
    listed = warm_start(network, tmp_path / "student.safetensors")
    random_state, source_state = build(network_class, p=1, q=2).state_dict(), source.state_dict()
    for key, weights in network.state_dict().items():
        expected = random_state if key.split(".")[0] in random_modules else source_state
        assert torch.equal(weights, expected[key]), key
    assert network.normalization.to_dict() == SOURCE_NORMALIZATION.to_dict()
    assert set(listed) == (random_modules or {"nothing"})


def test_init_from_warm_starts_a_network(tmp_path: Path) -> None:
    save_student(build_source(ESPNetC, 19, p=1, q=2), tmp_path, {})
    node = {"_target_": "segkd.models.espnet.ESPNet", "p": 1, "q": 2}
    spec = parse_spec({**node, "init_from": str(tmp_path / "student.safetensors")})
    assert isinstance(spec, NetworkSpec)
    torch.manual_seed(0)
    network = build_network(spec, Streets("train"))
    expected = build(ESPNet, p=1, q=2)
    warm_start(expected, tmp_path / "student.safetensors")
    assert state_hash(network) == state_hash(expected)
    assert network.normalization.to_dict() == SOURCE_NORMALIZATION.to_dict()


def test_plain_state_dict_is_recognized_by_its_keys(tmp_path: Path) -> None:
    """Its normalization is unknown, so the network keeps its own."""
    source = build_source(ESPNetC, 19, p=1, q=2)
    torch.save(source.state_dict(), tmp_path / "raw.pth")
    network = build(ESPNet, p=1, q=2)
    warm_start(network, tmp_path / "raw.pth")
    assert state_hash(network.get_submodule("encoder")) == state_hash(source.get_submodule("encoder"))
    assert network.normalization is NORMALIZATION


def test_encoder_alone_is_copied(tmp_path: Path) -> None:
    """Also from a file without BatchNorm's counters."""
    source = build_source(ESPNetC, 19, p=1, q=2)
    encoder = {k: v for k, v in source.state_dict().items() if k.startswith("encoder") and "num_batches" not in k}
    torch.save(encoder, tmp_path / "encoder.pth")
    network = build(ESPNetC, p=1, q=2)
    assert warm_start(network, tmp_path / "encoder.pth") == ["classifier"]
    state = network.state_dict()
    assert all(torch.equal(state[key], weights) for key, weights in encoder.items())


def test_pspnet_of_other_classes_starts_a_pspnet(tmp_path: Path) -> None:
    source = build_source(PSPNet, 19, width=8, pyramid=8)
    save_student(source, tmp_path, {})
    network = build(PSPNet, width=8, pyramid=8)
    assert "classifier" in warm_start(network, tmp_path / "student.safetensors")
    assert state_hash(network.get_submodule("backbone")) == state_hash(source.get_submodule("backbone"))


class OwnNetwork(nn.Module):
    """A network outside segkd."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 20, 3, padding=1)
        self.head = nn.Conv2d(20, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))  # type: ignore[no-any-return]


ADAPTER: dict[str, Any] = {
    "network": f"{__name__}.OwnNetwork",
    "classes_argument": "classes",
    "features": {"encoder": "body"},
}


def test_adapter_starts_from_an_adapter_except_for_its_head(tmp_path: Path) -> None:
    source = Adapter(19, SOURCE_NORMALIZATION, **ADAPTER)
    save_student(source, tmp_path, {})
    network = build(Adapter, **ADAPTER)
    assert warm_start(network, tmp_path / "student.safetensors") == ["network.head"]
    assert state_hash(network.get_submodule("network.body")) == state_hash(source.get_submodule("network.body"))


def test_adapter_with_another_normalization_is_refused(tmp_path: Path) -> None:
    """It would be rebuilt with its own normalization, and give other logits than in training."""
    save_student(Adapter(11, SOURCE_NORMALIZATION, mean=None, std=None, **ADAPTER), tmp_path, {})
    with pytest.raises(UserError, match=r"normalized otherwise; give student\.mean=\[1\.0,2\.0,3\.0\] student\.std="):
        warm_start(build(Adapter, **ADAPTER), tmp_path / "student.safetensors")
    network = build(Adapter, mean=None, std=None, **ADAPTER)
    warm_start(network, tmp_path / "student.safetensors")
    save_student(network, tmp_path, {})
    assert load_student(tmp_path).normalization.to_dict() == SOURCE_NORMALIZATION.to_dict()


@pytest.mark.parametrize(
    ("source_class", "arguments", "message"),
    [
        (
            ESPNetC,
            {"p": 1, "q": 3},
            r"is ESPNetC \(p=1, q=3, width=1\); less than half of ESPNetC \(p=1, q=2, width=1\)",
        ),
        (ESPNetC, {"p": 1, "q": 2, "width": 2}, r"matching modules: none\); build the network as it is"),
        (
            ENet,
            {},
            r"is ENet \(.*\); less than half of ESPNetC .*matching modules: none\); .*, or take one of the same family",
        ),
        (PSPNet, {"width": 8, "pyramid": 8}, r"is PSPNet \(.*\); less than half of ESPNetC .*matching modules: none\)"),
    ],
    ids=["built differently", "wider", "another family", "a teacher"],
)
def test_source_that_matches_less_than_half_is_refused(
    source_class: type[SegmentationModel], arguments: dict[str, int], message: str, tmp_path: Path
) -> None:
    save_student(build_source(source_class, 11, **arguments), tmp_path, {})
    with pytest.raises(UserError, match=message):
        warm_start(build(ESPNetC, p=1, q=2), tmp_path / "student.safetensors")


def test_second_stage_of_espnet_computes_the_logits_of_the_first(tmp_path: Path) -> None:
    first = build_source(ESPNetC, 11, p=1, q=2)
    save_student(first, tmp_path, {})
    second = build(ESPNet, p=1, q=2, skip=19)
    warm_start(second, tmp_path / "student.safetensors")
    probe = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(second.eval()(probe).features["kd_logits"], first.eval()(probe).logits)
    with pytest.raises(UserError, match=r"is ESPNetC \(p=1, q=2, width=1\); less than half"):
        warm_start(build(ESPNet, p=1, q=3, skip=19), tmp_path / "student.safetensors")


@pytest.mark.published
def test_published_cityscapes_network_starts_one_for_camvid(published_files: Path) -> None:
    file = published_files / "weights/skd-authors/cityscapes/espnet_ours_64.pth"
    network = build(ESPNet, p=2, q=8, skip=19)
    source = read_source_network(file, network)
    summary = copy_matching_weights(network, source, file)
    assert network.normalization.bgr
    assert summary.startswith("espnet_ours_64.pth: 9")
    random_modules = ", ".join(name for name, _ in network.named_children() if name in DECODER)
    assert summary.endswith(f"randomly initialized: {random_modules}")


@pytest.mark.published
def test_published_network_with_another_skip_starts_the_encoder(published_files: Path) -> None:
    """Mehta et al.'s network for Cityscapes concatenates 16 channels where the default is 19."""
    network = build(ESPNet)
    random_modules = warm_start(network, published_files / "weights/espnet-authors/decoder/espnet_p_2_q_8.pth")
    assert network.arguments["skip"] == 19
    assert "encoder" not in random_modules
