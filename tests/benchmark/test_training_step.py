"""`python -m segkd.benchmark mode=step`, and the switches whose worth it shows."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import pytest
import torch

from segkd.benchmark.training_step import BARE, DATA, WHOLE, Clock, format_rows
from segkd.losses.pixelwise import Pixelwise
from segkd.models.base import Normalization
from segkd.models.checkpoint_io import safe_load
from segkd.models.espnet import ESPNetC
from segkd.models.frozen import Frozen
from segkd.utils.tables import to_markdown
from tests.helpers.commands import Command
from tests.train.test_train import TINY, distilled

SHORT = ("repeats=2", "warmup=1")


def test_the_table_by_hand() -> None:
    taken = {DATA: [0.2], BARE: [0.06], "teacher": [0.03], "backward": [0.05], WHOLE: [0.1]}
    assert to_markdown(format_rows(taken)).splitlines()[2:] == [
        "| whole step | 100.0 | 100.0 – 100.0 | 100.0% |",
        "| bare networks | 60.0 | 60.0 – 60.0 |  |",
        "| teacher | 30.0 | 30.0 – 30.0 | 30.0% |",
        "| backward | 50.0 | 50.0 – 50.0 | 50.0% |",
        "| all else | 20.0 |  | 20.0% |",
        "| data, beside the step | 200.0 | 200.0 – 200.0 |  |",
    ]


def test_every_part_has_a_time_and_a_slow_part_shows(
    command: Command, teacher_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss that sleeps for 50 ms adds as much to itself and to the whole step, and nothing to the bare networks."""
    typed = ("mode=step", *distilled(teacher_file), "adversary=holistic", *SHORT)
    forward = Pixelwise.forward

    def asleep(self: Pixelwise, step: object) -> torch.Tensor:
        time.sleep(0.05)
        return forward(self, step)  # type: ignore[arg-type]

    monkeypatch.setattr(Pixelwise, "forward", asleep)
    code, out, err = command("benchmark", *typed, f"output_dir={tmp_path / 'new'}")
    assert code == 0, err
    facts = json.loads((tmp_path / "new/benchmark.json").read_text())
    assert {WHOLE, BARE, "teacher", "student, forward", "discriminator", "backward", "optimizer"} < set(facts["times"])
    assert {name for name in facts["times"] if name.startswith("loss ")} >= {"loss cross_entropy", "loss holistic"}
    slow = facts["times"]["loss pixelwise"]["median_ms"]
    assert slow >= 50
    assert facts["times"][WHOLE]["median_ms"] > slow
    assert facts["ratio"] > 1
    assert out.splitlines()[-1].startswith("the whole step takes ")


def test_nothing_is_left_behind(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = command("benchmark", "mode=step", *TINY, *SHORT)
    assert code == 0, err
    assert [*tmp_path.iterdir()] == []


def test_clock_sums_by_name() -> None:
    clock = Clock(torch.device("cpu"))
    for _ in range(2):
        with clock("a"):
            time.sleep(0.01)
    assert [seconds >= 0.01 for seconds in clock.taken["a"]] == [True, True]


def test_a_teacher_in_bfloat16_says_almost_the_same_and_keeps_its_weights() -> None:
    network = ESPNetC(5, Normalization((110,) * 3, (55,) * 3), p=1, q=1)
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    whole, half = Frozen(network)(images).logits, Frozen(network, bf16=True)(images).logits
    difference = ((half.float() - whole).abs().max() / whole.abs().max()).item()
    assert 1e-4 < difference < 0.05
    assert {p.dtype for p in network.parameters()} == {torch.float32}


@pytest.mark.parametrize("switch", ["channels_last", "teacher_bf16"])
def test_a_switch_changes_the_first_step_by_rounding_alone(
    switch: str, command: Command, teacher_file: Path, tmp_path: Path
) -> None:
    typed = (*distilled(teacher_file), "trainer.limit_train_batches=2", "trainer.max_epochs=1", "check_teacher=warn")
    first = {}
    for name, more in (("off", ()), ("on", (f"trainer.{switch}=true",))):
        code, _, err = command("train", *typed, *more, "wandb.mode=disabled", f"output_dir={tmp_path / name}")
        assert code == 0, err
        with (tmp_path / name / "metrics.csv").open() as file:
            first[name] = float(next(csv.DictReader(file))["train/pixelwise"])
    difference = abs(first["on"] / first["off"] - 1)
    assert difference < (0.05 if switch == "teacher_bf16" else 1e-4)
    assert switch == "channels_last" or difference > 0
    said = " ".join(err.split())  # a narrow terminal breaks the line
    assert (switch == "teacher_bf16") == ("in bfloat16 the teacher has" in said)


def test_compile_is_in_place_and_leaves_the_names_of_weights(
    command: Command, teacher_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend that needs no compiler; that the student's pass goes through it is counted."""
    compiled: list[str] = []
    module_compile = torch.nn.Module.compile

    def by_aot_eager(self: torch.nn.Module, **given: object) -> None:
        compiled.append(type(self).__name__)
        module_compile(self, backend="aot_eager", **given)

    monkeypatch.setattr(torch.nn.Module, "compile", by_aot_eager)
    typed = (*distilled(teacher_file), "adversary=holistic", "trainer.compile=true", "trainer.limit_train_batches=2")
    code, _, err = command("train", *typed, "wandb.mode=disabled", f"output_dir={tmp_path / 'run'}")
    assert code == 0, err
    assert len(compiled) == 2, "student and teacher, never the discriminator"
    assert "Discriminator" not in compiled
    keys = safe_load(tmp_path / "run/last.ckpt")["state_dict"]
    assert not [key for key in keys if "_orig_mod" in key]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("repeats=0",), "repeats: input should be greater than 0"),
        (("trainer.devices=2",), "mode=step times one process"),
        (("size=[64,64]",), "no key 'size'"),
        (("trainer.compile=perhaps",), "trainer.compile: "),
    ],
)
def test_mistakes_end_with_a_sentence(command: Command, typed: tuple[str, ...], said: str) -> None:
    code, out, err = command("benchmark", "mode=step", *typed)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert said in err
