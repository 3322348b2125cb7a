"""Networks in files of other trainings: under prefixes, in wrappers, beside other weights."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from segkd.errors import UserError
from segkd.models.adapter import Adapter
from segkd.models.base import Normalization
from segkd.models.checkpoint_io import state_hash
from segkd.models.espnet import ESPNet, ESPNetC
from segkd.models.pretrained import load_network
from tests.helpers.reference_state_dicts import make_espnet_state

pytestmark = pytest.mark.usefixtures("third_party_plugin")

NORMALIZATION = Normalization((110, 100, 90), (55, 50, 45))
State = dict[str, Tensor]


def build_network() -> ESPNetC:
    """Build a network whose weights float16 and bfloat16 hold exactly."""
    torch.manual_seed(0)
    network = ESPNetC(3, NORMALIZATION, p=1, q=1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_((64 * parameter).round() / 64)
    return network


def load(path: Path) -> ESPNetC:
    network, _ = load_network(ESPNetC, {"p": 1, "q": 1}, path, 3, NORMALIZATION)
    assert isinstance(network, ESPNetC)
    return network


def add_prefix(prefix: str, state: State) -> State:
    return {prefix + key: tensor for key, tensor in state.items()}


def narrow(state: State, dtype: torch.dtype) -> State:
    return {key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in state.items()}


FILES: dict[str, tuple[Callable[[State], Any], str]] = {
    "bare": (lambda s: s, ""),
    "DataParallel": (lambda s: add_prefix("module.", s), ""),
    "compiled": (lambda s: add_prefix("_orig_mod.", s), ""),
    "compiled in DataParallel": (lambda s: add_prefix("module._orig_mod.", s), ""),
    "Lightning": (lambda s: {"state_dict": add_prefix("model.", s), "epoch": 3, "hyper_parameters": {"lr": 0.1}}, ""),
    "Lightning, compiled": (lambda s: {"state_dict": add_prefix("net._orig_mod.", s), "epoch": 3}, ""),
    "a name of one's own": (lambda s: add_prefix("my_net.", s), ""),
    "criterion": (
        lambda s: {"state_dict": {**add_prefix("model.", s), "criterion.weight": torch.ones(2)}},
        "the weights under 'model.' are taken; 'criterion.weight' is left out",
    ),
    "optimizer": (lambda s: {"state_dict": add_prefix("module.", s), "optimizer": {"state": {}}, "arch": "x"}, ""),
    "net": (lambda s: {"net": s, "acc": 0.3}, ""),
    "nested": (lambda s: {"checkpoint": {"model": s}, "epoch": 1}, ""),
    "ema": (lambda s: {"model": s, "model_ema": s}, "under 'model' are taken; 'model_ema' is left out"),
    "student and teacher": (
        lambda s: {"state_dict": {**add_prefix("student.", s), **add_prefix("teacher.", s)}},
        "under 'student.' are taken; ",
    ),
    "float16": (lambda s: narrow(s, torch.float16), ""),
    "profiled": (
        lambda s: {**s, "total_ops": torch.zeros(1), "encoder.total_params": torch.zeros(1)},
        "'total_ops' and 1 more are left out, which a profiler added",
    ),
    "without counters": (lambda s: {key: tensor for key, tensor in s.items() if "num_batches" not in key}, ""),
}


@pytest.mark.parametrize("name", FILES)
def test_one_network_is_found_and_what_is_left_out_is_said(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = build_network()
    wrap, message = FILES[name]
    torch.save(wrap(network.state_dict()), tmp_path / "a.pth")
    with caplog.at_level(logging.INFO, "segkd"):
        assert state_hash(load(tmp_path / "a.pth")) == state_hash(network)
    assert message in caplog.text
    assert bool(message) == bool(caplog.records), caplog.text


def test_bfloat16_loads_as_float32(tmp_path: Path) -> None:
    network = build_network()
    save_file(narrow(network.state_dict(), torch.bfloat16), tmp_path / "a.safetensors")
    assert state_hash(load(tmp_path / "a.safetensors")) == state_hash(network)


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda s: {**add_prefix("a.", s), **add_prefix("b.", s)}, r"several networks that fit, under 'a\.' and 'b\.'"),
        (lambda s: {"first": s, "second": s}, r"several state dicts \(first, second\); save one of them"),
        (lambda s: {**add_prefix("model.", s), "model.more": torch.ones(1)}, r"1 of \d+ keys are not .* \(more\)"),
    ],
    ids=["prefixes", "state dicts", "more weights"],
)
def test_what_may_be_another_network_is_refused(wrap: Callable[[State], Any], message: str, tmp_path: Path) -> None:
    torch.save(wrap(build_network().state_dict()), tmp_path / "a.pth")
    with pytest.raises(UserError, match=message):
        load(tmp_path / "a.pth")


def test_files_of_authors_are_found_below_a_prefix(tmp_path: Path) -> None:
    state = make_espnet_state(11, 1, 19, True)
    loaded = []
    for prefix in ("", "module._orig_mod.", "model."):
        torch.save({"state_dict": {**add_prefix(prefix, state)}}, tmp_path / "a.pth")
        network, _ = load_network(ESPNet, {}, tmp_path / "a.pth", 11, NORMALIZATION)
        loaded.append(state_hash(network))
    assert len(set(loaded)) == 1
    with pytest.raises(UserError, match="holds no ESPNetC"):  # its encoder alone would be one
        load_network(ESPNetC, {}, tmp_path / "a.pth", 11, NORMALIZATION)


def test_adapter_is_found_below_a_prefix(tmp_path: Path) -> None:
    arguments = {"network": "tests.helpers.third_party_networks.ThirdPartyNetwork", "features": {"encoder": "backbone"}}
    network = Adapter(11, NORMALIZATION, **arguments)
    for prefix in ("", "model.", "module.network."):
        state = add_prefix(prefix, network.network.state_dict())
        torch.save(
            {"state_dict": {**state, "criterion.weight": torch.ones(2)} if prefix else state}, tmp_path / "a.pth"
        )
        loaded, _ = load_network(Adapter, arguments, tmp_path / "a.pth", 11, NORMALIZATION)
        assert state_hash(loaded) == state_hash(network)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("key", ["classifier.weight", "encoder.stem.norm_act.norm.running_var"])
def test_weights_that_are_not_finite_are_refused(value: float, key: str, tmp_path: Path) -> None:
    state = build_network().state_dict()
    state[key].view(-1)[:2] = value
    torch.save(state, tmp_path / "a.pth")
    total = sum(tensor.numel() for tensor in state.values())
    with pytest.raises(
        UserError, match=rf"holds 2 weights that are not finite, of {total:,}; it was saved after a train"
    ):
        load(tmp_path / "a.pth")


def test_unrelated_network_is_refused(tmp_path: Path) -> None:
    torch.save(add_prefix("model.", nn.Linear(2, 3).state_dict()), tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"holds no ESPNetC: .* keys are missing"):
        load(tmp_path / "a.pth")
