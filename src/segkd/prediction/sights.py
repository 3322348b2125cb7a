"""What networks see in a file that somebody brings: pictures of an image, or a film of a clip, and how long each takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

import numpy as np
from PIL import Image

from segkd.data.reading import Array
from segkd.errors import UserError
from segkd.models.base import SegmentationModel
from segkd.prediction import writers
from segkd.prediction.frames import Frame, Frames, frames_of
from segkd.prediction.gallery import colored, gallery, overlaid
from segkd.prediction.pictures import Palette
from segkd.prediction.stream import label_batch

_LOOKS = 3  # at an image; the first also pays for what a network sets up for a new size
_MOST_PIXELS = 64_000_000  # of an image: a small file can hold more than the memory does
_FILM_WIDTH = 1920  # pixels


class Sight(NamedTuple):
    """What was seen."""

    pictures: dict[str, Array]
    """Caption → RGB, H W 3, the image itself first; of a clip, its last frame."""
    milliseconds: dict[str, float]
    """By network: from an image to its labels, the median over all looks."""
    film: Path | None
    """Of a clip: the pictures side by side."""


class Viewer(NamedTuple):
    """Networks that label whatever comes, and how that is shown."""

    networks: Mapping[str, SegmentationModel]
    palette: Palette
    opacity: float
    """Of the classes' colours over the image, 0..1."""
    longest: int
    """Pixels: images with a longer side are shrunk to it."""
    frames: int
    """No more of a clip than that."""

    def see(self, path: Path, film: Path) -> Sight:
        """An image, or a clip, whose film is written to `film`.

        Raises:
            UserError: it is neither, or too large, or PyAV is missing, which clips need.
        """
        frames = frames_of(str(path))
        return self._image(path, frames) if frames.rate is None else self._clip(path, frames, film)

    def _image(self, path: Path, frames: Frames) -> Sight:
        _check_pixels(path)
        for frame in frames:
            looks = [self._look(self._fitted(frame)) for _ in range(_LOOKS)]
            return Sight(looks[-1][0], _medians([seconds for _, seconds in looks]), None)
        raise _unreadable(path)

    def _clip(self, path: Path, frames: Frames, film: Path) -> Sight:
        taken: list[dict[str, float]] = []
        pictures: dict[str, Array] = {}
        assert frames.rate is not None
        with writers.film(film, frames.rate, _FILM_WIDTH) as write:
            for frame in islice(frames, self.frames):
                pictures, seconds = self._look(self._fitted(frame))
                write(frame.name, np.asarray(gallery({name: [p] for name, p in pictures.items()}, {}, scale=1)))
                taken.append(seconds)
            if not taken:
                raise _unreadable(path)
        return Sight(pictures, _medians(taken), film)

    def _look(self, frame: Frame) -> tuple[dict[str, Array], dict[str, float]]:
        """Pictures of a frame, by caption, and the seconds of each network."""
        pictures, seconds = {"image": frame.image}, {}
        for name, network in self.networks.items():
            began = perf_counter()
            (one,) = label_batch({name: network}, [frame], len(self.palette.classes))
            seconds[name] = perf_counter() - began
            colors = colored(one.labels[name], [*self.palette.classes.values()])
            pictures[name] = overlaid(frame.image, colors, self.opacity)
        return pictures, seconds

    def _fitted(self, frame: Frame) -> Frame:
        image = Image.fromarray(frame.image)
        image.thumbnail((self.longest, self.longest), Image.Resampling.LANCZOS)  # never enlarges
        return frame._replace(image=np.asarray(image))


def _check_pixels(path: Path) -> None:
    """By the header alone, before anything is decoded.

    Raises:
        UserError: it is no image, or one that would fill the memory.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
    except Image.DecompressionBombError as error:
        raise UserError(f"{path} is too large ({error}); shrink it") from None
    except (OSError, SyntaxError, ValueError):
        raise UserError(f"{path} is no image; give an image (PNG, JPEG) or a film") from None
    if width * height > _MOST_PIXELS:
        raise UserError(
            f"{path} has {width}×{height} pixels, more than the {_MOST_PIXELS // 10**6} million taken here; shrink it"
        )


def _medians(taken: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Milliseconds of each network over looks that say seconds."""
    return {name: 1e3 * median(seconds[name] for seconds in taken) for name in taken[0]}


def _unreadable(path: Path) -> UserError:
    return UserError(f"nothing in {path} can be read; give an image (PNG, JPEG) or a film")
