"""Devices that torchrun and srun have started, and the length of a resumed run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from segkd.config.paths import CONFIGS
from segkd.config.schema import load_settings
from segkd.config.training import TrainSettings
from segkd.errors import UserError
from segkd.train.check_settings import check_devices, check_length, resolve_devices, uses_several_processes


@pytest.fixture
def settings() -> TrainSettings:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return load_settings(compose("train", ["output_dir=run", "trainer=cpu"]), TrainSettings)


def set_trainer(settings: TrainSettings, **values: object) -> TrainSettings:
    return settings.model_copy(update={"trainer": settings.trainer.model_copy(update=values)})


def start_with_torchrun(monkeypatch: pytest.MonkeyPatch, devices: int, nodes: int = 1, processes: int = 0) -> None:
    values = {"LOCAL_WORLD_SIZE": devices, "GROUP_WORLD_SIZE": nodes, "WORLD_SIZE": processes or devices * nodes}
    for name, value in {"TORCHELASTIC_RUN_ID": "none", **values}.items():
        monkeypatch.setenv(name, str(value))


def test_a_process_of_its_own_has_one_device(settings: TrainSettings) -> None:
    assert settings.trainer.devices is None
    resolved = resolve_devices(settings).trainer
    assert (resolved.devices, resolved.num_nodes) == (1, 1)
    assert resolve_devices(set_trainer(settings, devices="auto")).trainer.devices == "auto"
    assert not uses_several_processes(settings.trainer)


@pytest.mark.parametrize("given", [{}, {"devices": "auto"}, {"devices": 4, "num_nodes": 2}])
def test_devices_are_those_of_the_launcher(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch, given: dict[str, object]
) -> None:
    start_with_torchrun(monkeypatch, devices=4, nodes=2)
    resolved = resolve_devices(set_trainer(settings, **given)).trainer
    assert (resolved.devices, resolved.num_nodes) == (4, 2)
    assert uses_several_processes(resolved)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"devices": 1}, "trainer.devices=1 is given; leave trainer.devices out, or give 2"),
        ({"devices": 4}, "trainer.devices=4 is given; leave trainer.devices out, or give 2"),
        ({"num_nodes": 2}, "trainer.num_nodes=2 is given; leave trainer.num_nodes out, or give 1"),
    ],
)
def test_other_devices_than_the_launcher_started(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch, given: dict[str, object], sentence: str
) -> None:
    start_with_torchrun(monkeypatch, devices=2)
    with pytest.raises(UserError) as caught:
        resolve_devices(set_trainer(settings, **given))
    assert str(caught.value) == f"torchrun started 2 processes per machine on 1 machine, and {sentence}"


def test_each_process_sees_one_gpu(settings: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    start_with_torchrun(monkeypatch, devices=2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    trainer = resolve_devices(set_trainer(settings, accelerator="gpu")).trainer
    with pytest.raises(UserError, match=r"started 2 processes per machine, but PyTorch sees 1 GPU; .*--gpus-per-node"):
        check_devices(trainer)


def test_machines_with_unequal_shares(settings: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    start_with_torchrun(monkeypatch, devices=2, nodes=2, processes=3)
    with pytest.raises(UserError, match="torchrun started 3 processes on 2 machines; start as many on each"):
        resolve_devices(settings)


def test_a_run_cannot_be_resumed_to_less_than_it_has() -> None:
    check_length(Path("last.ckpt"), 6, 6, 2)
    with pytest.raises(
        UserError, match=r"^last\.ckpt has trained 7 steps, and .*max_epochs=2 asks for 6; give .*=3 or more"
    ):
        check_length(Path("last.ckpt"), 7, 6, 2)
