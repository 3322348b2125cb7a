"""The authors' checkpoints in several inference modes, on 24 evenly spaced images of CamVid's test split."""

from __future__ import annotations

from pathlib import Path

import pytest

from segkd.data.camvid import CamVid
from segkd.evaluate.loop import compute_confusion_matrices
from segkd.metrics import Scores
from segkd.models.base import Normalization
from segkd.models.espnet import ESPNetC
from segkd.models.inference import make_inferer
from segkd.models.pretrained import load_network

pytestmark = [pytest.mark.published, pytest.mark.timeout(300)]

FILE = "weights/skd-authors/camvid/espnet_c_kd_sd_60.3.pth"
INFERERS = {
    "whole": (make_inferer(None, 0, [1], False), 59.072),
    "flip": (make_inferer(None, 0, [1], True), 59.823),
    "window": (make_inferer((240, 320), 0.34, [1], False), 58.485),
    "scales": (make_inferer(None, 0, [0.75, 1, 1.25], True), 60.670),
}


@pytest.mark.parametrize("name", INFERERS)
def test_inference_modes(published_files: Path, name: str) -> None:
    """Compare with values measured once; the whole image is the published protocol, 60.35 on all 233 images."""
    inferer, expected = INFERERS[name]
    network = load_network(ESPNetC, {}, published_files / FILE, 11, Normalization((0, 0, 0), (1, 1, 1)))[0]
    matrices = compute_confusion_matrices(
        network, CamVid(published_files / "data/camvid", "test"), inferer=inferer, limit=24
    )
    assert 100 * Scores.from_confusion_matrix(matrices.sum(0), 11).miou == pytest.approx(expected, abs=0.01)
