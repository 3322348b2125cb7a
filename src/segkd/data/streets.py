"""Synthetic street scenes with CamVid's 11 classes, painted in memory, for the quickstart and tests.

A scene is a function of its seed and number. Colors overlap between classes, light and weather vary, and objects shrink with
distance and occlude each other, so a small network needs shape and context and does not reach a perfect score. Results on
these scenes test the code; they do not transfer to real streets.
"""

from __future__ import annotations

from segkd.data.base import Sample, SegmentationDataset
from segkd.data.camvid import CLASSES, COLORS
from segkd.data.street_scene import StreetScene
from segkd.types import IGNORE_INDEX

_FIRST_SCENE = {"train": 0, "val": 100_000, "test": 200_000}  # far apart, so that no scene is in two splits


class Streets(SegmentationDataset):
    """Synthetic street scenes of 128×192.

    Args:
        split: train, val or test; each has its own scenes.
        images: Number of training scenes; other splits have a quarter of it, at least 64.
        scene_seed: Seed of all scenes.

    Raises:
        UserError: There is no such split.
    """

    classes = CLASSES
    colors = COLORS
    label_map = {**{i: i for i in range(len(CLASSES))}, IGNORE_INDEX: IGNORE_INDEX}
    mean = (122.0, 125.0, 125.0)
    std = (51.5, 48.5, 50.5)
    splits = ("train", "val", "test")
    size = (128, 192)

    def __init__(self, split: str, images: int = 256, scene_seed: int = 0) -> None:
        super().__init__(split)
        self.images = images if split == "train" else max(64, images // 4)
        self.scene_seed = scene_seed
        self._samples: dict[int, Sample] = {}

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.images:
            raise IndexError(index)
        if index not in self._samples:
            scene = StreetScene(self.size, self.scene_seed, _FIRST_SCENE[self.split] + index)
            self._samples[index] = scene.to_sample()
        return self._samples[index]

    def list_contents(self) -> list[str]:
        """Return what the scenes are painted from."""
        return [f"{self.images} scenes of {self.split} from seed {self.scene_seed}"]

    def get_name(self, index: int) -> str:
        """Return split and index."""
        return f"{self.split}_{index:05d}"
