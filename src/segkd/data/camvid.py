"""CamVid in the SegNet split: 701 street scenes of 480×360 from four video sequences, 11 classes.

The splits are not independent. Train (367 images) and test (233) share the sequence 0001TP: its test frames begin 30 frames
after its training frames end; only Seq05VD (171 test images) is unseen. The validation split (101) is every second frame of
seven seconds in the middle of the training sequence 0016E5: mIoU on it is about 13 points higher than on test, and choosing
hyper-parameters by it amounts to choosing them on training data.
"""

from __future__ import annotations

from pathlib import Path

from segkd.data.base import FileDataset
from segkd.data.discovery import FoundImages, find_images
from segkd.data.label_names import find_unpaired_labels, pair_with_labels
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX

_REDEFINED_SPLITS = ("train", "val")  # by `held_out`

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
    """CamVid in the layout of the SegNet tutorial: `train/ trainannot/ val/ valannot/ test/ testannot/`.

    Brostow et al., *Semantic object classes in video*, 2009; split of Badrinarayanan et al. (SegNet), 2015.

    Args:
        root: Folder of the dataset.
        split: One of `splits`.
        held_out: A sequence of the training split (0001TP, 0006R0, 0016E5). `val` becomes this sequence and `train` the rest:
            use it to choose hyper-parameters, since `val` itself is part of a training sequence.
        complete: Raise an error if files of the split are missing.

    Raises:
        UserError: See `FileDataset`; or there is no such sequence.
    """

    classes = CLASSES
    colors = COLORS
    label_map = {**{i: i for i in range(len(CLASSES))}, 11: IGNORE_INDEX}
    mean = (105.033, 108.409, 110.331)
    std = (78.304, 79.461, 78.341)
    splits = ("train", "val", "test", "trainval")
    combined_splits = {"trainval": ("train", "val")}
    size = (360, 480)
    download_hint = "get it with `python -m segkd.download what=camvid`"

    def __init__(self, root: str | Path | None, split: str, held_out: str | None = None, complete: bool = True) -> None:
        self.held_out = held_out
        super().__init__(root, split, complete)

    @property
    def display_name(self) -> str:
        """CamVid, and the sequence that is held out."""
        return f"CamVid without {self.held_out}" if self.held_out and self.split != "test" else "CamVid"

    def find_image_label_pairs(self, split: str) -> list[tuple[Path, Path]]:
        """Pair `SPLIT/*` with `SPLITannot/*.png`."""
        if self.held_out is not None and split in _REDEFINED_SPLITS:
            folder, images = "train", self._select_by_sequence(self.held_out, split)
        else:
            folder, images = split, self.find_images(split).paths
        return pair_with_labels(images, self.root / folder, self.root / f"{folder}annot")

    def find_labels_without_image(self, split: str) -> list[Path]:
        """Return the files of `SPLITannot` that have no image."""
        labels = self.root / f"{split}annot"
        pairs = pair_with_labels(self.find_images(split).paths, self.root / split, labels)
        return find_unpaired_labels(pairs, labels, recursive=False)

    def get_sequence(self, index: int) -> str:
        """Return the name of the video sequence."""
        return _parse_sequence(self.files[index][0])

    def find_images(self, split: str) -> FoundImages:
        """Return the images of `SPLIT`, and what is left out."""
        # The published files are PNG; a user's copy may be JPEG, which is smaller.
        return find_images(self.root / split, recursive=False)

    def _select_by_sequence(self, held_out: str, split: str) -> list[Path]:
        images = self.find_images("train").paths
        sequences = {_parse_sequence(image) for image in images}
        if held_out not in sequences:
            raise UserError(
                f"dataset.held_out={held_out} is not a sequence of the training split in {self.root}; "
                f"it has {', '.join(sorted(sequences))}"
            )
        return [image for image in images if (_parse_sequence(image) == held_out) == (split == "val")]


def _parse_sequence(image: Path) -> str:
    return image.name.partition("_")[0]
