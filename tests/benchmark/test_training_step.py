"""`python -m segkd.benchmark mode=step`, and the settings that speed up a step."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from segkd.benchmark.step_timer import BARE, WHOLE, Clock
from segkd.benchmark.training_step import DATA, format_rows
from segkd.losses.pixelwise import Pixelwise
from segkd.models.base import Normalization
from segkd.models.checkpoint_io import safe_load
from segkd.models.espnet import ESPNetC
from segkd.models.frozen import Frozen
from segkd.utils.tables import to_markdown
from tests.helpers.commands import Command
from tests.helpers.training import TINY_TRAINING, list_distillation_overrides, read_metrics

SHORT = ("repeats=2", "warmup=1")
FIRST_STEP = ("trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1")


def test_table_of_known_times() -> None:
    times = {DATA: [0.2], BARE: [0.06], "teacher": [0.03], "backward": [0.05], WHOLE: [0.1]}
    assert to_markdown(format_rows(times)).splitlines()[2:] == [
        "| whole step | 100.0 | 100.0 – 100.0 | 100.0% |",
        "| bare networks | 60.0 | 60.0 – 60.0 |  |",
        "| teacher | 30.0 | 30.0 – 30.0 | 30.0% |",
        "| backward | 50.0 | 50.0 – 50.0 | 50.0% |",
        "| all else | 20.0 |  | 20.0% |",
        "| data, beside the step | 200.0 | 200.0 – 200.0 |  |",
    ]


def test_every_part_is_timed_and_a_slow_part_is_visible(
    command: Command, teacher_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss that sleeps for 50 ms adds that to its own time and to the whole step, not to the bare networks."""
    overrides = ("mode=step", *list_distillation_overrides(teacher_file), *SHORT)
    forward = Pixelwise.forward

    def sleep_and_forward(self: Pixelwise, step: object) -> torch.Tensor:
        time.sleep(0.05)
        return forward(self, step)  # type: ignore[arg-type]

    monkeypatch.setattr(Pixelwise, "forward", sleep_and_forward)
    code, out, err = command("benchmark", *overrides, f"output_dir={tmp_path / 'new'}")
    assert code == 0, err
    record = json.loads((tmp_path / "new/benchmark.json").read_text())
    assert {WHOLE, BARE, "teacher", "student, forward", "discriminator", "backward", "optimizer"} < set(record["times"])
    assert {name for name in record["times"] if name.startswith("loss ")} >= {"loss cross_entropy", "loss adversarial"}
    slow = record["times"]["loss pixelwise"]["median_ms"]
    assert slow >= 50
    assert record["times"][WHOLE]["median_ms"] > slow
    assert record["ratio"] > 1
    assert out.splitlines()[-1].startswith("the whole step takes ")


def test_no_file_is_left(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = command("benchmark", "mode=step", *TINY_TRAINING, *SHORT)
    assert code == 0, err
    assert [*tmp_path.iterdir()] == []


def test_clock_measures_by_name() -> None:
    clock = Clock(torch.device("cpu"))
    for _ in range(2):
        with clock("a"):
            time.sleep(0.01)
    assert [seconds >= 0.01 for seconds in clock.seconds["a"]] == [True, True]


def test_bf16_teacher_gives_close_logits_and_keeps_float32_weights() -> None:
    network = ESPNetC(5, Normalization((110,) * 3, (55,) * 3), p=1, q=1)
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    exact, rounded = Frozen(network)(images).logits, Frozen(network, bf16=True)(images).logits
    difference = ((rounded.float() - exact).abs().max() / exact.abs().max()).item()
    assert 1e-4 < difference < 0.05
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_speedups_change_the_first_step_by_rounding_alone(command: Command, teacher_file: Path, tmp_path: Path) -> None:
    """One training without, one with each setting."""
    overrides = (*list_distillation_overrides(teacher_file), *FIRST_STEP, "check_teacher=warn")
    first, output = {}, {}
    for setting in ("none", "channels_last", "teacher_bf16"):
        run, switch = tmp_path / setting, () if setting == "none" else (f"trainer.{setting}=true",)
        code, _, err = command("train", *overrides, *switch, f"output_dir={run}")
        assert code == 0, err
        first[setting] = float(read_metrics(run)[0]["train/pixelwise"])
        output[setting] = " ".join(err.split())  # a narrow terminal breaks the line
    assert abs(first["channels_last"] / first["none"] - 1) < 1e-4
    assert 0 < abs(first["teacher_bf16"] / first["none"] - 1) < 0.05
    assert {name for name, text in output.items() if "in bfloat16 the teacher has" in text} == {"teacher_bf16"}


def test_compile_is_in_place_and_keeps_the_keys_of_weights(
    command: Command, teacher_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the backend that needs no compiler; compiled modules are counted."""
    compiled: list[str] = []
    module_compile = torch.nn.Module.compile

    def compile_with_aot_eager(self: torch.nn.Module, **options: object) -> None:
        compiled.append(type(self).__name__)
        module_compile(self, backend="aot_eager", **options)

    monkeypatch.setattr(torch.nn.Module, "compile", compile_with_aot_eager)
    overrides = (*list_distillation_overrides(teacher_file), *FIRST_STEP, "trainer.compile=true")
    code, _, err = command("train", *overrides, f"output_dir={tmp_path / 'run'}")
    assert code == 0, err
    assert len(compiled) == 2, "student and teacher, never the discriminator"
    assert "Discriminator" not in compiled
    keys = safe_load(tmp_path / "run/last.ckpt")["state_dict"]
    assert not [key for key in keys if "_orig_mod" in key]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("repeats=0",), "repeats must be greater than 0"),
        (("trainer.devices=2",), "mode=step times one process"),
        (("size=[64,64]",), "no key 'size'"),
        (("trainer.compile=perhaps",), "trainer.compile=perhaps: "),
    ],
)
def test_mistake_is_reported_in_one_sentence(command: Command, overrides: tuple[str, ...], message: str) -> None:
    code, out, err = command("benchmark", "mode=step", *overrides)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert message in err
