"""Every network that has a yaml keeps the contract of `check_part/network_contract.py`; and what is particular to some."""

from __future__ import annotations

import pytest
import torch
import yaml

from segkd.check_part.network_contract import CHECKS, check_network
from segkd.check_part.network_maps import check_compiles, make_images
from segkd.config.instantiate import parse_spec
from segkd.config.paths import CONFIGS
from segkd.errors import UserError
from segkd.models.adapter import Adapter
from segkd.models.base import Normalization, SegmentationModel, count_parameters
from segkd.models.enet import Down, Up
from segkd.models.espnet import ESPNet, ESPNetC
from segkd.models.layers import SampleDropout2d

WRAPPERS = ("none", "adapter", "ensemble")  # tested in test_adapter and test_ensemble
NAMES = sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml") if path.stem not in WRAPPERS)
CLASSES = 7
LINES = [line for line in CHECKS if line not in ("compiles", "traces")]  # which take seconds a network
STATISTICS = Normalization((110, 110, 110), (55, 55, 55))


def build(name: str, num_classes: int = CLASSES, **arguments: int) -> SegmentationModel:
    node = yaml.safe_load((CONFIGS / "model" / f"{name}.yaml").read_text())
    network: SegmentationModel = parse_spec({**node, **arguments}).build(
        num_classes=num_classes, normalization=STATISTICS
    )
    return network


@pytest.fixture(
    scope="module",
    # Its code is that of pspnet_resnet50; its files are of 280 MB.
    params=[pytest.param(n, marks=pytest.mark.slow) if n == "pspnet_resnet101" else n for n in NAMES],
)
def network(request: pytest.FixtureRequest) -> SegmentationModel:
    torch.manual_seed(0)
    return build(request.param)


def test_network_keeps_the_contract(network: SegmentationModel) -> None:
    findings = check_network(network, LINES)
    assert [finding.line for finding in findings] == LINES
    assert [str(finding) for finding in findings if finding.is_fault] == []
    # Networks of other libraries use their own dropout.
    assert isinstance(network, Adapter) or all(finding.verdict != "lacks" for finding in findings)


def test_small_image_is_refused_with_both_sizes() -> None:
    network = build("espnet_c")
    side = network.min_size
    with pytest.raises(UserError, match=rf"{side}×{side} pixels.*not {side}×{side - 1}; enlarge .*crop_size"):
        network(make_images(side, side - 1))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("espnet", {"p": 1, "q": 1}),
        ("espnet_c", {"p": 1, "q": 1}),
        pytest.param("pspnet_resnet18_half", {}, marks=pytest.mark.slow),
        pytest.param("erfnet", {}, marks=pytest.mark.slow),
        pytest.param("segnet", {}, marks=pytest.mark.slow),
    ],
)
def test_network_compiles(name: str, arguments: dict[str, int]) -> None:
    check_compiles(build(name, **arguments))


# Liu et al. (2019), table 3 and code (19 classes); Mehta et al. (2018), published files (20 classes, skip 16). SegNet's 29.46 M
# are from Paszke et al. (2016), table 3, and fit 21 to 38 classes: 37 are those of SUN RGB-D, which they train it on.
@pytest.mark.parametrize(
    ("name", "num_classes", "arguments", "count"),
    [
        ("espnet_c", 19, {}, 349_193),
        ("espnet", 19, {}, 363_462),
        ("espnet_c", 11, {}, 347_145),
        ("espnet", 11, {}, 353_437),
        ("espnet", 20, {"skip": 16, "q": 3}, 202_649),
        ("espnet", 20, {"skip": 16, "q": 5}, 267_417),
        ("espnet", 20, {"skip": 16, "q": 8}, 364_569),
        ("espnet", 12, {}, 354_517),
        ("espnet_c", 20, {"q": 5}, 252_297),
        ("pspnet_resnet101", 19, {}, 70_437_350),
        ("pspnet_resnet18_deep", 19, {}, 13_068_262),
        ("pspnet_resnet18_deep", 11, {}, 13_066_198),
        ("pspnet_resnet18", 19, {}, 15_247_187),
        ("pspnet_resnet18_half", 19, {}, 3_834_515),
        ("mobilenetv2plus", 19, {}, 8_301_113),
        ("enet", 19, {}, 358_038),
        ("erfnet", 19, {}, 2_066_642),
        ("segnet", 37, {}, 29_464_357),
        ("segnet", 19, {}, 29_453_971),
    ],
)
def test_number_of_parameters_is_the_published_one(
    name: str, num_classes: int, arguments: dict[str, int], count: int
) -> None:
    with torch.device("meta"):
        assert count_parameters(build(name, num_classes, **arguments)) == count


@pytest.mark.parametrize("name", ["enet", "erfnet", "segnet", "mobilenetv2plus"])
@torch.no_grad()
def test_images_are_padded_at_the_right_and_the_bottom(name: str) -> None:
    """With pixels that normalize to zero; the logits are cropped again."""
    network, image = build(name).eval(), make_images(41, 50)
    padded = torch.nn.functional.pad(image, (0, 64 - 50, 0, 64 - 41), value=110)
    side = 32 if name == "segnet" else 8
    padded = padded[..., : -(-41 // side) * side, : -(-50 // side) * side]
    logits = network(image).logits
    stride = network.features["kd_logits"].stride if name == "mobilenetv2plus" else 1
    assert logits.shape[-2:] == (-(-41 // stride), -(-50 // stride))
    torch.testing.assert_close(logits, network(padded).logits[..., : logits.shape[-2], : logits.shape[-1]])


def test_enet_unpools_to_the_positions_of_the_maxima() -> None:
    """With a branch of zeros only the shortcut remains: one pixel of each 2×2 square is set, where the maximum was."""
    down, up = Down(16, 64, SampleDropout2d(0)).eval(), Up(64, 16, SampleDropout2d(0)).eval()
    torch.nn.init.zeros_(up.branch[-2].weight)
    torch.nn.init.ones_(up.shortcut[1].bias)
    torch.nn.init.zeros_(up.shortcut[1].weight)
    x = torch.randn(2, 16, 8, 12)
    _, indices = down(x)
    largest = torch.nn.functional.max_pool2d(x, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(up(torch.randn(2, 64, 4, 6), indices), (x == largest).float())


def test_invalid_arguments_are_errors() -> None:
    with pytest.raises(UserError, match="skip must be 16 or 19, not 17"):
        build("espnet", skip=17)
    with pytest.raises(UserError, match="depth must be one of 18, 50, 101, not 34"):
        build("pspnet_resnet18", depth=34)


def test_kd_logits_of_espnet_are_those_of_espnet_c() -> None:
    """With the same weights, the feature `kd_logits` of ESPNet equals the logits of ESPNet-C."""
    espnet, espnet_c = ESPNet(CLASSES, STATISTICS, q=1).eval(), ESPNetC(CLASSES, STATISTICS, q=1).eval()
    espnet_c.load_state_dict({key: espnet.state_dict()[key] for key in espnet_c.state_dict()})
    probe = make_images(64, 96)
    assert torch.equal(espnet(probe).features["kd_logits"], espnet_c(probe).logits)
