"""PASCAL VOC 2012 segmentation: 2,913 photographs, 20 object classes and background."""

from __future__ import annotations

from pathlib import Path

from segkd.data.base import FileDataset
from segkd.data.image_io import make_voc_color, read_bytes
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

    Labels are palette indices; 255, the outline of objects, is ignored. Mean and std are those of ImageNet, as is customary.
    Everingham et al., *The PASCAL Visual Object Classes Challenge: A Retrospective*, IJCV 2015.
    """

    classes = CLASSES
    colors = tuple(make_voc_color(i) for i in range(len(CLASSES)))
    label_map = {**{i: i for i in range(len(CLASSES))}, 255: IGNORE_INDEX}
    label_encoding = "palette"
    mean = (123.675, 116.28, 103.53)
    std = (58.395, 57.12, 57.375)
    splits = ("train", "val", "trainval")
    combined_splits = {"trainval": ("train", "val")}
    size = (375, 500)
    download_hint = (
        "expected JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/ there; fetch VOCtrainval_11-May-2012.tar from "
        "host.robots.ox.ac.uk/pascal/VOC and give its VOCdevkit/VOC2012"
    )

    def find_image_label_pairs(self, split: str) -> list[tuple[Path, Path]]:
        """Pair the images that the list of the split names with their labels."""
        names_file = self._get_names_file(split)
        if not names_file.is_file():
            return []
        names = read_bytes(names_file).decode(errors="replace").split()
        images, labels = self.root / "JPEGImages", self.root / "SegmentationClass"
        return [(images / f"{name}.jpg", labels / f"{name}.png") for name in names]

    def find_labels_without_image(self, split: str) -> list[Path]:  # noqa: ARG002  all splits share one label folder
        """Return the labels, of any split, that have no image."""
        labels = sorted((self.root / "SegmentationClass").glob("*.png"))
        return [label for label in labels if not (self.root / "JPEGImages" / f"{label.stem}.jpg").exists()]

    def list_source_files(self) -> list[Path]:
        """Return the lists of names, the images and the labels."""
        splits = self.combined_splits.get(self.split, (self.split,))
        return [*map(self._get_names_file, splits), *super().list_source_files()]

    def _get_names_file(self, split: str) -> Path:
        return self.root / "ImageSets" / "Segmentation" / f"{split}.txt"
