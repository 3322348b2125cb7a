"""`python -m segkd.evaluate submission_dir=DIR`: label files for Cityscapes' server."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from segkd.models.base import Normalization
from segkd.models.espnet import ESPNetC
from segkd.models.student_io import save_student
from tests.helpers.commands import Command
from tests.helpers.fake_datasets import write_camvid, write_cityscapes
from tests.helpers.official_scorer import write_random_cityscapes
from tests.helpers.reference_state_dicts import make_espnet_state

STATISTICS = Normalization((110, 110, 110), (55, 55, 55))


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)


def test_cityscapes_protocol_and_submission(command: Command) -> None:
    write_random_cityscapes(Path("cityscapes"))
    torch.save(make_espnet_state(20, 1, has_counters=False), "encoder.pth")
    arguments = (
        "model=espnet_c", "checkpoint=encoder.pth", "dataset=cityscapes", "dataset.root=cityscapes", "workers=0",
        "accelerator=cpu", "output_dir=out", "protocol=espnet", "metrics=[category_iou,instance_iou]", "submission_dir=server",
    )  # fmt: skip
    code, out, err = command("evaluate", *arguments)
    assert code == 0, err
    evaluation = json.loads(Path("out/evaluation.json").read_text())
    matrix = np.array(evaluation["confusion_matrix"])
    assert matrix.shape == (20, 20)
    assert not matrix[19].any(), "unlabeled pixels do not count"
    assert evaluation["protocol"]["competing"] == "all outputs of the network"
    assert "half its size" in evaluation["protocol"]["input"]
    assert len(evaluation["category_iou"]["iou"]) == 7
    assert evaluation["instance_iou"]["iou"].keys() == {
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
    assert (blocks == blocks[:, :, :1, :, :1]).all(), "classes doubled by nearest neighbor"
    code, _, err = command("evaluate", *arguments)
    assert code == 2
    assert "submission_dir=server is not empty" in err


def test_split_without_labels_writes_the_submission_alone(command: Command) -> None:
    torch.save(ESPNetC(19, STATISTICS, p=1, q=1).state_dict(), "other.pth")
    write_cityscapes(Path("cityscapes"), train=0, val=0, test=2)
    for label in Path("cityscapes/gtFine/test").rglob("*.png"):
        cv2.imwrite(str(label), np.zeros((144, 288), np.uint8))
    arguments = (
        "model=espnet_c", "model.p=1", "model.q=1", "checkpoint=other.pth", "dataset=cityscapes", "split=test",
        "dataset.root=cityscapes", "workers=0", "accelerator=cpu", "output_dir=out",
    )  # fmt: skip
    code, out, err = command("evaluate", *arguments, "submission_dir=server")
    assert code == 0, err
    assert out.splitlines()[-1] == "2 label files in server; no labeled pixel, so no score"
    assert command("evaluate", *arguments).code == 2


def test_full_disk_leaves_no_partial_label_file(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    write_camvid(Path("camvid"), size=(72, 96))
    Path("run").mkdir()
    save_student(ESPNetC(11, STATISTICS, p=1, q=1), Path("run"), {})
    arguments = ("run=run", "dataset=camvid", "dataset.root=camvid", "workers=0", "accelerator=cpu")
    Path("file").touch()
    code, _, err = command("evaluate", *arguments, "submission_dir=file/server")
    assert code == 2
    assert "cannot make the folder file/server (Not a directory); give another submission_dir" in err

    write_bytes = Path.write_bytes

    def write_partly(path: Path, content: bytes) -> int:
        if "server" not in path.parts:
            return write_bytes(path, content)
        write_bytes(path, content[:9])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", write_partly)
    code, _, err = command("evaluate", *arguments, "submission_dir=server")
    assert code == 2
    assert "cannot write server/0001TP_100000_labelIds.png (No space left on device)" in err
    assert "another submission_dir" in err
    assert not list(Path("server").iterdir())
