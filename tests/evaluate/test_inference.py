"""Views against loops that say the same in other words, with networks whose answers are known."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.evaluate.inference import half_resolution, make_inferer, multi_scale_flip, sliding_window, whole_image
from segkd.models.base import Normalization, SegmentationModel
from segkd.models.checkpoint_io import load_network
from segkd.models.espnet import ESPNet, ESPNetC
from segkd.types import FeatureInfo


class Eccentric(SegmentationModel):
    """Scores that depend on the pixel and on its place in the window that the network sees."""

    min_size = 1

    def __init__(self, place: float = 1.0, align_corners: bool = False) -> None:
        super().__init__(2, Normalization((0, 0, 0), (1, 1, 1)), {"scores": FeatureInfo(2, 1)})
        self.place, self.align_corners = place, align_corners
        self.sizes: list[tuple[int, int]] = []

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        height, width = images.shape[-2:]
        self.sizes.append((height, width))
        across = torch.linspace(0, 1, width).expand(len(images), 1, height, width)
        logits = torch.cat([images[:, :1], images[:, 1:2] + self.place * across], 1)
        return logits, {"scores": logits}


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 20, 27)


def test_windows_that_agree_give_the_whole(images: Tensor) -> None:
    """Where place does not matter; of every size, smaller than the image or larger."""
    network = Eccentric(place=0)
    for window in ((8, 10), (20, 27), (50, 7), (1, 1)):
        for overlap in (0, 0.34, 0.9):
            torch.testing.assert_close(sliding_window(window, overlap, network, images), whole_image(network, images))


def test_windows_are_averaged_where_they_overlap(images: Tensor) -> None:
    """27 columns in windows of 10 with steps of 6: at 0, 6, 12, and the last from 17."""
    network = Eccentric()
    expected = torch.zeros(2, 2, 20, 27, dtype=torch.float64)
    for y in range(20):
        for x in range(27):
            lefts = [left for left in (0, 6, 12, 17) if left <= x < left + 10]
            place = sum((x - left) / 9 for left in lefts) / len(lefts)
            expected[:, 0, y, x] = images[:, 0, y, x]
            expected[:, 1, y, x] = images[:, 1, y, x] + place
    found = sliding_window((8, 10), 0.34, network, images)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
    assert set(network.sizes) == {(8, 10)}
    assert len(network.sizes) == 4 * 4
    other = sliding_window((8, 10), 0.5, network, images).double()
    assert (other - expected).abs().max() > 0.05, "another overlap is another mean"


def test_the_mirrored_image_is_mirrored_back(images: Tensor) -> None:
    """By hand: the mean of two probabilities at each place."""
    network = Eccentric()
    across = torch.linspace(0, 1, 27)
    p = [torch.stack([images[:, 0], images[:, 1] + ramp], 1).softmax(1) for ramp in (across, across.flip(0))]
    found = multi_scale_flip(whole_image, [1], True, network, images)
    torch.testing.assert_close(found.softmax(1), (p[0] + p[1]) / 2)
    assert not torch.allclose(p[0], p[1], atol=0.05)


@pytest.mark.parametrize("align_corners", [False, True])
def test_scales_are_averaged_at_the_image_s_size(images: Tensor, align_corners: bool) -> None:
    network = Eccentric(align_corners=align_corners)
    found = multi_scale_flip(whole_image, [1, 0.5, 1.5], False, network, images)
    assert network.sizes == [(20, 27), (10, 14), (30, 40)]
    expected = torch.zeros_like(found)
    for size in tuple(network.sizes):
        scaled = F.interpolate(images, size, mode="bilinear", align_corners=False)
        said = F.interpolate(network(scaled).logits, (20, 27), mode="bilinear", align_corners=align_corners)
        expected += said.softmax(1) / 3
    torch.testing.assert_close(found.exp(), expected)


def test_choices_that_change_nothing_are_the_whole_image() -> None:
    assert make_inferer(None, 0.34, [1.0], False) is whole_image
    both = make_inferer((8, 8), 0.34, [0.5, 1], True)
    assert isinstance(both, partial)
    network = Eccentric()
    both(network, torch.rand(1, 3, 16, 16))
    assert set(network.sizes) == {(8, 8)}
    assert len(network.sizes) == 2 * (1 + 9)


@pytest.mark.published
@pytest.mark.parametrize("image", ["frankfurt_000000_000294", "frankfurt_000000_000576"])
@pytest.mark.parametrize("q", [3, 8])
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_half_size_is_the_author_s_way_on_cityscapes(published_files: Path, part: str, q: int, image: str) -> None:
    """From the photograph of 2048×1024 to classes of that size: what the author's code says, each class four times."""
    name = f"city_{part}_q{q}_{image}"
    file = published_files / f"weights/espnet-authors/{part}/espnet_p_2_q_{q}.pth"
    family = ESPNet if part == "decoder" else ESPNetC
    network = load_network(family, {"p": 2, "q": q}, file, 19, Normalization((0, 0, 0), (1, 1, 1)))[0].eval()
    photograph = cv2.imread(str(published_files / f"data/cityscapes-samples/{image}_leftImg8bit.png"))[..., ::-1].copy()
    pixels = torch.from_numpy(photograph).permute(2, 0, 1)[None]
    with torch.no_grad():
        classes = half_resolution(network, pixels).max(1).indices[0].to(torch.uint8)
        full = whole_image(network, pixels).max(1).indices[0].to(torch.uint8)
    assert classes.shape == (1024, 2048)
    small = classes[::2, ::2].contiguous().numpy()
    assert np.array_equal(small.repeat(2, 0).repeat(2, 1), classes)
    if part == "encoder":
        items = json.loads((published_files / "golden/espnet_golden.json").read_text())["cityscapes"]["items"]
        told = next(item for item in items if item["name"] == name)[
            "argmax_sha256_after_x8_bilinear_align_corners_True"
        ]
        assert hashlib.sha256(small.tobytes()).hexdigest() == told
        return
    golden = cv2.imread(str(published_files / f"golden/{name}_argmax.png"), cv2.IMREAD_UNCHANGED)
    assert (small != golden).sum() <= 100, "but for ties"
    assert (full.numpy()[::2, ::2] != golden).mean() > 0.01, "at full size it says something else"
