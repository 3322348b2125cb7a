"""Scoring a network: the geometry, and `python -m segkd.evaluate` with what it says of mistakes."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from segkd.data.base import Sample, SegmentationDataset
from segkd.evaluate.loop import compute_confusion_matrix
from segkd.metrics import Scores
from segkd.models.base import Normalization, SegmentationModel
from segkd.models.checkpoint_io import save_student
from segkd.models.espnet import ESPNetC
from segkd.types import IGNORE_INDEX, FeatureInfo
from segkd.utils.files import sha256
from tests.helpers.commands import Command, Result, in_own_process
from tests.helpers.fake_datasets import write_camvid, write_cityscapes
from tests.helpers.official_scorer import write as write_official
from tests.helpers.reference_state_dicts import espnet_state

STATISTICS = Normalization((110, 110, 110), (55, 55, 55))


class Coarse(SegmentationModel):
    """Answers 2×3 maps, whatever the image: class 1 in the middle column and 0 elsewhere."""

    def __init__(self) -> None:
        super().__init__(2, STATISTICS, {"scores": FeatureInfo(2, 8)})
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
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
    matrix = compute_confusion_matrix(network, Plain("all"), limit=1)
    assert matrix.tolist() == [[32 * (39 - len(middle)), 32 * len(middle)], [0, 0]]
    assert network.training, "the mode is left as it was"


def test_a_limit_takes_images_evenly_spread() -> None:
    def rows_of_class_1(limit: int | None) -> int:
        return int(compute_confusion_matrix(Coarse(), Plain("all"), limit=limit).sum(1)[1]) // 39

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
    "one block": (
        (*CAMVID, "run=run", "split=test", "scores=[interval]"),
        ("blocks of 10 frames", "longest sequence of CamVid test has 2", "give a smaller bootstrap_block=N"),
    ),
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
    "no such score": ((*CAMVID, "run=run", "scores=[iou,edges]"), ("scores", "'boundary'", "edges")),
    "agreement with nobody": ((*CAMVID, "run=run", "scores=[agreement]"), ("no teacher", "model@teacher=NAME")),
    "Cityscapes' scores": ((*CAMVID, "run=run", "scores=[categories]"), ("Cityscapes' own; CamVid has none",)),
    "Cityscapes' protocol": ((*CAMVID, "run=run", "protocol=espnet"), ("not on CamVid", "void=counted")),
    "too small a window": ((*CAMVID, "run=run", "window=[8,64]"), ("window=[8, 64] is less than the 32 pixels",)),
    "no overlap left": ((*CAMVID, "run=run", "overlap=1"), ("overlap", "less than 1")),
    "no such damage": ((*CAMVID, "run=run", "corruptions=[rain]"), ("corruptions", "'fog'", "rain")),
    "no such severity": ((*CAMVID, "run=run", "severities=[6]"), ("severities", "5", "6")),
    "no such format": ((*CAMVID, "run=run", "format=html"), ("format", "'latex'", "html")),
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


ALL = "scores=[iou,boundary,trimap,calibration,agreement,sequences,interval]"
TEACHER = ("model@teacher=espnet_c", "teacher.p=1", "teacher.q=1", "teacher.checkpoint=run/student.safetensors")


def scored(command: Command, *typed: str) -> tuple[dict[str, Any], str]:
    """evaluation.json and stdout of a command that goes well."""
    code, out, err = command("evaluate", *typed)
    assert code == 0, err
    return json.loads(Path("out/evaluation.json").read_text()), out


def test_all_scores_beside_the_same_iou(command: Command, place: Path) -> None:
    run = ("run=run", "split=test", "output_dir=out", *CAMVID)
    plain, said = scored(command, *run)
    everything, out = scored(command, *run, ALL, *TEACHER, "bootstrap_samples=50", "bootstrap_block=1")
    assert {key: everything[key] for key in plain} == plain
    assert everything.keys() - plain.keys() == {
        "boundary", "trimap", "calibration", "agreement", "sequences", "interval",
    }  # fmt: skip
    assert everything["agreement"]["agreement"] == 1, "the teacher is the student itself"
    assert everything["sequences"] == {"0001TP": {"images": 2, **{k: plain[k] for k in Scores._fields}}}
    low, high = everything["interval"]["miou"]
    assert low <= plain["miou"] <= high
    assert everything["boundary"]["widths"] == [2]
    assert 0 < everything["boundary"]["miou"] < 1
    assert "boundary IoU" in out
    assert "boundary IoU" not in said


def test_the_teacher_is_the_run_s(command: Command, place: Path) -> None:
    node = {"_target_": "segkd.models.espnet.ESPNetC", "p": 1, "q": 1, "checkpoint": "run/student.safetensors"}
    Path("run/config.yaml").write_text(yaml.safe_dump({"teacher": node}))
    asked = ("run=run", "output_dir=out", *CAMVID, "scores=[agreement]")
    assert scored(command, *asked)[0]["agreement"]["agreement"] == 1
    Path("run/config.yaml").write_text(yaml.safe_dump({"teacher": {"_target_": "os.system"}}))
    code, _, err = command("evaluate", *asked)
    assert code == 2
    assert "'os.system' is not allowed" in err


def test_views_say_what_they_did(command: Command, place: Path) -> None:
    run = ("run=run", "output_dir=out", *CAMVID)
    facts, _ = scored(command, *run, "window=[48,48]", "overlap=0.5", "scales=[0.75,1]", "flip=true")
    assert facts["protocol"]["input"] == "windows of 48×48, overlap 0.5, scales 0.75, 1, flip"
    plain, _ = scored(command, *run)
    assert plain["protocol"]["input"] == "whole image, single scale, no flip"
    assert facts["confusion_matrix"] != plain["confusion_matrix"]


def test_damaged_images(command: Command, place: Path) -> None:
    asked = ("run=run", "output_dir=out", *CAMVID, "corruptions=[gaussian_noise,jpeg]", "severities=[1,5]")
    facts, out = scored(command, *asked)
    found = facts["corruptions"]
    assert {name: list(each) for name, each in found["miou"].items()} == {
        "gaussian_noise": ["1", "5"], "jpeg": ["1", "5"],
    }  # fmt: skip
    assert found["mean"] == pytest.approx(np.mean([v for each in found["miou"].values() for v in each.values()]))
    assert scored(command, *asked)[0] == facts, "the same seed damages in the same way"
    assert (
        scored(command, *asked, "seed=1")[0]["corruptions"]["miou"]["gaussian_noise"] != found["miou"]["gaussian_noise"]
    )
    assert "mIoU damaged" in out


def test_tables_to_paste(command: Command, place: Path) -> None:
    run = ("run=run", "output_dir=out", *CAMVID, "scores=[boundary]")
    facts, out = scored(command, *run, "format=markdown")
    lines = [line for line in out.splitlines() if line.startswith("|")]
    assert lines[0] == "| class | IoU % | boundary IoU % |"
    assert lines[1] == "| --- | ---: | ---: |"
    assert len(lines) == 2 + 11 + 1
    assert lines[-1] == f"| mean | {100 * facts['miou']:.2f} | {100 * facts['boundary']['miou']:.2f} |"
    _, out = scored(command, *run, "format=latex")
    latex = [line for line in out.splitlines()[:-1] if not line.startswith("%")]
    assert latex[:4] == [r"\begin{tabular}{lrr}", r"\toprule", r"class & IoU \% & boundary IoU \% \\", r"\midrule"]
    assert latex[-1] == r"\end{tabular}"
    assert all(line.count("&") == 2 for line in latex[4:-2])


def test_cityscapes_as_its_authors_and_its_server_have_it(command: Command, place: Path) -> None:
    write_official(Path("cityscapes"))
    torch.save(espnet_state(20, 1, counted=False), "encoder.pth")
    asked = (
        "model=espnet_c", "checkpoint=encoder.pth", "dataset=cityscapes", "dataset.root=cityscapes", "workers=0",
        "accelerator=cpu", "output_dir=out", "protocol=espnet", "scores=[categories,instances]", "submission_dir=server",
    )  # fmt: skip
    facts, out = scored(command, *asked)
    matrix = np.array(facts["confusion_matrix"])
    assert matrix.shape == (20, 20)
    assert not matrix[19].any(), "unlabelled pixels do not count"
    assert facts["protocol"]["competing"] == "all outputs of the network"
    assert "half its size" in facts["protocol"]["input"]
    assert len(facts["categories"]["iou"]) == 7
    assert facts["instances"]["iou"].keys() == {
        "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
    }  # fmt: skip
    assert "iIoU %" in out
    files = sorted(Path("server").glob("*"))
    assert len(files) == 20
    assert files[0].name == "frankfurt_000001_000019_labelIds.png"
    written = np.stack([cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files])
    assert written.shape == (20, 64, 128)
    assert set(np.unique(written).tolist()) <= {0, 7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33}
    blocks = written.reshape(20, 32, 2, 64, 2)
    assert (blocks == blocks[:, :, :1, :, :1]).all(), "classes doubled by nearest neighbour"
    code, _, err = command("evaluate", *asked)
    assert code == 2
    assert "submission_dir=server is not empty" in err


def test_the_server_s_test_split_has_no_labels(command: Command, place: Path) -> None:
    write_cityscapes(Path("cityscapes"), train=0, val=0, test=2)
    for label in Path("cityscapes/gtFine/test").rglob("*.png"):
        cv2.imwrite(str(label), np.zeros((144, 288), np.uint8))
    asked = (
        "model=espnet_c", "model.p=1", "model.q=1", "checkpoint=theirs.pth", "dataset=cityscapes", "split=test",
        "dataset.root=cityscapes", "workers=0", "accelerator=cpu", "output_dir=out",
    )  # fmt: skip
    code, out, err = command("evaluate", *asked, "submission_dir=server")
    assert code == 0, err
    assert out.splitlines()[-1] == "2 label files in server; no labelled pixel, so no score"
    assert command("evaluate", *asked).code == 2


def test_a_full_disk_leaves_no_half_label_file(command: Command, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").touch()
    code, _, err = command("evaluate", "run=run", *CAMVID, "submission_dir=file/server")
    assert code == 2
    assert "cannot make the folder file/server (Not a directory); give another submission_dir" in err

    written = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if "server" not in path.parts:
            return written(path, content)
        written(path, content[:9])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    code, _, err = command("evaluate", "run=run", *CAMVID, "submission_dir=server")
    assert code == 2
    assert "cannot write server/0001TP_100000_labelIds.png (No space left on device)" in err
    assert "another submission_dir" in err
    assert not list(Path("server").iterdir())
