"""The adapter for networks of other libraries."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.errors import UserError
from segkd.models.adapter import Adapter
from segkd.models.base import IMAGENET_MEAN, IMAGENET_STD, Normalization
from segkd.models.pretrained import load_network
from segkd.models.student_io import load_student, save_student
from segkd.types import FeatureInfo
from tests.helpers.third_party_networks import ThirdPartyNetwork

pytestmark = pytest.mark.usefixtures("third_party_plugin")

DATASET_NORMALIZATION = Normalization((10.0, 20.0, 30.0), (40.0, 50.0, 60.0))
FEATURES = {"encoder": "backbone"}


def build_adapter(output: str = "tensor", outputs: int = 11, **overrides: Any) -> Adapter:
    torch.manual_seed(0)
    arguments = {"output": output, "outputs": outputs}
    return Adapter(
        11,
        DATASET_NORMALIZATION,
        **{
            "network": "tests.helpers.third_party_networks.ThirdPartyNetwork",
            "arguments": arguments,
            "features": FEATURES,
            **overrides,
        },
    )


def make_images(height: int = 75, width: int = 91) -> Tensor:
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)


@pytest.mark.parametrize("output", ["tensor", "quarter size", "dict", "tuple", "list"])
@torch.no_grad()
def test_usual_output_formats_are_accepted(output: str) -> None:
    network = build_adapter(output).eval()
    probe = make_images()
    outputs = network(probe)
    normalized = (probe.float() - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
    wrapped = network.network(normalized)
    expected = wrapped["out"] if output == "dict" else wrapped[0] if output in ("tuple", "list") else wrapped
    torch.testing.assert_close(outputs.logits, expected)
    assert outputs.logits_at((75, 91)).shape == (2, 11, 75, 91)
    assert network.features == {
        "kd_logits": FeatureInfo(11, 4 if output == "quarter size" else 1),
        "encoder": FeatureInfo(16, 4),
    }
    torch.testing.assert_close(outputs.features["encoder"], network.network.backbone(normalized))  # type: ignore[operator]
    assert outputs.align_corners is False


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("unknown dict", "returns prediction; logits are expected as logits or out"),
        ("labels", "returns a tensor 1×128×128; logits are expected as one tensor B K h w"),
        ("none", "returns a NoneType"),
    ],
)
def test_unknown_output_format_is_an_error(output: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_adapter(output)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"network": None}, "say which: network="),
        ({"network": "tests.helpers.third_party_networks.Pyramid.__init__"}, "has no tests"),
        ({"network": "tests.helpers.third_party_networks.NoNetwork"}, "is not a class of networks"),
        (
            {"network": "tests.helpers.third_party_networks.Missing"},
            "'tests' has no tests.helpers.third_party_networks.Missing",
        ),
        ({"network": "torch.load"}, "torch.load is not a class of networks"),
        ({"network": "transformers.utils.hub.os.getcwd"}, "is not a class of networks"),
        ({"network": "transformers.utils.logging.set_verbosity_error"}, "is not a class of networks"),
        ({"network": "tests.helpers.third_party_networks.F.relu"}, "is not a class of networks"),
        ({"network": "tests.helpers.third_party_networks.__main__.Net"}, "is no name of a network"),
        ({"arguments": {"trust_remote_code": True}}, "trust_remote_code would run code"),
        ({"network": "os.system"}, "os.system is not of .*PyTorch or a plugin"),
        ({"network": "builtins.eval"}, "is not of "),
        ({"network": "elsewhere.Net"}, r"if 'elsewhere' is a package that you trust, add plugins=\[elsewhere\]"),
        ({"network": "mmseg.Net"}, "'mmseg' is not installed"),
        (
            {"arguments": {"depth": 5}},
            r"tests.helpers.third_party_networks.ThirdPartyNetwork cannot be built with \{'depth': 5\}: .*depth",
        ),
        (
            {"features": {"encoder": "backbon"}},
            "no module 'backbon' for the feature 'encoder'; it has backbone, tokens, unused, head",
        ),
        ({"features": {"encoder": "tokens"}}, "'tokens' gives a tensor 1×16×1024, not a map"),
        ({"features": {"encoder": "unused"}}, "'unused' took no part"),
        (
            {"features": {"encoder": "pyramid"}},
            r"'pyramid' gives several maps \(a tensor 1×3×128×128, a tensor 1×16×32×32\)",
        ),
        (
            {"arguments": {"divisor": 224}},
            "does not take an image of 128×128: Wrong input shape: 224 must divide it; build it for any size",
        ),
        ({"std": None}, "mean and std belong together"),
    ],
)
def test_invalid_settings_are_errors(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_adapter(**overrides)


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(UserError, match=r"'timm' is not installed.*pip install 'segkd\[timm\]'"):
        build_adapter(network="timm.create_model")


def test_normalization_is_its_own_or_the_dataset_s() -> None:
    assert build_adapter().normalization.to_dict()["mean"] == pytest.approx(list(IMAGENET_MEAN))
    assert build_adapter(mean=None, std=None).normalization is DATASET_NORMALIZATION
    bgr = build_adapter(bgr=True)
    probe = make_images()
    torch.testing.assert_close(bgr.normalization(probe), build_adapter().normalization(probe).flip(1))


def test_num_classes_is_passed_unless_arguments_set_it() -> None:
    assert build_adapter(arguments={}, classes_argument="outputs").num_classes == 11
    assert build_adapter(arguments={"outputs": 19}, classes_argument="outputs").num_classes == 19


def test_checkpoint_of_the_wrapped_network_loads(tmp_path: Path) -> None:
    torch.manual_seed(5)
    third_party_state = ThirdPartyNetwork().state_dict()
    torch.save(
        {"state_dict": {f"module.{key}": tensor for key, tensor in third_party_state.items()}},
        tmp_path / "third_party.pth",
    )
    arguments = {
        "network": "tests.helpers.third_party_networks.ThirdPartyNetwork",
        "arguments": {"outputs": 11},
        "features": FEATURES,
    }
    network, _ = load_network(Adapter, arguments, tmp_path / "third_party.pth", 11, DATASET_NORMALIZATION)
    assert isinstance(network, Adapter)
    assert all(torch.equal(third_party_state[key], tensor) for key, tensor in network.network.state_dict().items())

    save_student(network, tmp_path, {})
    loaded = load_student(tmp_path)
    assert loaded.features == network.features
    probe = make_images()
    with torch.no_grad():
        assert torch.equal(loaded(probe).logits, network.eval()(probe).logits)

    torch.save({**third_party_state, "unknown": torch.zeros(1)}, tmp_path / "wrong.pth")
    with pytest.raises(UserError, match=r"1 of 6 keys are not this network's \(network.unknown\)"):
        load_network(Adapter, arguments, tmp_path / "wrong.pth", 11, DATASET_NORMALIZATION)


@pytest.mark.parametrize(("divisor", "size"), [(1, (75, 91)), (8, (80, 96)), (16, (80, 96)), (32, (96, 96))])
@torch.no_grad()
def test_images_are_padded_to_the_required_divisor(divisor: int, size: tuple[int, int]) -> None:
    arguments = {"outputs": 11, "output": "quarter size", "divisor": divisor}
    network, probe = build_adapter(arguments=arguments).eval(), make_images(75, 91)
    outputs = network(probe)
    padded = F.pad(network.normalization(probe), (0, size[1] - 91, 0, size[0] - 75))
    assert torch.equal(outputs.logits, network.network(padded)[..., :19, :23])  # 75 and 91 over 4, rounded up
    assert outputs.features["encoder"].shape == (2, 16, 19, 23)

    network.divisor = 1
    if divisor > 1:
        with pytest.raises(RuntimeError, match="Wrong input shape"):
            network(probe)


def test_copy_captures_its_own_features() -> None:
    network = build_adapter().eval()
    clone = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in clone.parameters():
            parameter.zero_()
        assert not clone(make_images()).features["encoder"].any()
        assert network(make_images()).features["encoder"].any()
        assert not network.network.backbone._forward_hooks


def test_every_weight_gets_a_gradient() -> None:
    network = build_adapter("quarter size")
    outputs = network.train()(make_images())
    (outputs.logits.square().mean() + outputs.features["encoder"].square().mean()).backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())
