"""PSPNet against the published code of Liu et al. (2019)."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segkd.errors import UserError
from segkd.models.base import Normalization
from segkd.models.pretrained import load_network
from segkd.models.pspnet import PSPNet

IDENTITY = Normalization((0, 0, 0), (1, 1, 1))
KEYS = {
    "backbone.": "",
    "pyramid.": "pspmodule.",
    "classifier.": "head.",
    "auxiliary.4.": "dsn.3.",
    "auxiliary.": "dsn.",
}


def make_authors_state(network: PSPNet) -> dict[str, Tensor]:
    """Return the network's weights under the keys of the published code."""
    prefixes = sorted(KEYS, key=len, reverse=True)
    state = {}
    for key, value in network.state_dict().items():
        prefix = next(prefix for prefix in prefixes if key.startswith(prefix))
        state[KEYS[prefix] + key.removeprefix(prefix)] = value.clone()
    return state


def build_small(auxiliary: bool = True) -> PSPNet:
    return PSPNet(19, IDENTITY, width=8, deep_stem=True, pyramid=8, slope=0.01, auxiliary=auxiliary)


@pytest.mark.parametrize("auxiliary", [True, False])
def test_checkpoint_of_the_published_code_is_recognized(auxiliary: bool, tmp_path: Path) -> None:
    network = build_small(auxiliary)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
    torch.save(make_authors_state(network), tmp_path / "student.pth")
    loaded, _ = load_network(PSPNet, {"depth": 101, "dropout": 0.2}, tmp_path / "student.pth", 19, IDENTITY)
    assert loaded.arguments == {**network.arguments, "dropout": 0.2}
    assert loaded.normalization.to_dict() == {
        "mean": pytest.approx([122.67891434, 116.66876762, 104.00698793]), "std": [1, 1, 1], "bgr": True,
    }  # fmt: skip
    state = network.state_dict()
    for key, value in loaded.state_dict().items():
        is_scale = key.endswith("weight") and value.ndim == 1
        # In-place ABN, with which the published weights were trained, multiplies by |γ| + ε.
        assert torch.equal(value, state[key].abs() + 1e-5 if is_scale else state[key]), key


def test_checkpoint_with_a_missing_tensor_is_refused(tmp_path: Path) -> None:
    complete = make_authors_state(build_small())
    for missing in (
        "head.weight",
        "layer1.0.conv1.weight",
        "layer2.1.bn1.bias",
        "dsn.0.weight",
        "conv3.weight",
        "bn1.bias",
    ):
        torch.save({key: value for key, value in complete.items() if key != missing}, tmp_path / "student.pth")
        with pytest.raises(UserError, match="holds no PSPNet"):
            load_network(PSPNet, {}, tmp_path / "student.pth", 19, IDENTITY)


@pytest.mark.parametrize(
    ("image", "maps"), [((512, 512), (65, 65)), ((256, 256), (33, 33)), ((360, 480), (46, 61)), ((65, 73), (9, 10))]
)
def test_map_sizes_are_those_of_the_published_code(image: tuple[int, int], maps: tuple[int, int]) -> None:
    with torch.device("meta"):
        outputs = PSPNet(19, Normalization((0, 0, 0), (1, 1, 1)))(torch.empty(2, 3, *image))
    assert outputs.logits.shape == (2, 19, *maps)


def test_training_on_one_image_is_refused() -> None:
    network, image = PSPNet(5, IDENTITY, width=8, pyramid=8), torch.zeros(1, 3, 64, 64)
    with pytest.raises(UserError, match=r"needs 2 images at once to train; raise data\.batch_size, or lower"):
        network(image)
    assert network.eval()(image).logits.shape == (1, 5, 9, 9)


def generate_golden_weights(layout: list[tuple[str, list[int]]]) -> dict[str, Tensor]:
    """Draw the weights of the golden file by the rule that it documents."""
    random = np.random.RandomState(7)
    state = {}
    for key, shape in layout:
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(0)
            continue
        n = random.standard_normal(shape)
        if len(shape) == 4:
            n *= math.sqrt(2 / math.prod(shape[1:]))
        elif key.endswith("running_var"):
            n = 1 + 0.1 * np.abs(n)
        elif key.endswith(("running_mean", "bias")):
            n = 0.1 * n
        else:
            n = 1 + 0.1 * n
        state[key] = torch.from_numpy(n.astype(np.float32)).double()
    return state


@pytest.mark.published
def test_maps_match_the_published_code(published_files: Path) -> None:
    """The reference ran with plain BatchNorm: with γ in place of |γ| + ε all maps are equal up to rounding in float64.

    With |γ| + ε, as in its CUDA kernel and here, they differ by the effect of ε = 1e-5 in 24 layers.
    """
    golden = np.load(published_files / "golden/skd_pspnet_r18.npz")
    layout = json.loads((published_files / "golden/skd_golden.json").read_text())["skd_pspnet_r18.npz"]["state_dict"]
    foreign = PSPNet.match_checkpoint(generate_golden_weights(layout))
    assert foreign is not None
    network = PSPNet(**foreign.arguments, normalization=Normalization((0, 0, 0), (1, 1, 1))).double().eval()
    expected = {name: torch.from_numpy(golden[name]) for name in ("logits", "dsn", "feat_psp", "x4_ch0_16")}

    def compute_differences() -> dict[str, float]:
        with torch.no_grad():
            logits, features, _ = network(torch.from_numpy(golden["x"]).double())
        maps = {
            "logits": logits,
            "dsn": features["auxiliary"],
            "feat_psp": features["encoder"],
            "x4_ch0_16": features["backbone"][:, :16],
        }
        return {name: (maps[name] - expected[name]).abs().max().item() for name in maps}

    state = foreign.state
    network.load_state_dict(state)
    assert max(compute_differences().values()) < 1e-5 * 24 * expected["logits"].abs().max().item()
    scales = [key for key in state if key.endswith("weight") and key.removesuffix("weight") + "running_var" in state]
    network.load_state_dict({**state, **{key: state[key] - 1e-5 for key in scales}})
    assert max(compute_differences().values()) < 1e-9
    network.pyramid.slope = 1.0
    assert compute_differences()["logits"] > 1
