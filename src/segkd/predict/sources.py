"""Sources of frames: an image, a folder, a video, a camera, or a dataset."""

from __future__ import annotations

import logging
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import cv2
import numpy as np

from segkd.data.base import SegmentationDataset
from segkd.data.discovery import count_files, describe_left_out, find_images, is_still_image
from segkd.data.image_header import open_with_pillow
from segkd.data.image_io import IMAGE_SUFFIXES, Array, decode_image, read_bytes
from segkd.errors import UserError
from segkd.predict.frame_times import FrameTime, read_frame_times
from segkd.utils.packages import explain_install

log = logging.getLogger(__name__)


class Frame(NamedTuple):
    """An image with its unique name."""

    name: str
    image: Array
    """H W 3, RGB."""
    time: FrameTime | None = None
    """When it is shown, in a video of variable rate."""
    path: Path | None = None
    """The file that holds it alone."""


class FrameSource(ABC):
    """A stream of frames, read while it is iterated over.

    Attributes:
        length: expected number of frames; None if unknown.
        rate: frames per second; None if the source is not a video.
        skipped: names of what could not be read so far.
    """

    length: int | None = None
    rate: float | None = None

    def __init__(self) -> None:
        self.skipped: list[str] = []

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in order."""

    @contextmanager
    def handle_interrupt(self) -> Iterator[None]:
        """Handle Ctrl-C as suits the source; by default it ends the command."""
        yield


class ImageFiles(FrameSource):
    """Image files, converted to upright 8-bit RGB; alpha is dropped, and of several pages the first is taken, which is logged.

    Args:
        root: names are paths relative to it, without suffixes.
        files: the images.
        left_out: files that look like images and are not read.

    Raises:
        UserError: two files have the same name.
    """

    def __init__(self, root: Path, files: list[Path], left_out: Sequence[Path] = ()) -> None:
        super().__init__()
        self.skipped += map(str, left_out)
        self.files: dict[str, Path] = {}
        for path in files:
            name = path.relative_to(root).with_suffix("").as_posix()
            if name in self.files:
                raise UserError(f"{self.files[name]} and {path} differ only in their suffix; rename one")
            self.files[name] = path
        self.length = len(files)

    def __iter__(self) -> Iterator[Frame]:
        of_several: dict[Path, int] = {}
        for name, path in self.files.items():
            try:
                content = read_bytes(path)
                image = np.ascontiguousarray(decode_image(content, path, cv2.IMREAD_COLOR)[..., ::-1])
            except UserError:
                self.skipped.append(str(path))
                continue
            if (pages := _count_pages(content)) > 1:
                of_several[path] = pages
            yield Frame(name, image, path=path)
        if of_several:
            pages = next(iter(of_several.values()))
            log.warning(
                "%s predicted on page 1 of %d alone; save each page as a file", count_files([*of_several]), pages
            )


class Video(FrameSource):
    """A video file, read by PyAV. Frames that cannot be decoded are skipped and named by their time.

    Raises:
        UserError: PyAV is missing, or the file is not a video.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.av, self.path = require_av(), path
        try:
            with self.av.open(str(path)) as container:
                if container.format.name == "tty":
                    raise ValueError("FFmpeg would draw the letters of a text file")
                stream = container.streams.video[0]
                self.length, self.rate = stream.frames or None, float(stream.average_rate or stream.guessed_rate)
                self.times = read_frame_times(container, stream, self.rate)
        except (self.av.error.FFmpegError, IndexError, TypeError, ValueError):
            raise UserError(
                f"{path} is neither an image nor a video that can be read; convert it to .png or .mp4"
            ) from None

    def __iter__(self) -> Iterator[Frame]:
        with self.av.open(str(self.path)) as container:
            stream, number = container.streams.video[0], 0
            packets = container.demux(stream)
            while True:
                time = None
                try:
                    packet = next(packets, None)
                    if packet is None:
                        return
                    time = None if packet.pts is None else float(packet.pts * packet.time_base)
                    decoded = packet.decode()
                except self.av.error.FFmpegError:
                    self.skipped.append(
                        f"{self.path} at {time:.2f} s" if time is not None else f"the end of {self.path}"
                    )
                    if time is None:
                        return
                    continue
                for frame in decoded:
                    # Phones record as the sensor lies, and store the rotation as metadata.
                    upright = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                    yield Frame(f"{number:06d}", np.ascontiguousarray(upright), self.times.get(frame.pts))
                    number += 1


