"""Inference modes against plain loops, with networks whose logits are known."""

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

from segkd.models.base import Normalization, SegmentationModel
from segkd.models.espnet import ESPNet, ESPNetC
from segkd.models.inference import (
    BAND_ROWS,
    infer_half_resolution,
    infer_multi_scale_flip,
    infer_sliding_window,
    infer_whole_image,
    make_inferer,
    slide_window,
)
from segkd.models.pretrained import load_network
from segkd.types import FeatureInfo


class PositionDependent(SegmentationModel):
    """A network whose logits depend on the pixel and on its position in the window."""

    min_size = 1

    def __init__(self, slope: float = 1.0, align_corners: bool = False) -> None:
        super().__init__(2, Normalization((0, 0, 0), (1, 1, 1)), {"kd_logits": FeatureInfo(2, 1)})
        self.slope, self.align_corners = slope, align_corners
        self.sizes: list[tuple[int, int]] = []

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        height, width = images.shape[-2:]
        self.sizes.append((height, width))
        ramp = torch.linspace(0, 1, width).expand(len(images), 1, height, width)
        logits = torch.cat([images[:, :1], images[:, 1:2] + self.slope * ramp], 1)
        return logits, {"kd_logits": logits}


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 20, 27)


def test_windows_of_a_position_independent_network_equal_the_whole_image(images: Tensor) -> None:
    """Check windows smaller and larger than the image."""
    network = PositionDependent(slope=0)
    for window in ((8, 10), (20, 27), (50, 7), (1, 1)):
        for overlap in (0, 0.34, 0.9):
            torch.testing.assert_close(
                infer_sliding_window(window, overlap, network, images), infer_whole_image(network, images)
            )


def test_logits_are_averaged_where_windows_overlap(images: Tensor) -> None:
    """27 columns in windows of 10 with steps of 6: at 0, 6, 12, and the last from 17."""
    network = PositionDependent()
    expected = torch.zeros(2, 2, 20, 27, dtype=torch.float64)
    for y in range(20):
        for x in range(27):
            lefts = [left for left in (0, 6, 12, 17) if left <= x < left + 10]
            mean_ramp = sum((x - left) / 9 for left in lefts) / len(lefts)
            expected[:, 0, y, x] = images[:, 0, y, x]
            expected[:, 1, y, x] = images[:, 1, y, x] + mean_ramp
    logits = infer_sliding_window((8, 10), 0.34, network, images)
    torch.testing.assert_close(logits.double(), expected, rtol=0, atol=1e-5)
    assert set(network.sizes) == {(8, 10)}
    assert len(network.sizes) == 4 * 4
    other = infer_sliding_window((8, 10), 0.5, network, images).double()
    assert (other - expected).abs().max() > 0.05, "another overlap gives another mean"


def stitch_at_once(window: tuple[int, int], overlap: float, network: SegmentationModel, images: Tensor) -> Tensor:
    """The sum of the logits of all windows at the image's size, by the number of windows at each pixel."""
    height, width = images.shape[-2:]
    total, counts = torch.zeros(len(images), network.num_classes, height, width), torch.zeros(1, 1, height, width)
    step_y, step_x = (max(1, int(side * (1 - overlap))) for side in window)
    tops = dict.fromkeys(min(top, height - window[0]) for top in range(0, height - window[0] + step_y, step_y))
    lefts = dict.fromkeys(min(left, width - window[1]) for left in range(0, width - window[1] + step_x, step_x))
    for top in tops:
        for left in lefts:
            region = (..., slice(top, top + window[0]), slice(left, left + window[1]))
            total[region] += infer_whole_image(network, images[region])
            counts[region] += 1
    return total / counts


@pytest.mark.parametrize("overlap", [0, 0.34, 0.8])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_bands_of_windows_are_the_bits_of_all_windows_at_once(overlap: float, layout: torch.memory_format) -> None:
    """Images of 8 bits, also as a video or an image file holds them; 151 rows are bands of 32 or less."""
    network = ESPNetC(5, Normalization((110, 110, 110), (55, 55, 55)), p=1, q=1).eval()
    pixels = torch.randint(0, 256, (1, 3, 151, 190), dtype=torch.uint8)
    with torch.no_grad():
        expected = stitch_at_once((96, 80), overlap, network, pixels)
        bands = [*slide_window((96, 80), overlap, network, pixels.contiguous(memory_format=layout))]
        assert torch.equal(torch.cat(bands, 2), expected)
        assert torch.equal(infer_sliding_window((96, 80), overlap, network, pixels), expected)
        assert not torch.equal(stitch_at_once((96, 80), overlap / 2 + 0.1, network, pixels), expected)
    assert max(band.shape[2] for band in bands) <= BAND_ROWS < 96


