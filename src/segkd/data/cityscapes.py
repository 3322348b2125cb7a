"""Cityscapes: street scenes of 2048×1024 from 50 cities, 19 classes."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from segkd.data.base import FileDataset
from segkd.data.discovery import FoundImages, find_images
from segkd.data.image_io import read_image
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
_LABEL_IDS = (7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33)  # one per class
_LAST_LABEL_ID = 33
_INSTANCE_FACTOR = 1000  # an instance id is label id × 1000 + number; groups of objects have the label id alone
_FOLDERS = {"train_extra": "gtCoarse"}  # 19,998 coarsely labeled images; all other splits are in gtFine


class Cityscapes(FileDataset):
    """Cityscapes in its own layout: `leftImg8bit/SPLIT/CITY/*_leftImg8bit.png` and `gtFine` (`gtCoarse` for `train_extra`).

    Labels are read from `*_labelTrainIds.png` if these exist, otherwise from `*_labelIds.png`, whose ids are mapped.
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
    label_map = {
        **dict.fromkeys((*range(_LAST_LABEL_ID + 1), 255), IGNORE_INDEX),  # 255: license plate, id -1, in 8 bits
        **{label_id: i for i, label_id in enumerate(_LABEL_IDS)},
    }
    train_id_map: ClassVar[dict[int, int]] = {**{i: i for i in range(len(CLASSES))}, 255: IGNORE_INDEX}
    mean = (73.158, 82.909, 72.392)
    std = (47.675, 48.494, 47.736)  # over pixels, as widely published; not measured by segkd
    splits = ("train", "val", "test", "train_extra")
    size = (1024, 2048)
    label_kind = "labelIds"
    download_hint = (
        "expected leftImg8bit/ and gtFine/ there; register at cityscapes-dataset.com and fetch leftImg8bit_trainvaltest.zip and "
        "gtFine_trainvaltest.zip with its tool csDownload (pip install cityscapesscripts)"
    )

    def find_image_label_pairs(self, split: str) -> list[tuple[Path, Path]]:
        """Pair `leftImg8bit` with training ids, or with label ids."""
        images = self.find_images(split).paths
        labels = [self._get_label_path(image, split, "labelTrainIds") for image in images]
        if any(label.is_file() for label in labels):
            self.label_map, self.label_kind = self.train_id_map, "labelTrainIds"
        else:
            labels = [self._get_label_path(image, split, self.label_kind) for image in images]
        return list(zip(images, labels, strict=True))

    def find_labels_without_image(self, split: str) -> list[Path]:
        """Return the label files, of the kind in use, that have no image."""
        folder = self.root / _FOLDERS.get(split, "gtFine") / split
        paired = {label for _, label in self.find_image_label_pairs(split)}
        labels = find_images(folder).paths
        return [label for label in labels if label.stem.endswith(f"_{self.label_kind}") and label not in paired]

    def find_images(self, split: str) -> FoundImages:
        """Return the images of a split, and what is left out."""
        found = find_images(self.root / "leftImg8bit" / split)
        return found._replace(paths=[path for path in found.paths if path.stem.endswith("_leftImg8bit")])

    def get_sequence(self, index: int) -> str:
        """Return the city; its images come from several video sequences."""
        return self.get_name(index).partition("_")[0]

    def load_instances(self, index: int) -> npt.NDArray[np.int64]:
        """Load the instances of an image, H W: class × 1000 + number, or -1 where no evaluated instance is.

        Raises:
            UserError: `*_instanceIds.png` is missing or damaged.
        """
        path = self._get_label_path(self.files[index][0], self.split, "instanceIds")
        instance_ids = read_image(path, cv2.IMREAD_UNCHANGED).astype(np.int64)
        label_id_to_class = np.full(256, IGNORE_INDEX)
        label_id_to_class[list(_LABEL_IDS)] = range(len(CLASSES))
        label_ids, numbers = np.divmod(instance_ids, _INSTANCE_FACTOR)
        classes = label_id_to_class[label_ids]
        is_evaluated = (label_ids > 0) & (classes != IGNORE_INDEX)
        return np.where(is_evaluated, classes * _INSTANCE_FACTOR + numbers, -1)

    def _get_label_path(self, image: Path, split: str, kind: str) -> Path:
        folder = _FOLDERS.get(split, "gtFine")
        stem = image.stem.removesuffix("_leftImg8bit")
        return self.root / folder / split / image.parent.name / f"{stem}_{folder}_{kind}.png"
