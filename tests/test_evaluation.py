"""Scoring a network: the geometry, and `python -m segkd.evaluate` with what it says of mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from authors import espnet_state
from commands import Command, Result, in_own_process
from fakes import write_camvid, write_cityscapes
from segkd.data.base import Sample, SegmentationDataset
from segkd.evaluation import confusion_matrix
from segkd.models.base import Normalization, SegmentationModel
from segkd.models.espnet import ESPNetC
from segkd.models.weights import save_student, sha256
from segkd.types import IGNORE_INDEX, Tap

STATISTICS = Normalization((110, 110, 110), (55, 55, 55))


class Coarse(SegmentationModel):
    """Answers 2×3 maps, whatever the image: class 1 in the middle column and 0 elsewhere."""

    def __init__(self) -> None:
        super().__init__(2, STATISTICS, {"scores": Tap(2, 8)})
        self.weight = torch.nn.Parameter(torch.ones(()))

    def segment(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        score = self.weight * torch.tensor([-1.0, 0.5, -1.0]).expand(len(images), 1, 2, 3)
        logits = torch.cat([-score, score], 1)
        return logits, {"scores": logits}


class Plain(SegmentationDataset):
    """Images of 32×41 of class 0, the last two columns void; image i has its first i rows of class 1."""

    classes = ("a", "b")
    splits = ("all",)

    def __len__(self) -> int:
        return 7

    def name(self, index: int) -> str:
        return str(index)

    def __getitem__(self, index: int) -> Sample:
        label = np.zeros((32, 41), np.uint8)
        label[:index] = 1
        label[:, -2:] = IGNORE_INDEX
        return Sample(np.zeros((32, 41, 3), np.uint8), label)


@pytest.mark.parametrize(("align_corners", "middle"), [(True, range(14, 27)), (False, range(16, 25))])
def test_logits_are_enlarged_to_the_label_as_the_family_does(
    align_corners: bool, middle: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: a map's 3 columns lie at 0, 20, 40 of the image's 41 with aligned corners, else at 6.3, 20, 33.7; the score
    of class 1 rises from -1 to 0.5 between them, and passes zero after two thirds of the way."""
    monkeypatch.setattr(Coarse, "align_corners", align_corners)
    network = Coarse().train()
    matrix = confusion_matrix(network, Plain("all"), limit=1)
    assert matrix.tolist() == [[32 * (39 - len(middle)), 32 * len(middle)], [0, 0]]
    assert network.training, "the mode is left as it was"


def test_a_limit_takes_images_evenly_spread() -> None:
    def rows_of_class_1(limit: int | None) -> int:
        return int(confusion_matrix(Coarse(), Plain("all"), limit=limit).sum(1)[1]) // 39

    assert rows_of_class_1(None) == rows_of_class_1(9) == sum(range(7))
    assert rows_of_class_1(3) == 0 + 2 + 4


