"""CamVid in the SegNet split: 701 street scenes of 480×360 from four drives, 11 classes.

The splits are not independent, and figures on them must be read so. Train (367 images) and test (233) share one drive:
the test part of 0001TP begins 30 frames after its training part ends; only Seq05VD (171 test images) was never seen. The
validation split (101) is every second frame of seven seconds in the middle of a training drive, 0016E5: it scores some 13
points above test, and choosing anything by it is choosing on training data.
"""

from __future__ import annotations

from pathlib import Path

from segkd.data.base import FileDataset
from segkd.types import IGNORE_INDEX

CLASSES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
COLORS = (
    (128, 128, 128),
    (128, 0, 0),
    (192, 192, 128),
    (128, 64, 128),
    (60, 40, 222),
    (128, 128, 0),
    (192, 128, 128),
    (64, 64, 128),
    (64, 0, 128),
    (64, 64, 0),
    (0, 128, 192),
)


class CamVid(FileDataset):
    """CamVid as the SegNet tutorial lays it out: `train/ trainannot/ val/ valannot/ test/ testannot/`.

    Brostow et al., *Semantic object classes in video*, 2009; split of Badrinarayanan et al. (SegNet), 2015.
    """

    classes = CLASSES
    colors = COLORS
    ids = {**{i: i for i in range(len(CLASSES))}, 11: IGNORE_INDEX}
    mean = (105.033, 108.409, 110.331)
    std = (78.304, 79.461, 78.341)
    splits = ("train", "val", "test", "trainval")
    together = {"trainval": ("train", "val")}
    size = (360, 480)
    how_to_get = "get it with `python -m segkd.download what=camvid`"

    def pairs(self, part: str) -> list[tuple[Path, Path]]:
        images = sorted((self.root / part).glob("*.png"))
        return [(image, self.root / f"{part}annot" / image.name) for image in images]

    def orphans(self, part: str) -> list[Path]:
        labels = sorted((self.root / f"{part}annot").glob("*.png"))
        return [label for label in labels if not (self.root / part / label.name).exists()]

    def sequence(self, index: int) -> str:
        """The drive."""
        return self.name(index).partition("_")[0]
