"""Images one after another, from wherever they come: a file, a folder, a film, a camera, a data set."""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import cv2
import numpy as np

from segkd.data.base import SegmentationDataset
from segkd.data.image_io import Array, decode_image
from segkd.data.unlabelled import SUFFIXES
from segkd.errors import UserError


class Frame(NamedTuple):
    """An image, and what tells it from the others."""

    name: str
    image: Array
    """H W 3, RGB."""


class FrameSource(ABC):
    """A stream of frames, read while it is walked through.

    `skipped` names what could not be read so far, `length` says how many frames are expected (None: nobody knows), and `rate` how
    many a second the source shows (None: it is no film).
    """

    length: int | None = None
    rate: float | None = None

    def __init__(self) -> None:
        self.skipped: list[str] = []

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """The frames in their order."""

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """While this lasts the user watches, and an interrupt means what it means for such a source."""
        yield


class ImageFiles(FrameSource):
    """Image files. Alpha is dropped, grey becomes RGB, 16 bits become 8, and the camera's rotation (EXIF) is undone.

    Args:
        root: names are the paths below it, without suffixes.
        files: the images.

    Raises:
        UserError: two files would have one name.
    """

    def __init__(self, root: Path, files: list[Path]) -> None:
        super().__init__()
        self.files: dict[str, Path] = {}
        for path in files:
            name = path.relative_to(root).with_suffix("").as_posix()
            if name in self.files:
                raise UserError(f"{self.files[name]} and {path} differ in their suffix alone; rename one")
            self.files[name] = path
        self.length = len(files)

    def __iter__(self) -> Iterator[Frame]:
        for name, path in self.files.items():
            try:
                yield Frame(name, np.ascontiguousarray(decode_image(path, cv2.IMREAD_COLOR)[..., ::-1]))
            except UserError:
                self.skipped.append(str(path))


class Video(FrameSource):
    """A film file, through PyAV. Frames that cannot be decoded are skipped and named by their time.

    Raises:
        UserError: PyAV is missing, or the file is no film.
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
        except (self.av.error.FFmpegError, IndexError, TypeError, ValueError):
            raise UserError(
                f"{path} is neither an image ({', '.join(SUFFIXES)}) nor a film that can be read; convert it to mp4"
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
                    # A phone films upright and notes how it was held.
                    upright = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                    yield Frame(f"{number:06d}", np.ascontiguousarray(upright))
                    number += 1


class Camera(FrameSource):
    """A camera of this machine, until it is unplugged or the user interrupts, which ends the stream and nothing else.

    Raises:
        UserError: there is no such camera.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        cv2.utils.logging.setLogLevel(
            cv2.utils.logging.LOG_LEVEL_SILENT
        )  # it would report each driver that does not answer
        self.capture = cv2.VideoCapture(number)
        if not self.capture.isOpened():
            raise UserError(f"no camera {number} answers; plug it in, or give another: input=camera:N")
        self.rate = self.capture.get(cv2.CAP_PROP_FPS) or None
        self.ended = Event()

    def __iter__(self) -> Iterator[Frame]:
        for number in count():
            whole, image = self.capture.read()
            if self.ended.is_set() or not whole:
                self.capture.release()
                return
            yield Frame(f"{number:06d}", np.ascontiguousarray(image[..., ::-1]))

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """An interrupt ends the stream, and what was seen till then is kept."""
        before = signal.signal(signal.SIGINT, lambda *_: self.ended.set())
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


class DatasetFrames(FrameSource):
    """Some images of a data set."""

    def __init__(self, dataset: SegmentationDataset, indices: list[int]) -> None:
        super().__init__()
        self.dataset, self.indices, self.length = dataset, indices, len(indices)

    def __iter__(self) -> Iterator[Frame]:
        return (Frame(self.dataset.name(i), self.dataset[i].image) for i in self.indices)


def open_source(source: str) -> FrameSource:
    """The frames of `camera`, `camera:N`, a folder, an image or a film.

    Raises:
        UserError: there is no such thing, or no image in it.
    """
    kind, _, number = source.partition(":")
    if kind == "camera" and (number.isdigit() or source == "camera"):
        return Camera(int(number or 0))
    path = Path(source)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        if not files:
            raise UserError(f"input={path} holds no image ({', '.join(SUFFIXES)}); give a folder with images")
        return ImageFiles(path, files)
    if not path.is_file():
        raise UserError(f"input={source} is no file or folder; give an image, a folder, a film, camera or camera:N")
    return ImageFiles(path.parent, [path]) if path.suffix.lower() in SUFFIXES else Video(path)


def require_av() -> Any:
    """PyAV, which films need.

    Raises:
        UserError: it is not installed.
    """
    try:
        import av
    except ImportError:
        raise UserError("films need PyAV, which is not installed; pip install 'segkd[video]'") from None
    return av
