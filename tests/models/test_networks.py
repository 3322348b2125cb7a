"""The contract of a network, for every yaml of configs/model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from segkd.config.instantiate import build_spec
from segkd.config.paths import CONFIGS
from segkd.errors import UserError
from segkd.models.adapter import Adapter
from segkd.models.base import Normalization, SegmentationModel, count_parameters
from segkd.models.enet import Down, ENet, Up
from segkd.models.espnet import ESPNet, ESPNetC
from segkd.models.layers import SampleDropout2d
from segkd.models.segnet import SegNet
from segkd.models.student_io import load_student, save_student
from segkd.types import FeatureInfo, NetworkOutput

WRAPPERS = ("none", "adapter", "ensemble")  # no networks by themselves: test_adapter, test_ensemble
NAMES = sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml") if path.stem not in WRAPPERS)
CLASSES = 7
ODD = (75, 91)
STATISTICS = Normalization((110, 110, 110), (55, 55, 55))


def build(name: str, num_classes: int = CLASSES, **arguments: int) -> SegmentationModel:
    node = yaml.safe_load((CONFIGS / "model" / f"{name}.yaml").read_text())
    made: SegmentationModel = build_spec({**node, **arguments}, num_classes=num_classes, normalization=STATISTICS)
    return made


@pytest.fixture(scope="module", params=NAMES)
def network(request: pytest.FixtureRequest) -> SegmentationModel:
    torch.manual_seed(0)
    return build(request.param)


def images(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)


def assert_as_declared(network: SegmentationModel, outputs: NetworkOutput, size: tuple[int, int]) -> None:
    assert {"encoder", "kd_logits"} <= network.features.keys() == outputs.features.keys()
    for name, (channels, stride) in network.features.items():
        maps = outputs.features[name]
        assert maps.shape[:2] == (2, channels), name
        for side, whole in zip(maps.shape[-2:], size, strict=True):
            assert abs(side - whole / stride) <= 1, name
    assert network.features["kd_logits"].channels == network.num_classes


def test_odd_images_give_the_declared_maps_and_move_every_weight(network: SegmentationModel) -> None:
    outputs = network.train()(images(*ODD))
    assert outputs.logits.shape[:2] == (2, CLASSES)
    assert outputs.logits_at(ODD).shape == (2, CLASSES, *ODD)
    assert_as_declared(network, outputs, ODD)
    side = outputs.features.get("auxiliary", outputs.logits)
    (outputs.logits.square().mean() + side.square().mean()).backward()
    still = [
        name
        for name, p in network.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or (p.ndim > 1 and not p.grad.any())
    ]
    assert not still
    network.zero_grad()

    true = network.features["encoder"]
    for wrong in (FeatureInfo(true.channels + 1, true.stride), FeatureInfo(true.channels, 2 * true.stride)):
        network.features["encoder"] = wrong
        with pytest.raises(AssertionError):
            assert_as_declared(network, outputs, ODD)
    network.features["encoder"] = true


def test_what_is_saved_comes_back_to_the_bit(network: SegmentationModel, tmp_path: Path) -> None:
    save_student(network, tmp_path, {"note": "…"})
    loaded = load_student(tmp_path)
    assert type(loaded) is type(network)
    assert loaded.arguments == network.arguments
    ours, theirs = network.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    (tmp_path / "student.safetensors").unlink()  # up to 280 MB, which pytest would keep
    probe = images(*ODD)
    with torch.no_grad():
        assert torch.equal(network.eval()(probe).logits, loaded(probe).logits)


@torch.no_grad()
def test_bfloat16_says_nearly_the_same(network: SegmentationModel) -> None:
    probe = images(network.min_size, network.min_size)[:1]
    exact = network.eval()(probe).logits
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network(probe).logits
    assert rounded.dtype == torch.bfloat16
    # 8 bits of mantissa, through up to a hundred layers; and a maximum that rounding moves is unpooled to another place
    allowed = 0.5 if isinstance(network, ENet | SegNet) else 0.2
    assert (rounded.float() - exact).norm() < allowed * exact.norm()


def test_the_smallest_image_trains_and_a_smaller_one_is_refused(network: SegmentationModel) -> None:
    least = network.min_size
    with torch.no_grad():
        assert network.train()(images(least, least)).logits.isfinite().all()
    with pytest.raises(UserError, match=rf"{least}×{least} pixels.*not {least}×{least - 1}; enlarge .*crop_size"):
        network(images(least, least - 1))


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("espnet", {"p": 1, "q": 1}),
        ("espnet_c", {"p": 1, "q": 1}),
        ("pspnet_resnet18_half", {}),
        ("erfnet", {}),
        ("segnet", {}),
    ],
)
@torch.no_grad()
def test_compiles(name: str, short: dict[str, int]) -> None:
    network, probe = build(name, **short).eval(), images(64, 96)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(probe).logits, network(probe).logits, rtol=1e-4, atol=1e-4)


# Liu et al. (2019), table 3 and code (19 classes); Mehta et al. (2018), published files (20 classes, skip 16). SegNet's 29.46 M
# are of Paszke et al. (2016), table 3, and come out at 21 to 38 classes: 37 are those of SUN RGB-D, which they train it on.
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
def test_published_sizes(name: str, num_classes: int, arguments: dict[str, int], count: int) -> None:
    with torch.device("meta"):
        assert count_parameters(build(name, num_classes, **arguments)) == count


@pytest.mark.parametrize("name", ["enet", "erfnet", "segnet", "mobilenetv2plus"])
@torch.no_grad()
def test_an_image_is_filled_up_at_the_right_and_the_bottom(name: str) -> None:
    """With what normalises to zero, and nothing is said of the filling."""
    network, odd = build(name).eval(), images(41, 50)
    whole = torch.nn.functional.pad(odd, (0, 64 - 50, 0, 64 - 41), value=110)
    side = 32 if name == "segnet" else 8
    whole = whole[..., : -(-41 // side) * side, : -(-50 // side) * side]
    logits = network(odd).logits
    stride = network.features["kd_logits"].stride if name == "mobilenetv2plus" else 1
    assert logits.shape[-2:] == (-(-41 // stride), -(-50 // stride))
    torch.testing.assert_close(logits, network(whole).logits[..., : logits.shape[-2], : logits.shape[-1]])


@pytest.mark.parametrize("name", NAMES)
def test_no_two_dropouts_draw_the_same(name: str) -> None:
    with torch.device("meta"):
        network = build(name)
    if isinstance(network, Adapter):
        pytest.skip("another library's network drops out as that library does")
    salts = [module.salt for module in network.modules() if isinstance(module, SampleDropout2d) and module.p]
    assert len(salts) == len(set(salts))
    assert not any(isinstance(module, torch.nn.modules.dropout._DropoutNd) for module in network.modules())


def test_maxima_return_to_where_they_stood() -> None:
    """A block that adds nothing leaves the shortcut alone: of each 2×2 square, one pixel is filled, where the maximum was."""
    down, up = Down(16, 64, SampleDropout2d(0)).eval(), Up(64, 16, SampleDropout2d(0)).eval()
    torch.nn.init.zeros_(up.branch[-2].weight)
    torch.nn.init.ones_(up.shortcut[1].bias)
    torch.nn.init.zeros_(up.shortcut[1].weight)
    x = torch.randn(2, 16, 8, 12)
    _, indices = down(x)
    largest = torch.nn.functional.max_pool2d(x, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(up(torch.randn(2, 64, 4, 6), indices), (x == largest).float())


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(UserError, match="skip is 16 or 19, not 17"):
        build("espnet", skip=17)
    with pytest.raises(UserError, match="depth is one of 18, 50, 101, not 34"):
        build("pspnet_resnet18", depth=34)


def test_espnet_scores_where_its_encoder_does() -> None:
    """The decoder starts from ESPNet-C: with the same weights, the feature `kd_logits` is ESPNet-C's answer."""
    whole, encoder = ESPNet(CLASSES, STATISTICS, q=1).eval(), ESPNetC(CLASSES, STATISTICS, q=1).eval()
    encoder.load_state_dict({key: whole.state_dict()[key] for key in encoder.state_dict()})
    probe = images(64, 96)
    assert torch.equal(whole(probe).features["kd_logits"], encoder(probe).logits)
