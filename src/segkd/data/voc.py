"""PASCAL VOC 2012 segmentation: 2,913 photographs, 20 object classes and background."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from segkd.data.base import FileDataset
from segkd.data.discovery import FoundImages, find_images
from segkd.data.image_io import IMAGE_SUFFIXES, make_voc_color, read_bytes
from segkd.types import IGNORE_INDEX

log = logging.getLogger(__name__)

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
        """Pair the images that the list of the split names with their labels.

        A line is a name, or the paths of an image and of its label below the folder of the dataset. What follows a name is not read.
        """
        names_file = self._get_names_file(split)
        if not names_file.is_file():
            return []
        pairs, unread = [], []
        for line in filter(None, map(str.strip, _decode(read_bytes(names_file)).splitlines())):
            name, *rest = line.split()
            if rest and all(word.lower().endswith(IMAGE_SUFFIXES) for word in (name, rest[0])):
                pairs.append((self.root / name.lstrip("/"), self.root / rest[0].lstrip("/")))
                continue
            if rest and self._find_image(line).exists():
                name = line
            elif rest:
                unread.append(rest[0])
            pairs.append((self._find_image(name), _find_file(self.root / "SegmentationClass" / name, (".png", ".PNG"))))
        if unread:
            more = f", and {len(unread) - 1} more," if len(unread) > 1 else ""
            log.warning("%s: a line is the name of an image; '%s' after it%s is not read", names_file, unread[0], more)
        return pairs

    def find_images(self, split: str) -> FoundImages:  # noqa: ARG002  all splits share one folder of images
        """Return the files that lie in place of images that the lists name, and are not read; `files` has those that are."""
        missing = {image.stem for image, _ in self.files if not image.exists()}
        left_out = find_images(self.root / "JPEGImages", recursive=False).left_out if missing else []
        return FoundImages([], [path for path in left_out if path.stem in missing], [], [])

    def find_labels_without_image(self, split: str) -> list[Path]:  # noqa: ARG002  all splits share one label folder
        """Return the labels, of any split, that have no image."""
        labels = find_images(self.root / "SegmentationClass", recursive=False).paths
        return [
            label for label in labels if label.suffix.lower() == ".png" and not self._find_image(label.stem).exists()
        ]

    def _find_image(self, name: str) -> Path:
        suffixes = (".jpg", *IMAGE_SUFFIXES)
        return _find_file(self.root / "JPEGImages" / name, (*suffixes, *map(str.upper, suffixes)))

    def list_source_files(self) -> list[Path]:
        """Return the lists of names, the images and the labels."""
        splits = self.combined_splits.get(self.split, (self.split,))
        return [*map(self._get_names_file, splits), *super().list_source_files()]

    def _get_names_file(self, split: str) -> Path:
        return self.root / "ImageSets" / "Segmentation" / f"{split}.txt"


def _decode(content: bytes) -> str:
    is_utf16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")  # as PowerShell writes it
    return content.decode("utf-16" if is_utf16 else "utf-8-sig", errors="replace")


def _find_file(stem: Path, suffixes: Sequence[str]) -> Path:
    """Return the first file that exists of a stem and these suffixes; that of the first suffix if none does."""
    paths = [stem.with_name(f"{stem.name}{suffix}") for suffix in suffixes]
    return next((path for path in paths if path.exists()), paths[0])
