"""Distiller.from_config: the keys of a training, from Python, beside any other use of Hydra."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from omegaconf import DictConfig

import segkd
from segkd.builders.datamodule import build_datamodule
from segkd.builders.distiller import build_distiller
from segkd.cli.compose import compose_training, create_datamodule
from segkd.config.training import TrainSettings
from segkd.distillation.distiller import Distiller
from segkd.errors import UserError
from segkd.models.espnet import ESPNetC

CLASSES = ["road", "car", "sky"]
TINY = ["model@student=espnet_c", "student.p=1", "student.q=1"]
STREETS = ["dataset=streets", "dataset.images=8", *TINY]


def get_weights(distiller: Distiller) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in distiller.state_dict().items()}


def have_same_weights(one: Distiller, other: Distiller) -> bool:
    weights = get_weights(one), get_weights(other)
    return weights[0].keys() == weights[1].keys() and all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def test_own_data_need_no_dataset() -> None:
    overrides = [*TINY, "trainer.gradient_clip=1", "trainer.ema=0.9", "schedule=cosine"]
    distiller = Distiller.from_config(overrides, classes=CLASSES, mean=(1, 2, 3), std=(4, 5, 6), crop_size=(64, 64))
    assert isinstance(distiller.student, ESPNetC)
    assert distiller.classes == distiller.student.classes == tuple(CLASSES)
    assert distiller.student.num_classes == 3
    assert distiller.student.normalization.to_dict()["mean"] == [1, 2, 3]
    assert (distiller.gradient_clip, distiller.schedule(1), distiller.total_steps) == (1, 0, 0)
    assert distiller.ema is not None


def test_a_dataset_gives_the_same_distiller_as_the_command(teacher_file: Path) -> None:
    teacher = ["model@teacher=espnet", f"teacher.checkpoint={teacher_file}", "loss=[cross_entropy,pixelwise,hint]"]
    overrides = [*STREETS, *teacher, "adversary=holistic", "data.crop_size=[128,128]", "data.batch_size=4"]
    settings = compose_training(overrides)
    assert isinstance(settings, TrainSettings)
    of_command = build_distiller(settings, build_datamodule(settings))
    assert have_same_weights(Distiller.from_config(overrides), of_command)
    assert not have_same_weights(Distiller.from_config([*overrides, "seed=1"]), of_command)
    assert create_datamodule(overrides).steps_per_epoch == 2


def test_random_state_stays() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    Distiller.from_config(TINY, classes=CLASSES)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_subclass_builds_itself() -> None:
    class Mine(Distiller):
        pass

    assert type(Mine.from_config(TINY, classes=CLASSES)) is Mine


def test_hydra_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Singleton, "_instances", dict(Singleton._instances))
    for kind in (GlobalHydra, HydraConfig):
        Singleton._instances.pop(kind, None)
    arguments = list(sys.argv)
    for _ in range(2):
        Distiller.from_config(TINY, classes=CLASSES)
        assert sys.argv == arguments
        assert not {GlobalHydra, HydraConfig} & Singleton._instances.keys()
    with pytest.raises(UserError):
        Distiller.from_config(["loss=[none_such]"], classes=CLASSES)
    assert sys.argv == arguments
    assert not {GlobalHydra, HydraConfig} & Singleton._instances.keys()


def test_it_works_inside_another_application_of_hydra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/mine.yaml").write_text("depth: 3\nhydra: {run: {dir: ., }, output_subdir: null}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mine.py", "depth=4"])
    monkeypatch.setattr(Singleton, "_instances", dict(Singleton._instances))
    GlobalHydra.instance().clear()
    seen: list[Any] = []

    @hydra.main(version_base="1.3", config_path=str(tmp_path / "conf"), config_name="mine")
    def main(cfg: DictConfig) -> None:
        seen.append(Distiller.from_config(TINY, classes=CLASSES).student)
        seen.extend((cfg.depth, HydraConfig.get().overrides.task, GlobalHydra.instance().is_initialized()))

    main()
    assert isinstance(seen[0], ESPNetC)
    assert seen[1:] == [4, ["depth=4"], True]


FAULTS = {
    "option": (["loss=[cross_entropi]"], "there is no loss called 'cross_entropi'; did you mean 'cross_entropy'?"),
    "key": (["student.pp=3"], "there is no key 'student.pp'; did you mean 'student.p'?"),
    "value": (["data.crop_size=8"], r"data\.crop_size=8: it takes"),
    "syntax": (["loss=[cross_entropy"], "cannot read"),
    "dashes": (["--config-dir", "mine"], "'--config-dir': overrides are KEY=VALUE"),
    "trainer": (
        ["trainer.max_epochs=3"],
        r"trainer\.max_epochs belongs to your own program, .* Trainer\(max_epochs=N\)",
    ),
    "folder": (["output_dir=x"], "output_dir belongs to your own program"),
    "dataset": (["dataset=camvid"], "dataset is of a dataset of segkd, and classes are given"),
    "batch": (["data.batch_size=2"], r"data\.batch_size is of a dataset of segkd"),
    "crop": (["data.crop_size=[16,16]"], "less than the 32 pixels"),
    "rule": (["loss.cross_entropy.class_weights=enet"], "class_weights=enet is computed from the labels of a dataset"),
    "teacher": (["loss=[cross_entropy,pixelwise]"], "loss 'pixelwise' needs a teacher"),
    "plugin": (["plugins=[none_such]"], r"plugins=\[none_such\]: Python finds no package"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(fault: str) -> None:
    overrides, sentence = FAULTS[fault]
    with pytest.raises(UserError, match=sentence):
        Distiller.from_config([*TINY, *overrides] if fault != "dashes" else overrides, classes=CLASSES)


def test_the_data_must_be_said() -> None:
    with pytest.raises(UserError, match="needs the classes of the data"):
        Distiller.from_config(TINY)


def test_statistics_must_be_three_numbers() -> None:
    with pytest.raises(UserError, match=r"RGB in 0\.\.255"):
        Distiller.from_config(TINY, classes=CLASSES, mean=(0.5,), std=(0.2,))


def test_parts_of_a_plugin_are_named_as_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "composed_plugin"
    (package / "configs/loss").mkdir(parents=True)
    (package / "__init__.py").write_text(
        "from segkd.losses.cross_entropy import CrossEntropy\n\nclass Mine(CrossEntropy):\n    pass\n"
    )
    (package / "configs/loss/mine.yaml").write_text("mine:\n  _target_: composed_plugin.Mine\n  weight: 0.5\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SEGKD_PLUGINS", "")
    overrides = [*TINY, "loss=[cross_entropy,mine]", "plugins=[composed_plugin]"]
    distiller = segkd.Distiller.from_config(overrides, classes=CLASSES)
    assert distiller.losses.get_weights() == {"cross_entropy": 1, "mine": 0.5}
    assert "mine" in segkd.list_losses()
    assert segkd.create_loss("mine", weight=2).weight == 2
    monkeypatch.setenv("SEGKD_PLUGINS", "")
    with pytest.raises(UserError, match="there is no loss called 'mine'"):
        segkd.create_loss("mine")
