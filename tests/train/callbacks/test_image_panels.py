"""Pictures and tables at W&B, read back from what an offline run leaves; and that they change nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from segkd.data.streets import Streets
from segkd.models.student_io import load_student
from segkd.train.callbacks.image_panels import MAX_SIDE, ImagePanels, _shrink
from segkd.types import IGNORE_INDEX
from tests.helpers.commands import Command
from tests.helpers.wandb_files import WandbRun, wandb_runs

IMAGES = 8
TINY = (
    f"dataset.images={IMAGES}",
    "student.p=1",
    "student.q=1",
    "data.batch_size=4",
    "data.workers=0",
    "data.crop_size=[128,128]",
    "data.val_split=train",  # of which there are few
    "trainer=cpu",
    "trainer.max_epochs=4",
    "trainer.progress=false",
    "check_teacher=off",
)
STEPS = [2, 4, 6, 8]  # of the validations


def distilled(teacher: Path) -> tuple[str, ...]:
    terms = ("loss=[cross_entropy,pixelwise]", "adversary=holistic", "adversary.discriminator.width=8")
    return (*TINY, "model@teacher=espnet", f"teacher.checkpoint={teacher}", *terms)


def shown(run: WandbRun) -> dict[int, dict[str, Any]]:
    """By step, the rows with a table; a value within a value has its keys joined by a slash."""
    return {row["step"]: row for row in run.history if "iou/path" in row}


def places(row: dict[str, Any]) -> set[int]:
    return {int(key.split("/")[1]) for key in row if key.startswith("panels/")}


def speakers(row: dict[str, Any]) -> set[str]:
    return {key.split("/")[3] for key in row if "/masks/" in key}


def picture(run: WandbRun, path: str) -> np.ndarray:
    read = cv2.imread(str(run.directory / path), cv2.IMREAD_UNCHANGED)
    assert read is not None
    return read if read.ndim == 2 else cv2.cvtColor(read, cv2.COLOR_BGR2RGB)


def test_they_show_what_was_scored(command: Command, teacher_file: Path, tmp_path: Path) -> None:
    asked = ("wandb.mode=offline", "wandb.panels_every=2", "wandb.panels=3", "trainer.log_gradient_shares_every=4")
    result = command("train", *distilled(teacher_file), *asked, f"output_dir={tmp_path / 'run'}")
    assert result.code == 0, result.err
    (run,) = wandb_runs(tmp_path / "run")
    rows = shown(run)
    assert list(rows) == [2, 6, 8]
    assert [speakers(row) for row in rows.values()] == [{"truth", "student", "teacher"}, *[{"truth", "student"}] * 2]
    assert all(places(row) == {0, 2, 5} for row in rows.values())
    scenes, student, teacher = (
        Streets("train", IMAGES),
        load_student(tmp_path / "run"),
        load_student(teacher_file.parent),
    )
    for place in places(rows[8]):
        image, label = scenes[place]
        assert all(np.array_equal(picture(run, row[f"panels/{place}/path"]), image) for row in rows.values())
        assert np.array_equal(picture(run, rows[8][f"panels/{place}/masks/truth/path"]), label)
        for who, network, row in (("student", student, rows[8]), ("teacher", teacher, rows[2])):
            with torch.no_grad():
                seen = torch.from_numpy(image).permute(2, 0, 1)[None]
                said = network.eval()(seen).logits_at((label.shape[0], label.shape[1])).argmax(1)[0].numpy()
            assert np.array_equal(picture(run, row[f"panels/{place}/masks/{who}/path"]), said)
    names = run.config["_wandb"]["mask/class_labels"]["panels/0_wandb_delimeter_student"]["value"]
    assert names == {**{str(i): name for i, name in enumerate(Streets.classes)}, str(IGNORE_INDEX): "void"}
    table = json.loads((run.directory / rows[8]["iou/path"]).read_text())
    assert table["columns"] == ["class", "IoU"]
    assert [name for name, _ in table["data"]] == list(Streets.classes)
    scored = [{name: row[f"val/iou/{name}"] for name in Streets.classes} for row in run.history if "val/miou" in row][
        -1
    ]
    assert {name: math.nan if iou is None else iou for name, iou in table["data"]} == pytest.approx(scored, nan_ok=True)
    assert [row["step"] for row in run.history if "share/pixelwise" in row] == [0, 4]
    assert run.summary["val/miou"] == pytest.approx(json.loads((tmp_path / "run/summary.json").read_text())["val_miou"])
    assert {path.name for path in (tmp_path / "run" / "wandb").iterdir()} >= {"artifacts"}  # not in the user's home


@pytest.mark.parametrize(
    ("typed", "steps"),
    [
        (("wandb.panels_every=1",), STEPS),
        (("wandb.panels_every=3",), [2, 8]),
        (("wandb.panels_every=null",), []),
        (("trainer.validate_every=3", "wandb.panels_every=9"), [6, 8]),  # the last is after the training
    ],
)
def test_how_often(command: Command, tmp_path: Path, typed: tuple[str, ...], steps: list[int]) -> None:
    result = command("train", *TINY, *typed, "wandb.mode=offline", "wandb.panels=99", f"output_dir={tmp_path / 'run'}")
    assert result.code == 0, result.err
    (run,) = wandb_runs(tmp_path / "run")
    assert list(shown(run)) == steps
    assert all(places(row) == set(range(IMAGES)) for row in shown(run).values())
    assert bool(list(run.directory.glob("media/**/*.png"))) == bool(steps)


def test_they_change_nothing(
    command: Command, teacher_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def state(name: str, mode: str) -> dict[str, Any]:
        asked = (f"wandb.mode={mode}", "wandb.panels_every=1", f"output_dir={tmp_path / name}")
        assert command("train", *distilled(teacher_file), *asked).code == 0
        return torch.load(tmp_path / name / "last.ckpt", weights_only=True)  # type: ignore[no-any-return]

    def same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
        weights = (torch.equal(value, theirs["state_dict"][key]) for key, value in ours["state_dict"].items())
        return all(weights) and torch.equal(ours["processes"][0]["random"], theirs["processes"][0]["random"])

    without, having = state("without", "disabled"), state("with", "offline")
    assert shown(wandb_runs(tmp_path / "with")[0])
    assert same(having, without)
    for file in ("metrics.csv", "student.safetensors"):
        assert (tmp_path / "with" / file).read_bytes() == (tmp_path / "without" / file).read_bytes()
    made = ImagePanels._make_panel
    monkeypatch.setattr(ImagePanels, "_make_panel", lambda *given: (torch.rand(1), made(*given))[1])
    assert not same(state("drawing", "offline"), without)


def test_a_picture_that_cannot_be_made_ends_the_pictures_alone(
    command: Command, teacher_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise MemoryError("no room on the GPU")

    monkeypatch.setattr(ImagePanels, "_make_panel", broken)
    asked = ("wandb.mode=offline", "wandb.panels_every=1", f"output_dir={tmp_path / 'run'}")
    result = command("train", *distilled(teacher_file), *asked)
    assert result.code == 0, result.err
    assert result.err.count("no further images are sent to W&B (MemoryError: no room on the GPU)") == 1
    (run,) = wandb_runs(tmp_path / "run")
    assert not shown(run)
    assert [row["step"] for row in run.history if "val/miou" in row] == [step - 1 for step in STEPS]


def test_image_is_shrunk_to_the_greatest_side() -> None:
    assert _shrink(np.zeros((1024, 2048, 3), np.uint8)).shape == (MAX_SIDE // 2, MAX_SIDE, 3)
    labels = np.full((1024, 2048), IGNORE_INDEX, np.uint8)
    labels[512:] = 3
    assert set(np.unique(_shrink(labels))) == {3, IGNORE_INDEX}  # no class between two others
    assert _shrink(labels[:360, :480]).shape == (360, 480)


@pytest.mark.slow
@pytest.mark.process
def test_a_sweep_of_24_runs(command: Command, teacher_file: Path, tmp_path: Path) -> None:
    """Eight methods, three seeds: each its own run, all in one group."""
    sweep = tmp_path / "ablation"
    asked = ("trainer.max_epochs=1", "trainer.limit_val_batches=4", "wandb.mode=offline", f"output_dir={sweep}")
    teacher = ("model@teacher=espnet", f"teacher.checkpoint={teacher_file}")
    result = command("train", "-m", "sweep=loss_ablation", *TINY, *teacher, *asked)
    assert result.code == 0, result.err
    runs = wandb_runs(sweep)
    assert len(runs) == len({run.id for run in runs}) == 24
    assert {run.group for run in runs} == {"ablation"}
    methods = {(*sorted(run.config["loss"]), run.config["adversary"]["_target_"], run.config["seed"]) for run in runs}
    assert len(methods) == 24
    for run in runs:
        assert run.summary["val/miou"] >= 0
        taught = bool(run.summary.keys() & {"train/pixelwise", "train/pairwise", "train/adversarial"})
        assert len(list(run.directory.glob("media/images/mask/**/*.png"))) == 4 * (2 + taught)
