"""The command: parts of a package of one's own, by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.helpers.commands import Command, Result

PARTS = """
import torch
from segkd.data.base import Sample, SegmentationDataset
from segkd.losses.base import FeatureLoss, Loss
from segkd.losses.distributed import global_mean
from segkd.losses.features import align_features
from pytorch_lightning import Callback
from pytorch_lightning.loggers import Logger


class Good(FeatureLoss):
    def forward(self, step):
        student, teacher, valid = align_features(step, self.feature, self.feature)
        distance = (student.abs().mean(1) - teacher.abs().mean(1)).abs()
        return global_mean((distance * valid).sum(), valid.sum())


class Sum(Good):
    def forward(self, step):
        return super().forward(step) * len(step.batch.images)


class Crashing(Good):
    def forward(self, step):
        return step.student.features["layer3"].mean()


class Broken(Loss):
    def __init__(self):
        raise TypeError("no such thing")

    def forward(self, step): ...


class NoLoss:
    def __init__(self, weight=1.0): ...


class SlowSGD(torch.optim.SGD):
    def step(self, closure=None): ...


class Rising:
    def __call__(self, progress):
        return 1 - 2 * progress


class Counter(Callback):
    def state_dict(self):
        return {"place": print}


class Rows(Logger):
    name, version = "rows", ""

    def __init__(self, save_dir):
        super().__init__()
        self.folder = save_dir

    def log_hyperparams(self, params): ...

    def log_metrics(self, metrics, step):
        open(f"{self.folder}/rows", "a").write(f"{metrics['missing']}")
"""
YAMLS = {
    **{
        f"loss/{name.lower()}": f"{name.lower()}: {{_target_: own_parts.{name}, weight: 1.0, feature: encoder}}"
        for name in ("Good", "Sum", "Crashing")
    },
    "loss/stride": "stride: {_target_: own_parts.Good, weight: 1.0, feature: stride4}",
    "loss/broken": "broken: {_target_: own_parts.Broken}",
    "loss/no_loss": "no_loss: {_target_: own_parts.NoLoss}",
    "optimizer/slow": "{_target_: own_parts.SlowSGD, lr: 0.1}",
    "schedule/rising": "{_target_: own_parts.Rising}",
    "callbacks/counter": "counter: {_target_: own_parts.Counter}",
    "logger/rows": "rows: {_target_: own_parts.Rows}",
    "loss/flat": "{_target_: own_parts.Good, weight: 1.0}",
    "callbacks/flat": "{_target_: own_parts.Counter}",
    "dataset/nested": "mine: {_target_: own_parts.Rows}",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _in_folder_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "own_parts"
    package.mkdir()
    (package / "__init__.py").write_text(PARTS)
    for name, text in YAMLS.items():
        path = package / "configs" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SEGKD_PLUGINS", "")
    sys.modules.pop("own_parts", None)


def check(command: Command, *arguments: str) -> Result:
    return command("check_part", "plugins=[own_parts]", *arguments)


def test_loss_without_fault(command: Command) -> None:
    result = check(command, "loss=good")
    first, *lines, last = result.out.splitlines()
    assert result.code == 0
    assert first == "loss good (own_parts.Good)"
    assert lines[0].split() == ["returns_a_scalar", "keeps"]
    assert last == "loss good: 22 lines of the contract, no faults"


def test_losses_with_faults(command: Command) -> None:
    result = check(command, "loss=[sum,crashing]")
    assert result.code == 1
    assert "batch_invariance                          FAILS: the loss of a batch given twice is" in result.out
    assert "returns_a_scalar  FAILS: KeyError: 'layer3' (" in result.out
    assert (
        f"own_parts/__init__.py:{1 + PARTS.splitlines().index(next(x for x in PARTS.splitlines() if 'layer3' in x))})"
        in result.out
    )
    assert result.out.splitlines()[-1].startswith("loss sum, loss crashing: 23 lines of the contract, ")
    assert "Traceback" not in result.out + result.err


def test_feature_of_the_config_exists(command: Command) -> None:
    assert check(command, "loss=stride").code == 0


def test_smaller_parts(command: Command) -> None:
    result = check(command, "optimizer=slow", "schedule=rising", "callbacks=[counter]", "logger=[rows]")
    assert result.code == 1
    for sentence in (
        "updates                FAILS: 3 steps change no weight",
        "factors   FAILS: the factor of the learning rate is -0.2 at progress 0.6; it is 0 or more",
        "state_dict  FAILS: ",
        "rows  FAILS: KeyError: 'missing' (",
    ):
        assert sentence in result.out
    assert result.out.splitlines()[-1].endswith("7 lines of the contract, 4 faults")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "no part to check; name one: loss=NAME, model=NAME, dataset=NAME"),
        (("loss=no_loss",), "'own_parts.NoLoss' is no Loss; make it a subclass of segkd.losses.base.Loss"),
        (("loss=broken",), "loss broken: own_parts.Broken cannot be built: TypeError: no such thing ("),
        (("loss=god",), "there is no loss called 'god'"),
        (("dataset.root=data",), "choose a dataset with dataset=NAME"),
        (("dataset=camvid",), "dataset: dataset=camvid needs dataset.root=DIR"),
        (("model=ensemble",), "model: it combines networks; check its members one by one"),
        (("model=espnet_c", "+model.checkpoint=a.pth"), "model: model.checkpoint is given, and a new network"),
        (("logger=[csv]",), "logger csv: segkd's own loggers need a run"),
        (("model=none",), "no part to check"),
        (("loss=flat",), "a loss's file has one key, its name, with _target_ below it"),
        (("callbacks=[flat]",), "a callback's file has one key, its name, with _target_ below it"),
        (("dataset=nested",), "dataset: _target_ stands below 'mine'"),
    ],
)
def test_what_cannot_be_built_is_refused(command: Command, arguments: tuple[str, ...], sentence: str) -> None:
    result = check(command, *arguments)
    assert result.code == 2
    assert sentence in result.err
    assert "Traceback" not in result.err


def test_segkds_own_parts(command: Command) -> None:
    result = command("check_part", "dataset=streets", "optimizer=adamw", "schedule=cosine")
    assert result.code == 0
    assert result.out.splitlines()[-1] == "dataset, optimizer, schedule: 18 lines of the contract, no faults"
