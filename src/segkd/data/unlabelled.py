"""A folder of images without labels, for distillation alone."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from segkd.data.base import Sample
from segkd.data.image_io import decode_image
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX

SUFFIXES = (".png", ".jpg", ".jpeg")


class UnlabelledImages:
    """All PNG and JPEG images under a folder, in the order of their paths; their labels are all IGNORE_INDEX.

    They are brought to one height, that of the labelled images, so that things are about as large in both.

    Args:
        root: the folder.
        height: pixels; the width follows.

    Raises:
        UserError: there is no such folder or no image in it; on access, a file is damaged.
    """

    def __init__(self, root: Path, height: int) -> None:
        if not root.is_dir():
            raise UserError(f"data.unlabelled={root} is no folder; give one with images")
        self.height = height
        self.files = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
        if not self.files:
            raise UserError(f"data.unlabelled={root} holds no image ({', '.join(SUFFIXES)}); give a folder with images")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        image = decode_image(self.files[index], cv2.IMREAD_COLOR)[..., ::-1]
        width = max(1, round(image.shape[1] * self.height / image.shape[0]))
        shrinks = self.height < image.shape[0]
        way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        image = cv2.resize(image, (width, self.height), interpolation=way).astype(np.uint8, copy=False)
        return Sample(image, np.full(image.shape[:2], IGNORE_INDEX, np.uint8))
