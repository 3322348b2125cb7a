"""Cityscapes: street scenes of 2048×1024 from 50 cities, 19 classes."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from segkd.data.base import FileDataset
from segkd.data.image_io import decode_image
from segkd.types import IGNORE_INDEX

CLASSES = (
    "road",
    "sidewalk",
    "building",
    "wall",
    "fence",
    "pole",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
)
_LABEL_IDS = (7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33)  # of the classes, in their order
_LAST_LABEL_ID = 33
_NO_INSTANCE_BELOW = 1000  # an instance's id is its label id × 1000 and its number; groups have the bare label id
_FOLDERS = {"train_extra": "gtCoarse"}  # 19,998 coarsely labelled images; all other splits lie in gtFine


class Cityscapes(FileDataset):
    """Cityscapes in its own layout: `leftImg8bit/SPLIT/CITY/*_leftImg8bit.png` and `gtFine` (`gtCoarse` for `train_extra`).

    Labels are read from `*_labelTrainIds.png` where these exist, else from `*_labelIds.png` by table.
    Cordts et al., *The Cityscapes Dataset for Semantic Urban Scene Understanding*, CVPR 2016.
    """

    classes = CLASSES
    colors = (
        (128, 64, 128),
        (244, 35, 232),
        (70, 70, 70),
        (102, 102, 156),
        (190, 153, 153),
        (153, 153, 153),
        (250, 170, 30),
        (220, 220, 0),
        (107, 142, 35),
        (152, 251, 152),
        (70, 130, 180),
        (220, 20, 60),
        (255, 0, 0),
        (0, 0, 142),
        (0, 0, 70),
        (0, 60, 100),
        (0, 80, 100),
        (0, 0, 230),
        (119, 11, 32),
    )
    ids = {
        **dict.fromkeys((*range(_LAST_LABEL_ID + 1), 255), IGNORE_INDEX),  # 255: the licence plate's id -1, as 8 bits
        **{label_id: i for i, label_id in enumerate(_LABEL_IDS)},
    }
    train_ids: ClassVar[dict[int, int]] = {**{i: i for i in range(len(CLASSES))}, 255: IGNORE_INDEX}
    mean = (73.158, 82.909, 72.392)
    std = (47.675, 48.494, 47.736)  # over pixels, as widely published; not measured here
    splits = ("train", "val", "test", "train_extra")
    size = (1024, 2048)
    kind = "labelIds"
    download_hint = (
        "expected leftImg8bit/ and gtFine/ there; register at cityscapes-dataset.com and fetch leftImg8bit_trainvaltest.zip and "
        "gtFine_trainvaltest.zip with its tool csDownload (pip install cityscapesscripts)"
    )

    def image_label_pairs(self, part: str) -> list[tuple[Path, Path]]:
        images = sorted((self.root / "leftImg8bit" / part).glob("*/*_leftImg8bit.png"))
        labels = [self._label(image, part, "labelTrainIds") for image in images]
        if any(label.is_file() for label in labels):
            self.ids, self.kind = self.train_ids, "labelTrainIds"
        else:
            labels = [self._label(image, part, self.kind) for image in images]
        return list(zip(images, labels, strict=True))

    def labels_without_image(self, part: str) -> list[Path]:
        folder = self.root / _FOLDERS.get(part, "gtFine") / part
        mine = {label for _, label in self.image_label_pairs(part)}
        return [label for label in sorted(folder.glob(f"*/*_{self.kind}.png")) if label not in mine]

    def sequence(self, index: int) -> str:
        """The city; its images come from several drives."""
        return self.name(index).partition("_")[0]

    def instances(self, index: int) -> npt.NDArray[np.int64]:
        """Instances of an image, H W: class × 1000 + number; -1 where there is none that counts.

        Raises:
            UserError: `*_instanceIds.png` is missing or damaged.
        """
        ids = decode_image(self._label(self.files[index][0], self.split, "instanceIds"), cv2.IMREAD_UNCHANGED).astype(
            np.int64
        )
        to_class = np.full(256, IGNORE_INDEX)
        to_class[list(_LABEL_IDS)] = range(len(CLASSES))
        label, number = np.divmod(ids, _NO_INSTANCE_BELOW)
        classes = to_class[label]
        return np.where((label > 0) & (classes != IGNORE_INDEX), classes * _NO_INSTANCE_BELOW + number, -1)

    def _label(self, image: Path, part: str, kind: str) -> Path:
        folder = _FOLDERS.get(part, "gtFine")
        stem = image.name.removesuffix("_leftImg8bit.png")
        return self.root / folder / part / image.parent.name / f"{stem}_{folder}_{kind}.png"
