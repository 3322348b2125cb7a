"""`dry_run=true`: what a run would be and cost, and nothing is left of it; the memory by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from segkd.distillation.distiller import Distiller
from segkd.models.profiling import count_activation_bytes, count_macs, count_saved_tensor_bytes
from tests.helpers.commands import Command
from tests.helpers.training import TINY_TRAINING, list_distillation_overrides

PIXELS = 6 * 8
IMAGE = (3, 6, 8)
LABELS = 128 * 128 * (4 * 11 + 8)
"""Cross-entropy keeps the log-probabilities of eleven classes and the labels, of each pixel of the crop."""


def chain() -> nn.Sequential:
    """Its second convolution keeps what the ReLU keeps, and the third layer keeps a view of its own input."""
    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 5, 1), nn.Flatten(2), nn.Tanh())


def test_activations_by_hand() -> None:
    """The image (3), the ReLU's values (2), kept twice and counted once, and the tanh's (5); four bytes each."""
    network = chain()
    assert count_activation_bytes(network, IMAGE) == 4 * PIXELS * (3 + 2 + 5)
    network[0].requires_grad_(False)
    assert count_activation_bytes(network, IMAGE) == 4 * PIXELS * (2 + 5)  # no gradient goes to the image
    assert count_activation_bytes(network.requires_grad_(False), IMAGE) == 0


def test_counting_leaves_the_network_and_the_switch_of_gradients_alone() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(2)).eval()
    with torch.no_grad():
        assert count_activation_bytes(network, IMAGE) == 4 * (3 * PIXELS + 2)  # the mean over places keeps none
        assert not torch.is_grad_enabled()
    assert count_macs(network, IMAGE) == 3 * 2 * PIXELS
    assert not network.training
    assert network[2].num_batches_tracked == 0
    assert network[0].weight.device.type == "cpu"


@pytest.fixture
def _no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a dry run must not train")

    monkeypatch.setattr(Distiller, "training_step", refuse)


@pytest.mark.usefixtures("_no_training")
def test_it_prints_and_leaves_nothing(
    command: Command, teacher_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    typed = (*list_distillation_overrides(teacher_file), "wandb.mode=offline", "output_dir=runs/inner")
    code, out, err = command("train", *typed, "dry_run=true")
    assert code == 0, err
    assert not [*tmp_path.iterdir()]
    rows = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in out.splitlines() if line.startswith("│")]
    assert ["student", "112,585", "logits", "11×16×16"] in rows
    assert ["pairwise", "10", "encoder", "none"] in rows
    assert "teacher: mIoU" not in out + err  # check_teacher=off leaves the teacher's trial out
    costs = {row[0]: row[1:] for row in rows if len(row) == 5}
    assert costs.keys() == {"student", "teacher", "discriminator", "losses"}
    assert int(costs.pop("losses")[-1].replace(",", "")) > LABELS
    for parameters, macs, kept, _ in costs.values():
        count = int(parameters.replace(",", ""))
        assert int(kept.replace(",", "")) == 4 * count
        assert int(macs.replace(",", "")) > count
    assert costs["teacher"][-1] == "0"
    assert int(costs["student"][-1].replace(",", "")) > 4 * 3 * 128 * 128


def test_what_labels_alone_keep(command: Command) -> None:
    code, out, err = command("train", *TINY_TRAINING, "check_teacher=off", "dry_run=true")
    assert code == 0, err
    (row,) = (line for line in out.splitlines() if line.startswith("│ losses"))
    parameters, macs, size, kept = (cell.strip().replace(",", "") for cell in row.strip("│").split("│")[1:])
    assert (parameters, macs, size) == ("0", "", "0")
    assert LABELS <= int(kept) < LABELS + 100  # and some counts


def test_storages_are_counted_once_and_some_not_at_all() -> None:
    first, second = (torch.ones(5, requires_grad=True) for _ in range(2))
    assert count_saved_tensor_bytes(lambda: first * second + first.view(5, 1).T * second) == 4 * (5 + 5)
    assert count_saved_tensor_bytes(lambda: first * second, besides=[first.detach()]) == 4 * 5
    with torch.no_grad():
        assert count_saved_tensor_bytes(lambda: first * second) == 4 * (5 + 5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="it is about a machine without a GPU")
def test_a_run_on_gpus_is_described_without_them(command: Command, tmp_path: Path) -> None:
    typed = [a for a in TINY_TRAINING if a != "trainer=cpu"]
    described = command("train", *typed, "trainer=ddp", "dry_run=true")
    assert described.code == 0, described.err
    run = command("train", *typed, "trainer=gpu", f"output_dir={tmp_path / 'run'}")
    assert (run.code, "sees no CUDA device; use trainer=cpu" in run.err) == (2, True)


@pytest.mark.usefixtures("_no_training")
def test_in_a_real_run_training_would_have_been_noticed(command: Command, tmp_path: Path) -> None:
    result = command("train", *TINY_TRAINING, f"output_dir={tmp_path / 'run'}")
    assert (result.code, "a dry run must not train" in result.err) == (1, True)


def test_a_sweep_is_refused(command: Command, tmp_path: Path) -> None:
    result = command("train", "-m", *TINY_TRAINING, "dry_run=true", "seed=0,1", f"output_dir={tmp_path / 'sweep'}")
    assert result.code == 2
    assert "dry_run=true makes none; look at one job of it at a time" in result.err