KEYS = {
    "miou", "class_accuracy", "pixel_accuracy", "iou", "confusion_matrix", "protocol", "images", "checkpoint_sha256",
    "dataset", "split",
}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with CamVid, a student of 11 classes in `run`, and a checkpoint `theirs.pth` of 19."""
    monkeypatch.chdir(tmp_path)
    write_camvid(Path("camvid"), size=(72, 96))
    Path("run").mkdir()
    save_student(ESPNetC(11, STATISTICS, p=1, q=1), Path("run"), {})
    torch.save(ESPNetC(19, STATISTICS, p=1, q=1).state_dict(), "theirs.pth")
    return tmp_path


CAMVID = ("dataset=camvid", "dataset.root=camvid", "workers=0", "accelerator=cpu")


def test_a_run_is_scored_into_its_folder(command: Command, place: Path) -> None:
    code, out, err = command("evaluate", "run=run", "split=test", *CAMVID)
    assert code == 0, err
    facts = json.loads(Path("run/evaluation.json").read_text())
    assert facts.keys() >= KEYS
    assert out.splitlines()[-1] == f"mIoU {100 * facts['miou']:.2f}"
    assert list(facts["iou"]) == facts["classes"]
    assert len(facts["classes"]) == 11
    assert (facts["images"], facts["dataset"], facts["split"]) == (2, "CamVid", "test")
    assert facts["checkpoint_sha256"] == sha256(Path("run/student.safetensors"))
    assert np.array(facts["confusion_matrix"]).shape == (11, 11)
    assert facts["protocol"]["void"] == "ignored"


def test_the_file_says_its_size_and_void_may_compete(command: Command, place: Path) -> None:
    """Files of another size than the yaml's, with void as one output more than the data set's classes."""
    write_cityscapes(Path("cityscapes"), train=1, val=2)
    torch.save(espnet_state(12, 3, 19, nested=True, counted=False), "camvid.pth")
    torch.save(espnet_state(20, 5, 16, nested=True, counted=False), "cityscapes.pth")
    torch.save(espnet_state(20, 5, counted=False), "encoder.pth")
    for file, model, classes, size in (
        ("camvid", "espnet", 11, 19),
        ("cityscapes", "espnet", 19, 16),
        ("encoder", "espnet_c", 19, None),
    ):
        data = "camvid" if file == "camvid" else "cityscapes"
        for void in ("counted", "ignored"):
            code, _, err = command(
                "evaluate", f"model={model}", f"checkpoint={file}.pth", f"dataset={data}", f"dataset.root={data}",
                "split=val", "workers=0", "accelerator=cpu", f"void={void}", f"output_dir={void}",
            )  # fmt: skip
            assert code == 0, err
            assert f"Mehta et al., 2018's ESPNet{'' if size else 'C'} (p=2, q={3 if size == 19 else 5}" in err
            assert f"{classes + 1} outputs" in err
            facts = json.loads(Path(void, "evaluation.json").read_text())
            assert np.array(facts["confusion_matrix"]).shape == (classes + (void == "counted"),) * 2
            assert len(facts["iou"]) == classes
            assert facts["protocol"]["void"] == void


def assert_refused(result: Result, *said: str) -> None:
    assert result.code == 2, result
    assert result.out == ""
    told = [line for line in result.err.splitlines() if line.startswith("segkd: ")]
    assert len(told) == 1, result.err
    for words in said:
        assert words in told[0]
    assert "Traceback" not in result.err
    assert not list(Path().rglob("evaluation.json"))


THEIRS = ("model=espnet_c", "model.q=1", "model.p=1", "checkpoint=theirs.pth")
EITHER = "either run=DIR, or model=NAME and checkpoint=FILE"
MISTAKES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "nothing": (CAMVID, (EITHER,)),
    "half": ((*CAMVID, "model=espnet"), (EITHER,)),
    "other half": ((*CAMVID, "checkpoint=theirs.pth"), (EITHER,)),
    "no model": ((*CAMVID, "model=none", "checkpoint=theirs.pth"), (EITHER,)),
    "both": ((*CAMVID, *THEIRS, "run=run"), (EITHER,)),
    "no such run": ((*CAMVID, "run=runs/lost"), ("no student in runs/lost", "folder of a finished run")),
    "other classes": ((*CAMVID, *THEIRS), ("another shape", "(19, 256, 1, 1) for (11, 256, 1, 1)")),
    "a run of other classes": (
        ("dataset=cityscapes", "dataset.root=cityscapes", "run=run"),
        ("scores 11 classes, Cityscapes has 19", "the data set it was trained on"),
    ),
    "no such file": ((*CAMVID, "model=espnet", "checkpoint=lost.pth"), ("no checkpoint at lost.pth",)),
    "no such model": ((*CAMVID, "model=espent", "checkpoint=theirs.pth"), ("did you mean 'espnet'?",)),
    "no such split": ((*CAMVID, "run=run", "split=tset"), ("CamVid has no split 'tset'; it has train, val, test",)),
    "no root": (("dataset=camvid", "run=run"), ("CamVid needs dataset.root=DIR",)),
    "no such root": (("dataset=camvid", "dataset.root=lost", "run=run"), ("no CamVid at lost",)),
    "void": ((*CAMVID, "run=run", "void=dropped"), ("void", "'ignored' or 'counted'", "dropped")),
    "no folder": ((*CAMVID, "run=run", "output_dir=theirs.pth/a"), ("cannot make the folder", "another output_dir")),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_in_one_sentence(command: Command, place: Path, name: str) -> None:
    write_cityscapes(Path("cityscapes"), train=1, val=1)
    typed, said = MISTAKES[name]
    assert_refused(command("evaluate", *typed), *said)


@pytest.mark.process
@pytest.mark.parametrize("name", ["no such run", "other classes"])
def test_mistakes_as_a_user_meets_them(place: Path, name: str) -> None:
    typed, said = MISTAKES[name]
    result = in_own_process("evaluate", *typed, cwd=place)
    assert_refused(result, *said)
    assert len(result.err.splitlines()) == 1
