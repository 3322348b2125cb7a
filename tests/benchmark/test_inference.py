"""`python -m segkd.benchmark mode=inference`: engines, tables and the Pareto front."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from segkd.benchmark.engines import build_engine
from segkd.benchmark.inference import EngineTimes, format_rows, read_miou
from segkd.models.base import Normalization
from segkd.models.espnet import ESPNetC
from segkd.models.student_io import save_student
from segkd.utils.tables import to_markdown
from tests.helpers.commands import Command


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs, `a` and `b`, of mIoU 0.5 and 0.6."""
    monkeypatch.chdir(tmp_path)
    for name, miou in (("a", 0.5), ("b", 0.6)):
        Path(name).mkdir()
        save_student(ESPNetC(5, Normalization((110,) * 3, (55,) * 3), p=1, q=1), Path(name), {})
        Path(name, "evaluation.json").write_text(json.dumps({"miou": miou}))


@pytest.mark.parametrize(
    ("engine", "tolerance"), [("eager", 1e-6), ("channels_last", 1e-4), ("bf16", 0.05), ("onnx", 1e-4)]
)
def test_engines_give_the_network_s_logits(engine: str, tolerance: float, tmp_path: Path) -> None:
    network = ESPNetC(5, Normalization((110,) * 3, (55,) * 3), p=1, q=1).eval()
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        expected = network(images).logits_at((64, 96))
        logits = build_engine(engine, network, tmp_path)(images).float()
    difference = ((logits - expected).abs().max() / expected.abs().max()).item()
    assert difference < tolerance
    assert (difference > 1e-4) == (engine == "bf16"), "bfloat16 rounds"


def test_table_of_known_times() -> None:
    times = [
        EngineTimes("r", "eager", [0.04, 0.02, 0.03], [0.1]),
        EngineTimes("r", "onnx", [0.01], [0.05]),
        EngineTimes("s", "onnx", [0.02], [0.04]),
    ]
    assert to_markdown(format_rows(times, batch_size=4)).splitlines() == [
        "| run | engine | ms | IQR | speed-up over eager | images/s, 4 at once |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| r | eager | 30.0 | 25.0 – 35.0 | 1.00 | 40.0 |",
        "| r | onnx | 10.0 | 10.0 – 10.0 | 3.00 | 80.0 |",
        "| s | onnx | 20.0 | 20.0 – 20.0 |  | 100.0 |",
    ]


def test_miou_is_that_of_the_engine_s_output() -> None:
    assert [read_miou(Path("a"), engine) for engine in ("openvino", "bf16", "int8")] == [0.5, None, None]
    Path("a/student.int8.onnx.json").write_text(json.dumps({"scores": {"miou": 0.48}}))
    assert read_miou(Path("a"), "int8") == 0.48


def test_command_measures_prints_and_plots(command: Command) -> None:
    overrides = ("run=[a,b]", "engines=[eager,onnx]", "size=[64,96]", "repeats=2", "warmup=0", "batch_size=2")
    code, out, err = command(
        "benchmark", "mode=inference", *overrides, "plot=p.png", "output_dir=new", "format=markdown"
    )
    assert code == 0, err
    record = json.loads(Path("new/benchmark.json").read_text())
    assert [(e["run"], e["engine"], e["miou"]) for e in record["engines"]] == [
        ("a", "eager", 0.5), ("a", "onnx", 0.5), ("b", "eager", 0.6), ("b", "onnx", 0.6)
    ]  # fmt: skip
    assert all(0 < e["quartiles_ms"][0] <= e["median_ms"] <= e["quartiles_ms"][1] for e in record["engines"])
    assert out.splitlines()[-1].startswith("fastest: ")
    assert Path("p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("engines=[eager]",), "say which: run=DIR or run=[DIR,DIR]"),
        (("run=lost",), "no student in lost"),
        (("run=a", "engines=[tensorrt]"), "engines=[tensorrt]: it takes "),
        (("run=a", "repeats=0"), "repeats must be greater than 0"),
        (("run=a", "engines=[]"), "engines=[]: "),
    ],
)
def test_mistake_is_reported_in_one_sentence(command: Command, overrides: tuple[str, ...], message: str) -> None:
    code, out, err = command("benchmark", "mode=inference", "size=[64,96]", *overrides)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert message in err
