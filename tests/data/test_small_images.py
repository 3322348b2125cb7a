"""Images that are smaller than a network takes are counted before they are met."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from segkd.data.folder import Folder
from segkd.data.small_images import log_small_images
from segkd.data.streets import Streets

SIZES = ((40, 48), (20, 64), (64, 31), (32, 32))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    classes = "classes: [{name: a, id: 0}, {name: b, id: 1}]\nsize: [40, 48]\n"
    (tmp_path / "classes.yaml").write_text(classes + "mean: [9, 9, 9]\nstd: [9, 9, 9]\n")
    for kind in ("images", "labels"):
        (tmp_path / kind / "val").mkdir(parents=True)
    for number, size in enumerate(SIZES):
        name = f"val/{number}.png"
        cv2.imwrite(str(tmp_path / "images" / name), np.zeros((*size, 3), np.uint8))
        cv2.imwrite(str(tmp_path / "labels" / name), np.zeros(size, np.uint8))
    return Folder(tmp_path, "val")


def test_small_images_are_counted_with_the_first(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "segkd"):
        log_small_images(folder, 32, "ESPNet")
    assert caplog.messages == [
        f"2 of 4 images of val are smaller than the 32×32 pixels that ESPNet takes, the first is "
        f"{folder.root / 'images/val/1.png'} of 20×64; they are enlarged for it, and scores count their own pixels"
    ]


def test_nothing_is_said_of_images_that_are_large_enough(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    (folder.root / "images/val/0.png").write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING, "segkd"):
        log_small_images(folder, 20, "ESPNet")
        log_small_images(Streets("val"), 1000, "ESPNet")
    assert caplog.messages == []
