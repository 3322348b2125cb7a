"""A folder of unlabeled images for distillation."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np

from segkd.data.base import Sample
from segkd.data.discovery import describe_left_out, find_images
from segkd.data.image_io import IMAGE_SUFFIXES, read_image
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX

log = logging.getLogger(__name__)


class UnlabeledImages:
    """All images under a folder, sorted by path; every label is IGNORE_INDEX.

    Images are resized to the height of the labeled images, so that objects have about the same size in both.

    Args:
        root: The folder.
        height: Height in pixels; the width keeps the aspect ratio.

    Raises:
        UserError: The folder does not exist or has no image; on access, a file is damaged.
    """

    def __init__(self, root: Path, height: int) -> None:
        if not root.is_dir():
            raise UserError(f"data.unlabeled={root} is no folder; give one with images")
        self.height = height
        found = find_images(root)
        self.files = found.paths
        if not self.files:
            raise UserError(
                f"data.unlabeled={root} holds no image ({', '.join(IMAGE_SUFFIXES)}); give a folder with images"
            )
        for sentence in describe_left_out(found):
            log.warning("%s", sentence)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        image = read_image(self.files[index], cv2.IMREAD_COLOR)[..., ::-1]
        width = max(1, round(image.shape[1] * self.height / image.shape[0]))
        interpolation = cv2.INTER_AREA if self.height < image.shape[0] else cv2.INTER_LINEAR
        image = cv2.resize(image, (width, self.height), interpolation=interpolation).astype(np.uint8, copy=False)
        return Sample(image, np.full(image.shape[:2], IGNORE_INDEX, np.uint8))
