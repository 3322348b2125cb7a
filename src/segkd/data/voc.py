"""PASCAL VOC 2012, segmentation: 2,913 photographs of things, 20 classes and background."""

from __future__ import annotations

from pathlib import Path

from segkd.data.base import FileDataset
from segkd.data.image_io import read_bytes, voc_color
from segkd.types import IGNORE_INDEX

CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


class VOC(FileDataset):
    """PASCAL VOC in its own layout, the folder `VOC2012`: `JPEGImages/`, `SegmentationClass/`, `ImageSets/Segmentation/*.txt`.

    Labels are places in a palette; 255, the rim of things, does not count. The statistics are ImageNet's, as is usual here.
    Everingham et al., *The PASCAL Visual Object Classes Challenge: A Retrospective*, IJCV 2015.
    """

    classes = CLASSES
    colors = tuple(voc_color(i) for i in range(len(CLASSES)))
    ids = {**{i: i for i in range(len(CLASSES))}, 255: IGNORE_INDEX}
    coding = "palette"
    mean = (123.675, 116.28, 103.53)
    std = (58.395, 57.12, 57.375)
    splits = ("train", "val", "trainval")
    combined_splits = {"trainval": ("train", "val")}
    size = (375, 500)
    download_hint = (
        "expected JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/ there; fetch VOCtrainval_11-May-2012.tar from "
        "host.robots.ox.ac.uk/pascal/VOC and give its VOCdevkit/VOC2012"
    )

    def image_label_pairs(self, part: str) -> list[tuple[Path, Path]]:
        if not self._list(part).is_file():
            return []
        names = read_bytes(self._list(part)).decode(errors="replace").split()
        images, labels = self.root / "JPEGImages", self.root / "SegmentationClass"
        return [(images / f"{name}.jpg", labels / f"{name}.png") for name in names]

    def labels_without_image(self, part: str) -> list[Path]:  # noqa: ARG002  the labels of all splits lie together
        labels = sorted((self.root / "SegmentationClass").glob("*.png"))
        return [label for label in labels if not (self.root / "JPEGImages" / f"{label.stem}.jpg").exists()]

    def source_files(self) -> list[Path]:
        lists = [self._list(part) for part in self.combined_splits.get(self.split, (self.split,))]
        return [*lists, *super().source_files()]

    def _list(self, part: str) -> Path:
        return self.root / "ImageSets" / "Segmentation" / f"{part}.txt"
