"""The authors' checkpoints on CamVid's test split give their published scores, by the command that a user types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from segkd.data.camvid import CLASSES, CamVid
from segkd.evaluate.loop import compute_confusion_matrix
from segkd.metrics import Scores
from segkd.models.base import Normalization, SegmentationModel
from segkd.models.espnet import ESPNet
from segkd.models.pretrained import load_network
from segkd.utils.files import sha256
from tests.helpers.commands import Command, Result, in_own_process

pytestmark = [pytest.mark.published, pytest.mark.timeout(900)]

SKD = "weights/skd-authors/camvid"
MEHTA = "weights/espnet-authors/decoder/espnet_p_2_q_8_camvid.pth"

# Liu et al. (2019), table 4 and the names of their files; class and pixel accuracy as measured with their code.
PUBLISHED = [
    ("espnet", f"{SKD}/espnet_kd_sd_61.4.pth", (), (61.38, 71.439, 89.666)),
    ("espnet", f"{SKD}/espnet_kd_sd_unlabelled_65.1.pth", (), (65.13, 75.059, 90.833)),
    ("espnet_c", f"{SKD}/espnet_c_base_56.7.pth", (), (56.75, 67.998, 87.716)),
    ("espnet_c", f"{SKD}/espnet_c_kd_sd_60.3.pth", (), (60.35, 73.537, 87.863)),
    # Mehta et al. (2018) report 55.64 and 68.30 with void counted. Without void and its output the mIoU is 57.26.
    ("espnet", MEHTA, ("void=counted",), (55.65, 68.303, 84.38)),
    ("espnet", MEHTA, (), (57.26, 70.820, 87.650)),
]
MEHTA_IOU = (91.61, 73.83, 26.85, 93.39, 77.25, 66.37, 30.94, 15.86, 73.70, 36.39, 43.64)


def make_arguments(published_files: Path, model: str, file: str, *overrides: str) -> tuple[str, ...]:
    return (
        "dataset=camvid", f"dataset.root={published_files / 'data/camvid'}", "split=test", f"model={model}",
        f"checkpoint={published_files / file}", "accelerator=cpu", *overrides,
    )  # fmt: skip


def check_scores(
    result: Result, output: Path, checkpoint: Path, expected: tuple[float, float, float]
) -> dict[str, Any]:
    """Check the command's last line and its evaluation.json against the expected percentages; return the latter."""
    assert result.code == 0, result.err
    evaluation: dict[str, Any] = json.loads((output / "evaluation.json").read_text())
    scores = [100 * evaluation[key] for key in ("miou", "class_accuracy", "pixel_accuracy")]
    assert scores == pytest.approx(expected, abs=0.01)
    assert result.out.splitlines()[-1] == f"mIoU {scores[0]:.2f}"
    assert abs(scores[0] - expected[0]) < 0.005
    assert (evaluation["images"], evaluation["dataset"], evaluation["split"]) == (233, "CamVid", "test")
    assert evaluation["checkpoint_sha256"] == sha256(checkpoint)
    assert tuple(evaluation["iou"]) == CLASSES
    matrix = torch.tensor(evaluation["confusion_matrix"])
    assert matrix.sum() == (
        233 * 360 * 480 if len(matrix) == 12 else pytest.approx(233 * 360 * 480 * 0.96167, rel=1e-4)
    )
    assert Scores.from_confusion_matrix(matrix, 11).miou == pytest.approx(evaluation["miou"])
    return evaluation


def test_published_score_in_a_new_process(published_files: Path, tmp_path: Path) -> None:
    file = f"{SKD}/espnet_base_57.8.pth"
    arguments = make_arguments(published_files, "espnet", file, f"output_dir={tmp_path / 'scores'}")
    result = in_own_process("evaluate", *arguments, cwd=tmp_path, threads=2, timeout=600)
    assert result.out.splitlines()[-1] == "mIoU 57.83"
    check_scores(result, tmp_path / "scores", published_files / file, (57.83, 68.124, 88.353))


@pytest.mark.parametrize(("model", "file", "overrides", "expected"), PUBLISHED)
def test_published_scores(
    published_files: Path, command: Command, tmp_path: Path, model: str, file: str, overrides: tuple[str, ...],
    expected: tuple[float, float, float],
) -> None:  # fmt: skip
    result = command("evaluate", *make_arguments(published_files, model, file, f"output_dir={tmp_path}", *overrides))
    evaluation = check_scores(result, tmp_path, published_files / file, expected)
    assert evaluation["protocol"]["void"] == ("counted" if overrides else "ignored")
    if file == MEHTA and not overrides:
        assert [100 * iou for iou in evaluation["iou"].values()] == pytest.approx(MEHTA_IOU, abs=0.01)


@pytest.fixture
def mehta_network(published_files: Path) -> SegmentationModel:
    return load_network(ESPNet, {}, published_files / MEHTA, 11, Normalization((0, 0, 0), (1, 1, 1)))[0]


class OneImage(CamVid):
    """One image of the test split."""

    only: str

    def find_image_label_pairs(self, split: str) -> list[tuple[Path, Path]]:
        return [pair for pair in super().find_image_label_pairs(split) if pair[0].stem == self.only]


@pytest.mark.parametrize("name", ["0001TP_008550", "Seq05VD_f00120", "Seq05VD_f02100", "Seq05VD_f04080"])
def test_confusion_matrices_of_single_images(
    published_files: Path, mehta_network: SegmentationModel, name: str
) -> None:
    """Compare each pixel with the prediction of the author's code; ties may differ."""
    items = json.loads((published_files / "golden/espnet_golden.json").read_text())["camvid"]["items"]
    expected = next(item["confusion_12x12_rows_gt"] for item in items if item["name"] == f"camvid_{name}")
    image = type("One", (OneImage,), {"only": name})(published_files / "data/camvid", "test")
    matrix = compute_confusion_matrix(mehta_network, image, count_void=True)
    assert matrix.sum() == 360 * 480
    assert (matrix - torch.tensor(expected)).abs().sum() <= 20


def test_wrong_channel_order_lowers_the_score(published_files: Path, mehta_network: SegmentationModel) -> None:
    """Give RGB to a network trained on BGR, which costs about 25 points (30.9 on the whole split)."""
    images = CamVid(published_files / "data/camvid", "test")

    def compute_miou() -> float:
        return 100 * Scores.from_confusion_matrix(compute_confusion_matrix(mehta_network, images, limit=24), 11).miou

    with_bgr = compute_miou()
    assert 50 < with_bgr < 65
    mehta_network.normalization.bgr = False
    assert compute_miou() < with_bgr - 15
