"""Predictions for an uploaded image or video, and the latency of each network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

import numpy as np
from PIL import Image

from segkd.data.drawing import blend, colorize, draw_image_grid
from segkd.data.image_io import Array
from segkd.errors import UserError
from segkd.models.base import SegmentationModel
from segkd.predict.labeling import Labeling
from segkd.predict.palette import Palette
from segkd.predict.pipeline import predict_batch
from segkd.predict.sources import Frame, FrameSource, open_source
from segkd.predict.writers import write_video

_REPEATS = 3  # predictions of an image; the first includes what a network sets up for a new size
_MAX_PIXELS = 64_000_000  # a small file can contain an image larger than the memory
_VIDEO_WIDTH = 1920  # pixels


class ViewerResult(NamedTuple):
    """The predictions for an uploaded file."""

    images: dict[str, Array]
    """Caption → RGB, H W 3, the input first; for a video, those of its last frame."""
    milliseconds: dict[str, float]
    """Network → median time from an image to its labels."""
    video: Path | None
    """The images side by side; None if the file is an image."""


class Viewer(NamedTuple):
    """Networks that predict uploaded files, and how the predictions are shown."""

    networks: Mapping[str, SegmentationModel]
    palette: Palette
    opacity: float
    """Of the colors over the image, 0..1."""
    max_side: int
    """Pixels; larger images are shrunk to it."""
    max_frames: int
    """Number of frames of a video; later ones are ignored."""

    def predict_file(self, path: Path, video: Path) -> ViewerResult:
        """Predict an image or a video; for a video, write the images side by side to `video`.

        Raises:
            UserError: the file is neither, or too large, or PyAV, which videos need, is missing.
        """
        frames = open_source(str(path))
        return self._predict_image(path, frames) if frames.rate is None else self._predict_video(path, frames, video)

    def _predict_image(self, path: Path, frames: FrameSource) -> ViewerResult:
        _check_pixels(path)
        for frame in frames:
            results = [self._predict_frame(self._limit_size(frame)) for _ in range(_REPEATS)]
            return ViewerResult(results[-1][0], _compute_medians([seconds for _, seconds in results]), None)
        raise _make_read_error(path)

    def _predict_video(self, path: Path, frames: FrameSource, video: Path) -> ViewerResult:
        times: list[dict[str, float]] = []
        images: dict[str, Array] = {}
        assert frames.rate is not None
        with write_video(video, frames.rate, _VIDEO_WIDTH) as write:
            for frame in islice(frames, self.max_frames):
                images, seconds = self._predict_frame(self._limit_size(frame))
                columns = {name: [image] for name, image in images.items()}
                write(frame.name, np.asarray(draw_image_grid(columns, {}, scale=1)), frame.time)
                times.append(seconds)
            if not times:
                raise _make_read_error(path)
        return ViewerResult(images, _compute_medians(times), video)

    def _predict_frame(self, frame: Frame) -> tuple[dict[str, Array], dict[str, float]]:
        """Return images by caption, and the seconds of each network."""
        images, seconds = {"image": frame.image}, {}
        for name, network in self.networks.items():
            start = perf_counter()
            (prediction,) = predict_batch({name: network}, [frame], Labeling(len(self.palette.classes)))
            seconds[name] = perf_counter() - start
            colors = colorize(prediction.labels[name], [*self.palette.classes.values()])
            images[name] = blend(frame.image, colors, self.opacity)
        return images, seconds

    def _limit_size(self, frame: Frame) -> Frame:
        image = Image.fromarray(frame.image)
        image.thumbnail((self.max_side, self.max_side), Image.Resampling.LANCZOS)  # never enlarges
        return frame._replace(image=np.asarray(image))


def _check_pixels(path: Path) -> None:
    """Check the size in the header, before anything is decoded.

    Raises:
        UserError: the file is not an image, or would fill the memory.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
    except Image.DecompressionBombError as error:
        raise UserError(f"{path} is too large ({error}); shrink it") from None
    except (OSError, SyntaxError, ValueError):
        raise UserError(f"{path} is not an image; give an image (PNG, JPEG) or a video") from None
    if width * height > _MAX_PIXELS:
        raise UserError(
            f"{path} has {width}×{height} pixels, more than the limit of {_MAX_PIXELS // 10**6} million; shrink it"
        )


def _compute_medians(times: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each network in milliseconds, given seconds."""
    return {name: 1e3 * median(seconds[name] for seconds in times) for name in times[0]}


def _make_read_error(path: Path) -> UserError:
    return UserError(f"no frame of {path} can be read; give an image (PNG, JPEG) or a video")
