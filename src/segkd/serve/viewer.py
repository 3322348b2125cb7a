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

from segkd.data.image_io import Array
from segkd.errors import UserError
from segkd.models.base import SegmentationModel
from segkd.predict.drawing import blend, colorize, image_grid
from segkd.predict.pipeline import predict_batch
from segkd.predict.rendering import Palette
from segkd.predict.sources import Frame, FrameSource, open_source
from segkd.predict.writers import write_video

_LOOKS = 3  # at an image; the first also pays for what a network sets up for a new size
_MOST_PIXELS = 64_000_000  # of an image: a small file can hold more than the memory does
_FILM_WIDTH = 1920  # pixels


class ViewerResult(NamedTuple):
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
    max_side: int
    """Pixels: images with a longer side are shrunk to it."""
    frames: int
    """No more of a clip than that."""

    def predict_file(self, path: Path, film: Path) -> ViewerResult:
        """An image, or a clip, whose film is written to `film`.

        Raises:
            UserError: it is neither, or too large, or PyAV is missing, which clips need.
        """
        frames = open_source(str(path))
        return self._image(path, frames) if frames.rate is None else self._clip(path, frames, film)

    def _image(self, path: Path, frames: FrameSource) -> ViewerResult:
        _check_pixels(path)
        for frame in frames:
            looks = [self._predict_frame(self._limit_size(frame)) for _ in range(_LOOKS)]
            return ViewerResult(looks[-1][0], _medians([seconds for _, seconds in looks]), None)
        raise _unreadable(path)

    def _clip(self, path: Path, frames: FrameSource, film: Path) -> ViewerResult:
        taken: list[dict[str, float]] = []
        pictures: dict[str, Array] = {}
        assert frames.rate is not None
        with write_video(film, frames.rate, _FILM_WIDTH) as write:
            for frame in islice(frames, self.frames):
                pictures, seconds = self._predict_frame(self._limit_size(frame))
                write(frame.name, np.asarray(image_grid({name: [p] for name, p in pictures.items()}, {}, scale=1)))
                taken.append(seconds)
            if not taken:
                raise _unreadable(path)
        return ViewerResult(pictures, _medians(taken), film)

    def _predict_frame(self, frame: Frame) -> tuple[dict[str, Array], dict[str, float]]:
        """Pictures of a frame, by caption, and the seconds of each network."""
        pictures, seconds = {"image": frame.image}, {}
        for name, network in self.networks.items():
            began = perf_counter()
            (one,) = predict_batch({name: network}, [frame], len(self.palette.classes))
            seconds[name] = perf_counter() - began
            colors = colorize(one.labels[name], [*self.palette.classes.values()])
            pictures[name] = blend(frame.image, colors, self.opacity)
        return pictures, seconds

    def _limit_size(self, frame: Frame) -> Frame:
        image = Image.fromarray(frame.image)
        image.thumbnail((self.max_side, self.max_side), Image.Resampling.LANCZOS)  # never enlarges
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
