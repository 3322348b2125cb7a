"""`python -m segkd.demo`: on drawn streets, a teacher, a student alone and a distilled student; a table and a picture.

It types three `segkd.train` commands, which it prints, and scores what they leave on the test scenes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig
from PIL.Image import Image
from rich.console import Console
from rich.table import Table

from segkd.cli.launch import launch
from segkd.config.schema import DemoSettings, load_settings
from segkd.data.streets import Streets
from segkd.evaluate.loop import compute_confusion_matrix
from segkd.metrics import Scores
from segkd.models.base import SegmentationModel, count_parameters
from segkd.models.checkpoint_io import load_student
from segkd.predict.drawing import colorize, image_grid
from segkd.predict.pipeline import predict_frames
from segkd.predict.sources import Frame

SHOWN = 5
"""Test scenes in the picture."""


class Trained(NamedTuple):
    """What a run left, and what it is worth."""

    network: SegmentationModel
    scores: Scores
    seconds: float


def demo(cfg: DictConfig) -> None:
    """Train three networks, print one table, write `demo.json` and `demo.png`."""
    settings = load_settings(cfg, DemoSettings)
    directory = settings.output_dir
    teacher = directory / "teacher" / "student.safetensors"
    commands = {
        "teacher": ["experiment=teacher_streets"],
        "alone": [
            "experiment=quickstart",
            "model@teacher=none",
            "teacher.checkpoint=null",
            "loss=[cross_entropy]",
            "adversary=none",
        ],
        "distilled": ["experiment=quickstart", f"teacher.checkpoint={teacher}"],
    }
    scenes = Streets("test")
    trained = {}
    for name, arguments in commands.items():
        _train([*arguments, *_common(settings, name)])
        trained[name] = _score(directory / name, scenes)
    facts = {
        name: {**run.scores.facts(scenes.classes), "parameters": count_parameters(run.network), "seconds": run.seconds}
        for name, run in trained.items()
    }
    (directory / "demo.json").write_text(json.dumps(facts, indent=1) + "\n")
    _picture(trained, scenes).save(directory / "demo.png")
    console = Console()
    console.print(_table(trained, len(scenes)))
    gain = trained["distilled"].scores.miou - trained["alone"].scores.miou
    print(f"distillation: {100 * gain:+.2f} mIoU · {directory / 'demo.png'}")


def _common(settings: DemoSettings, name: str) -> list[str]:
    # The teacher's seed is its own, so that the seeds of a study share one teacher's recipe and differ in the student.
    length = [] if settings.epochs is None else [f"trainer.max_epochs={settings.epochs}"]
    seed = [] if name == "teacher" else [f"seed={settings.seed}"]
    return [*seed, f"output_dir={settings.output_dir / name}", *length]


def _train(arguments: list[str]) -> None:
    print("$ python -m segkd.train", *arguments, file=sys.stderr, flush=True)
    ended = subprocess.run([sys.executable, "-m", "segkd.train", *arguments], check=False)
    if ended.returncode:
        raise SystemExit(ended.returncode)


def _score(run: Path, scenes: Streets) -> Trained:
    network = load_student(run)
    seconds = json.loads((run / "summary.json").read_text())["seconds"]
    return Trained(network, Scores.of(compute_confusion_matrix(network, scenes), len(scenes.classes)), seconds)


def _table(trained: dict[str, Trained], images: int) -> Table:
    table = Table(title=f"streets, {images} test scenes")
    for column in ("network", "parameters", "mIoU", "seconds"):
        table.add_column(column, justify="left" if column == "network" else "right")
    for name, (network, scores, seconds) in trained.items():
        table.add_row(name, f"{count_parameters(network):,}", f"{100 * scores.miou:.2f}", f"{seconds:.0f}")
    return table


def _picture(trained: dict[str, Trained], scenes: Streets) -> Image:
    shown, colors = [scenes[i] for i in range(SHOWN)], scenes.colors
    networks = {name: run.network for name, run in trained.items()}
    frames = [Frame(scenes.name(i), sample.image) for i, sample in enumerate(shown)]
    (labelled,) = predict_frames(networks, [frames], len(scenes.classes))
    said = {name: [colorize(one.labels[name], colors) for one in labelled] for name in networks}
    seen = {"image": [s.image for s in shown], "truth": [colorize(s.label, colors) for s in shown]}
    return image_grid({**seen, **said}, dict(zip(scenes.classes, colors, strict=True)))


if __name__ == "__main__":
    launch("demo")
