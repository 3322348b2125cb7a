"""CamVid in the SegNet split: 701 street scenes of 480×360 from four drives, 11 classes.

The splits are not independent, and figures on them must be read so. Train (367 images) and test (233) share one drive:
the test part of 0001TP begins 30 frames after its training part ends; only Seq05VD (171 test images) was never seen. The
validation split (101) is every second frame of seven seconds in the middle of a training drive, 0016E5: it scores some 13
points above test, and choosing anything by it is choosing on training data.
"""

from __future__ import annotations

from pathlib import Path

from segkd.data.base import FileDataset
from segkd.data.unlabelled import SUFFIXES
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX

_FOLDED = ("train", "val")  # which a drive that is held out makes anew

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

    Args:
        root: the folder of the data set.
        split: one of `splits`.
        held_out: a drive of the training split (0001TP, 0006R0, 0016E5). Then `train` is the rest of it and `val` that drive:
            where to choose a recipe, since `val` itself is a piece of a training drive.
        complete: refuse a split that lacks files.

    Raises:
        UserError: as `FileDataset`; or there is no such drive.
    """

    classes = CLASSES
    colors = COLORS
    ids = {**{i: i for i in range(len(CLASSES))}, 11: IGNORE_INDEX}
    mean = (105.033, 108.409, 110.331)
    std = (78.304, 79.461, 78.341)
    splits = ("train", "val", "test", "trainval")
    combined_splits = {"trainval": ("train", "val")}
    size = (360, 480)
    download_hint = "get it with `python -m segkd.download what=camvid`"

    def __init__(self, root: str | Path | None, split: str, held_out: str | None = None, complete: bool = True) -> None:
        self.held_out = held_out
        super().__init__(root, split, complete)

    def display_name(self) -> str:
        return f"CamVid without {self.held_out}" if self.held_out and self.split != "test" else "CamVid"

    def image_label_pairs(self, part: str) -> list[tuple[Path, Path]]:
        if self.held_out is not None and part in _FOLDED:
            return self._fold(self.held_out, part)
        return [self._pair(image) for image in self._images(part)]

    def _images(self, part: str) -> list[Path]:
        """PNG as it comes; whoever copies it may have made them smaller."""
        return sorted(path for path in (self.root / part).glob("*") if path.suffix.lower() in SUFFIXES)

    def _pair(self, image: Path) -> tuple[Path, Path]:
        return image, self.root / f"{image.parent.name}annot" / f"{image.stem}.png"

    def _fold(self, held_out: str, part: str) -> list[tuple[Path, Path]]:
        images = self._images("train")
        if not any(_drive(image) == held_out for image in images):
            drives = ", ".join(sorted({_drive(image) for image in images}))
            raise UserError(
                f"dataset.held_out={held_out} is no drive of the training split in {self.root}; it has {drives}"
            )
        chosen = [image for image in images if (_drive(image) == held_out) == (part == "val")]
        return [self._pair(image) for image in chosen]

    def labels_without_image(self, part: str) -> list[Path]:
        pictured = {image.stem for image in self._images(part)}
        labels = sorted((self.root / f"{part}annot").glob("*.png"))
        return [label for label in labels if label.stem not in pictured]

    def sequence(self, index: int) -> str:
        """The drive."""
        return _drive(self.files[index][0])


def _drive(image: Path) -> str:
    return image.name.partition("_")[0]