class Camera(FrameSource):
    """A camera of this machine. It ends when it is unplugged, or on Ctrl-C, which keeps the frames so far.

    Raises:
        UserError: there is no such camera.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        # OpenCV reports every driver that does not answer.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self.capture = cv2.VideoCapture(number)
        if not self.capture.isOpened():
            raise UserError(f"camera {number} does not answer; plug it in, or choose another: input=camera:N")
        self.rate = self.capture.get(cv2.CAP_PROP_FPS) or None
        self.ended = Event()

    def __iter__(self) -> Iterator[Frame]:
        for number in count():
            is_read, image = self.capture.read()
            if self.ended.is_set() or not is_read:
                self.capture.release()
                return
            yield Frame(f"{number:06d}", np.ascontiguousarray(image[..., ::-1]))

    @contextmanager
    def handle_interrupt(self) -> Iterator[None]:
        """End the stream on Ctrl-C, and keep the frames so far."""
        former = signal.signal(signal.SIGINT, lambda *_: self.ended.set())
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, former)


class DatasetFrames(FrameSource):
    """Images of a dataset."""

    def __init__(self, dataset: SegmentationDataset, indices: list[int]) -> None:
        super().__init__()
        self.dataset, self.indices, self.length = dataset, indices, len(indices)

    def __iter__(self) -> Iterator[Frame]:
        return (Frame(self.dataset.get_name(i), self.dataset[i].image) for i in self.indices)


def open_source(source: str) -> FrameSource:
    """Open `camera`, `camera:N`, a folder, an image or a video.

    Raises:
        UserError: it does not exist, or contains no image.
    """
    kind, _, number = source.partition(":")
    if kind == "camera" and (number.isdigit() or source == "camera"):
        return Camera(int(number or 0))
    path = Path(source)
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise UserError(f"input={source} is no file or folder; give an image, a folder, a video, camera or camera:N")
    is_image = path.suffix.lower() in IMAGE_SUFFIXES or is_still_image(path)
    return ImageFiles(path.parent, [path]) if is_image else Video(path)


def _open_folder(path: Path) -> ImageFiles:
    found = find_images(path)
    if not found.paths:
        others = f" ({count_files(found.left_out)} of another kind)" if found.left_out else ""
        raise UserError(
            f"input={path} contains no image that is read{others}; give a folder with images: {' '.join(IMAGE_SUFFIXES)}"
        )
    for sentence in describe_left_out(found._replace(left_out=[])):  # what is left out is counted as skipped
        log.warning("%s", sentence)
    return ImageFiles(path, found.paths, found.left_out)


def _count_pages(content: bytes) -> int:
    """Return the number of pages of a TIFF, or of frames of an animated image."""
    try:
        return int(getattr(open_with_pillow(content), "n_frames", 1))
    except Exception:  # Pillow fails in many ways on what OpenCV reads
        return 1


def open_sequence(dataset: SegmentationDataset, prefix: str) -> DatasetFrames:
    """Open the images of a dataset whose names begin with a prefix; '' opens all.

    Raises:
        UserError: there is none.
    """
    indices = [i for i in range(len(dataset)) if dataset.get_name(i).startswith(prefix)]
    if not indices:
        raise UserError(
            f"no image of {dataset.display_name} {dataset.split} has a name that begins with {prefix}; "
            f"the first is {dataset.get_name(0)}; give another sequence"
        )
    return DatasetFrames(dataset, indices)


def require_av() -> Any:
    """Return PyAV, which videos need.

    Raises:
        UserError: it is not installed.
    """
    try:
        import av
    except ImportError:
        raise UserError(f"videos need PyAV, which is not installed; {explain_install('video')}") from None
    return av
