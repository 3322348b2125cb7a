"""Costs of networks: hand-computed, published, and in docs/reference/networks.md; and `python -m segkd.benchmark`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from segkd.benchmark.networks import (
    PUBLISHED,
    NetworkCosts,
    build_network_by_name,
    format_rows,
    list_networks,
    measure_networks,
)
from segkd.models.base import Normalization, SegmentationModel
from segkd.models.profiling import count_macs, measure_latencies, measure_peak_bytes
from segkd.types import FeatureInfo
from segkd.utils.tables import to_markdown
from tests.helpers.commands import Command

DOCUMENT = Path(__file__).parents[2] / "docs/reference/networks.md"
CPU = torch.device("cpu")
SIZE = (512, 1024)


class Tiny(SegmentationModel):
    """One strided convolution and one transposed convolution."""

    def __init__(self) -> None:
        super().__init__(4, Normalization((0, 0, 0), (1, 1, 1)), {"scores": FeatureInfo(4, 1)})
        self.down = nn.Conv2d(3, 5, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(5, 4, 2, stride=2)

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.up(self.down(images))
        return logits, {"scores": logits}


def test_count_macs_of_a_known_network_leaves_it_unchanged() -> None:
    network = Tiny().train()
    down, up = 32 * 48 * 5 * 3 * 9, 32 * 48 * 5 * 4 * 4
    assert count_macs(network, (3, 64, 96)) == down + up
    assert network.training
    assert network.down.weight.device.type == "cpu"


def test_peak_bytes_of_known_networks() -> None:
    """First the difference and the normalized image live; at the end the normalized image, the half-size map and the logits."""
    image, down, up = (4 * 64 * 96 * 3, 4 * 32 * 48 * 5, 4 * 64 * 96 * 4)
    assert measure_peak_bytes(Tiny(), (3, 64, 96)) == max(2 * image, image + down + up)
    assert measure_peak_bytes(nn.Sequential(nn.ReLU(), nn.ReLU(), nn.ReLU()), (3, 8, 8)) == 2 * 4 * 3 * 64
    assert measure_peak_bytes(nn.Flatten(), (3, 8, 8)) == 0, "a view allocates nothing"


def test_latencies_alternate_tasks_and_drop_the_warmup() -> None:
    calls: list[str] = []
    measured = measure_latencies({name: partial(calls.append, name) for name in "abc"}, repeats=3, warmup=2, device=CPU)
    assert calls == 5 * ["a", "b", "c"]
    assert {name: len(seconds) for name, seconds in measured.items()} == {"a": 3, "b": 3, "c": 3}


@pytest.fixture(scope="module")
def costs() -> Iterator[dict[str, NetworkCosts]]:
    with torch.device("meta"):
        networks = {name: build_network_by_name(name, 19) for name in list_networks()}
    return {entry.name: entry for entry in measure_networks(networks, SIZE, repeats=0, warmup=0, device=CPU)}


def test_documented_table_is_the_measured_one(costs: dict[str, NetworkCosts]) -> None:
    document, table = DOCUMENT.read_text(), to_markdown(format_rows([*costs.values()]))
    missing = [row for row in table.splitlines() if row not in document]
    assert not missing, f"docs/reference/networks.md lacks {missing}; update its table with the command above it"
    assert table in document


def count_transposed_macs(name: str) -> int:
    """Count the multiply-accumulates of transposed convolutions: each weight times each input pixel."""
    with torch.device("meta"):
        network = build_network_by_name(name, 19).eval()
        counts: list[int] = []
        for module in network.modules():
            if isinstance(module, nn.ConvTranspose2d):
                module.register_forward_hook(
                    lambda module, inputs, _: counts.append(module.weight.numel() * inputs[0].shape[-2:].numel())
                )
        network(torch.empty(1, 3, *SIZE))
    return sum(counts)


@pytest.mark.parametrize("name", PUBLISHED)
def test_costs_are_the_published_ones(name: str, costs: dict[str, NetworkCosts]) -> None:
    """Up to one unit of the last digit, which Liu et al. truncate or round; they exclude transposed convolutions."""
    parameters, macs = PUBLISHED[name]
    unit = 10.0 ** -len(parameters.split(".")[1])
    assert costs[name].parameters / 1e6 == pytest.approx(float(parameters), abs=unit)
    if macs:
        unexplained = {"erfnet": 0.05, "mobilenetv2plus": 0.14}  # docs/reference/networks.md
        unit = 10.0 ** -len(macs.split(".")[1])
        own = (costs[name].macs - count_transposed_macs(name)) / 1e9
        assert own == pytest.approx(float(macs), abs=unexplained.get(name, unit))


def test_table_of_known_costs() -> None:
    five = NetworkCosts("espnet", 363_462, 4_670_283_776, [0.005, 0.001, 0.003, 0.004, 0.002])
    one = NetworkCosts("mine", 1_000, 2_000_000, [0.25])
    assert to_markdown(format_rows([five, one])).splitlines() == [
        "| network | parameters | published, M | G MACs | published, G | ms | IQR |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| espnet | 363,462 | 0.3635 | 4.670 | 4.422 | 3.0 | 2.0 – 4.0 |",
        "| mine | 1,000 |  | 0.002 |  | 250.0 | 250.0 – 250.0 |",
    ]


def test_command_prints_and_writes_the_costs(command: Command, tmp_path: Path) -> None:
    overrides = ("networks=[espnet_c,enet]", "size=[64,96]", "num_classes=11", "repeats=2", "warmup=0")
    code, out, err = command("benchmark", *overrides, f"output_dir={tmp_path / 'new'}")
    assert code == 0, err
    assert "one image of 64×96, 11 classes" in out
    assert out.index("espnet_c") < out.index("enet ")
    record = json.loads((tmp_path / "new/benchmark.json").read_text())
    assert (record["size"], record["num_classes"], record["repeats"], record["threads"]) == ([64, 96], 11, 2, 1)
    espnet_c, enet = record["networks"]
    assert (espnet_c["network"], espnet_c["parameters"]) == ("espnet_c", 347_145)
    first, third = enet["quartiles_ms"]
    assert 0 < first <= enet["median_ms"] <= third


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("networks=[espnet,enett]", "no model called 'enett'; did you mean 'enet'?"),
        ("networks=[none]", "no model called 'none'"),
        ("networks=[]", "networks=[]: "),
        ("mode=training", "there is no mode called 'training'; there are inference, networks, step"),
        ("size=[31,64]", "images of 32×32 pixels and more, not 31×64"),
        ("num_classes=4", "ESPNet's decoder needs 5 classes and more, not 4"),
        ("output_dir=a_file/inside", "cannot make the folder a_file/inside"),
        ("repeat=3", "no key 'repeat'; did you mean 'repeats'?"),
    ],
)
def test_mistake_is_reported_in_one_sentence(
    command: Command, override: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a_file").touch()
    code, out, err = command("benchmark", "networks=[espnet]", "repeats=0", override)
    assert code == 2
    assert message in err
    assert (out, len(err.splitlines())) == ("", 1)
