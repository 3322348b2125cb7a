"""Find images that are smaller than a network takes, by their headers."""

from __future__ import annotations

import logging
from pathlib import Path

from PIL import Image

from segkd.data.base import FileDataset, SegmentationDataset
from segkd.utils.threads import thread_map

log = logging.getLogger(__name__)

_WORKERS = 8


def log_small_images(dataset: SegmentationDataset, min_size: int, network: str) -> None:
    """Log how many images of a split have a side of fewer than `min_size` pixels, with the first; they will be enlarged.

    Args:
        dataset: the split; one without files is not looked at.
        min_size: least side that the network takes, in pixels.
        network: its name, for the log.
    """
    if not isinstance(dataset, FileDataset):
        return
    images = [image for image, _ in dataset.files]
    sizes = zip(images, thread_map(_read_size, images, _WORKERS, ""), strict=True)
    small = [(image, size) for image, size in sizes if size is not None and min(size) < min_size]
    if small:
        image, (width, height) = small[0]
        log.warning(
            "%d of %d images of %s are smaller than the %d×%d pixels that %s takes, the first is %s of %d×%d; they are enlarged "
            "for it, and scores count their own pixels",
            *(len(small), len(images), dataset.split, min_size, min_size, network, image, height, width),
        )


def _read_size(path: Path) -> tuple[int, int] | None:
    """Return width and height as the header gives them; None where Pillow cannot read it."""
    try:
        with Image.open(path) as image:
            return image.size
    except Exception:  # Pillow's parsers fail in many ways; the reading of the image itself reports what is wrong
        return None
