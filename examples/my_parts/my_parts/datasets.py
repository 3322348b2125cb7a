"""A dataset of one's own."""

import numpy as np

from segkd.data.base import Sample, SegmentationDataset
from segkd.types import IGNORE_INDEX


class Disks(SegmentationDataset):
    """Bright disks on a noisy background, drawn in memory."""

    classes = ("background", "disk")
    colors = ((40, 40, 40), (230, 180, 60))
    label_map = {0: 0, 1: 1, IGNORE_INDEX: IGNORE_INDEX}
    mean, std = (90.0, 90.0, 90.0), (50.0, 50.0, 50.0)
    splits = ("train", "val")
    size = (64, 96)

    def __init__(self, split: str, images: int = 16) -> None:
        super().__init__(split)
        self.images = images

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> Sample:
        random = np.random.default_rng([self.splits.index(self.split), index])
        rows, columns = np.indices(self.size)
        center, radius = random.uniform(16, 48, 2), random.uniform(8, 16)
        label = ((rows - center[0]) ** 2 + (columns - center[1]) ** 2 < radius**2).astype(np.uint8)
        image = random.normal(70, 30, (*self.size, 3)) + 90 * label[..., None]
        return Sample(image.clip(0, 255).astype(np.uint8), label)

    def get_name(self, index: int) -> str:
        return f"{self.split}_{index}"
