"""When the frames of a video of variable rate are shown."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple

_TOLERANCE = 0.5  # intervals by which a frame may be early or late at a constant rate; containers round their times


class FrameTime(NamedTuple):
    """When a frame is shown, in seconds."""

    start: float
    """Since the first frame."""
    duration: float


def read_frame_times(container: Any, stream: Any, rate: float) -> dict[int, FrameTime]:
    """Read the time of each frame of an open video, without decoding it; nothing if its rate is constant.

    Args:
        container: PyAV's container, which is read to its end.
        stream: its video stream.
        rate: frames per second, on average.

    Returns:
        Timestamp in the stream's unit → time.
    """
    from av.error import FFmpegError  # of an optional package, which the container is of

    found: set[int] = set()
    with suppress(FFmpegError):  # a damaged end has no times
        for packet in container.demux(stream):
            if packet.size and packet.pts is not None:
                found.add(packet.pts)
    stamps = sorted(found)
    if not stamps:
        return {}
    unit, first = float(stream.time_base), stamps[0]
    if all(abs((stamp - first) * unit * rate - i) <= _TOLERANCE for i, stamp in enumerate(stamps)):
        return {}
    end = (stream.start_time or 0) + (stream.duration or 0)
    ends = [*stamps[1:], end if end > stamps[-1] else stamps[-1] + round(1 / (rate * unit))]
    return {
        stamp: FrameTime((stamp - first) * unit, (end - stamp) * unit) for stamp, end in zip(stamps, ends, strict=True)
    }
