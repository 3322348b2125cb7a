"""Anybody's network behind our contract."""

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
from tests.helpers.third_party_networks import Foreign

OURS = Normalization((10.0, 20.0, 30.0), (40.0, 50.0, 60.0))
TAPS = {"encoder": "backbone"}


def adapted(answer: str = "tensor", outputs: int = 11, **more: Any) -> Adapter:
    torch.manual_seed(0)
    arguments = {"answer": answer, "outputs": outputs}
    return Adapter(
        11,
        OURS,
        **{"network": "tests.helpers.third_party_networks.Foreign", "arguments": arguments, "features": TAPS, **more},
    )


def images(height: int = 75, width: int = 91) -> Tensor:
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)


@pytest.mark.parametrize("answer", ["tensor", "half size", "dict", "tuple", "list"])
@torch.no_grad()
def test_every_usual_answer_is_understood(answer: str) -> None:
    network = adapted(answer).eval()
    probe = images()
    outputs = network(probe)
    normal = (probe.float() - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
    wrapped = network.network(normal)
    bare = wrapped["out"] if answer == "dict" else wrapped[0] if answer in ("tuple", "list") else wrapped
    torch.testing.assert_close(outputs.logits, bare)
    assert outputs.logits_at((75, 91)).shape == (2, 11, 75, 91)
    assert network.features == {
        "kd_logits": FeatureInfo(11, 4 if answer == "half size" else 1),
        "encoder": FeatureInfo(16, 4),
    }
    torch.testing.assert_close(outputs.features["encoder"], network.network.backbone(normal))  # type: ignore[operator]
    assert outputs.align_corners is False


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("strange dict", "answers with prediction; class scores are logits or out"),
        ("labels", "answers with a tensor 1×128×128; class scores are one tensor B K h w"),
        ("nothing", "answers with a NoneType"),
    ],
)
def test_other_answers_are_named(answer: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        adapted(answer)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"network": None}, "say which: network="),
        ({"network": "tests.helpers.third_party_networks.build"}, "foreign.build is not a class of networks"),
        ({"network": "tests.helpers.third_party_networks.NoNetwork"}, "is not a class of networks"),
        ({"network": "tests.helpers.third_party_networks.Missing"}, "'foreign' has no foreign.Missing"),
        ({"network": "os.system"}, "os.system is not a class of networks"),
        ({"network": "builtins.eval"}, "is not a class of networks"),
        ({"network": "nowhere_to_be_found.Net"}, "'nowhere_to_be_found' is not installed"),
        (
            {"arguments": {"depth": 5}},
            r"tests.helpers.third_party_networks.Foreign cannot be built with \{'depth': 5\}: .*depth",
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
def test_what_cannot_be_wrapped_is_said(more: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        adapted(**more)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(UserError, match=r"'timm' is not installed.*pip install 'segkd\[timm\]'"):
        adapted(network="timm.create_model")


def test_its_own_normalisation_is_kept_or_the_data_sets_taken() -> None:
    assert adapted().normalization.to_dict()["mean"] == pytest.approx(list(IMAGENET_MEAN))
    assert adapted(mean=None, std=None).normalization is OURS
    bgr = adapted(bgr=True)
    probe = images()
    torch.testing.assert_close(bgr.normalization(probe), adapted().normalization(probe).flip(1))


def test_the_number_of_classes_is_handed_over_unless_it_is_given() -> None:
    assert adapted(arguments={}, classes_argument="outputs").num_classes == 11
    assert adapted(arguments={"outputs": 19}, classes_argument="outputs").num_classes == 19


def test_its_file_is_read_with_and_without_our_names(tmp_path: Path) -> None:
    torch.manual_seed(5)
    theirs = Foreign().state_dict()
    torch.save({"state_dict": {f"module.{key}": tensor for key, tensor in theirs.items()}}, tmp_path / "theirs.pth")
    given = {"network": "tests.helpers.third_party_networks.Foreign", "arguments": {"outputs": 11}, "features": TAPS}
    network, _ = load_network(Adapter, given, tmp_path / "theirs.pth", 11, OURS)
    assert isinstance(network, Adapter)
    assert all(torch.equal(theirs[key], tensor) for key, tensor in network.network.state_dict().items())

    save_student(network, tmp_path, {})
    again = load_student(tmp_path)
    assert again.features == network.features
    probe = images()
    with torch.no_grad():
        assert torch.equal(again(probe).logits, network.eval()(probe).logits)

    torch.save({**theirs, "stranger": torch.zeros(1)}, tmp_path / "wrong.pth")
    with pytest.raises(UserError, match=r"1 of 6 keys are not this network's \(network.stranger\)"):
        load_network(Adapter, given, tmp_path / "wrong.pth", 11, OURS)


@pytest.mark.parametrize(("divisor", "size"), [(1, (75, 91)), (8, (80, 96)), (16, (80, 96)), (32, (96, 96))])
@torch.no_grad()
def test_a_network_that_wants_divisible_sides_gets_them(divisor: int, size: tuple[int, int]) -> None:
    given = {"outputs": 11, "answer": "half size", "divisor": divisor}
    network, probe = adapted(arguments=given).eval(), images(75, 91)
    outputs = network(probe)
    filled = F.pad(network.normalization(probe), (0, size[1] - 91, 0, size[0] - 75))
    assert torch.equal(outputs.logits, network.network(filled)[..., :19, :23])  # 75 and 91 over 4, rounded up
    assert outputs.features["encoder"].shape == (2, 16, 19, 23)

    network.multiple = 1
    if divisor > 1:
        with pytest.raises(RuntimeError, match="Wrong input shape"):
            network(probe)


def test_a_copy_listens_to_itself() -> None:
    network = adapted().eval()
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
        assert not twin(images()).features["encoder"].any()
        assert network(images()).features["encoder"].any()
        assert not network.network.backbone._forward_hooks


def test_every_weight_learns_through_the_feature() -> None:
    network = adapted("half size")
    outputs = network.train()(images())
    (outputs.logits.square().mean() + outputs.features["encoder"].square().mean()).backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())