def test_flipped_logits_are_flipped_back(images: Tensor) -> None:
    """Compare with the mean of two probabilities at each pixel."""
    network = PositionDependent()
    left_to_right = torch.linspace(0, 1, 27)
    p = [
        torch.stack([images[:, 0], images[:, 1] + ramp], 1).softmax(1)
        for ramp in (left_to_right, left_to_right.flip(0))
    ]
    logits = infer_multi_scale_flip(infer_whole_image, [1], True, network, images)
    torch.testing.assert_close(logits.softmax(1), (p[0] + p[1]) / 2)
    assert not torch.allclose(p[0], p[1], atol=0.05)


@pytest.mark.parametrize("align_corners", [False, True])
def test_scales_are_averaged_at_the_image_size(images: Tensor, align_corners: bool) -> None:
    network = PositionDependent(align_corners=align_corners)
    logits = infer_multi_scale_flip(infer_whole_image, [1, 0.5, 1.5], False, network, images)
    assert network.sizes == [(20, 27), (10, 14), (30, 40)]
    expected = torch.zeros_like(logits)
    for size in tuple(network.sizes):
        scaled = F.interpolate(images, size, mode="bilinear", align_corners=False)
        output = F.interpolate(network(scaled).logits, (20, 27), mode="bilinear", align_corners=align_corners)
        expected += output.softmax(1) / 3
    torch.testing.assert_close(logits.exp(), expected)


def test_defaults_give_whole_image_inference() -> None:
    assert make_inferer(None, 0.34, [1.0], False) is infer_whole_image
    inferer = make_inferer((8, 8), 0.34, [0.5, 1], True)
    assert isinstance(inferer, partial)
    network = PositionDependent()
    inferer(network, torch.rand(1, 3, 16, 16))
    assert set(network.sizes) == {(8, 8)}
    assert len(network.sizes) == 2 * (1 + 9)


@pytest.mark.published
@pytest.mark.parametrize("image", ["frankfurt_000000_000294", "frankfurt_000000_000576"])
@pytest.mark.parametrize("q", [3, 8])
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_half_resolution_equals_the_authors_code_on_cityscapes(
    published_files: Path, part: str, q: int, image: str
) -> None:
    """Compare classes at 2048×1024 with those of the author's code, each repeated four times."""
    name = f"city_{part}_q{q}_{image}"
    file = published_files / f"weights/espnet-authors/{part}/espnet_p_2_q_{q}.pth"
    family = ESPNet if part == "decoder" else ESPNetC
    network = load_network(family, {"p": 2, "q": q}, file, 19, Normalization((0, 0, 0), (1, 1, 1)))[0].eval()
    photograph = cv2.imread(str(published_files / f"data/cityscapes-samples/{image}_leftImg8bit.png"))[..., ::-1].copy()
    pixels = torch.from_numpy(photograph).permute(2, 0, 1)[None]
    with torch.no_grad():
        classes = infer_half_resolution(network, pixels).max(1).indices[0].to(torch.uint8)
        full = infer_whole_image(network, pixels).max(1).indices[0].to(torch.uint8)
    assert classes.shape == (1024, 2048)
    small = classes[::2, ::2].contiguous().numpy()
    assert np.array_equal(small.repeat(2, 0).repeat(2, 1), classes)
    if part == "encoder":
        items = json.loads((published_files / "golden/espnet_golden.json").read_text())["cityscapes"]["items"]
        expected = next(item for item in items if item["name"] == name)[
            "argmax_sha256_after_x8_bilinear_align_corners_True"
        ]
        assert hashlib.sha256(small.tobytes()).hexdigest() == expected
        return
    golden = cv2.imread(str(published_files / f"golden/{name}_argmax.png"), cv2.IMREAD_UNCHANGED)
    assert (small != golden).sum() <= 100, "except for ties"
    assert (full.numpy()[::2, ::2] != golden).mean() > 0.01, "full size gives other classes"
