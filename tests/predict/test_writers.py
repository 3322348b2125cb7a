"""What is written can be read again, has the promised form, and stands whole or not at all."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkd.errors import UserError
from segkd.predict.sources import require_av
from segkd.predict.writers import Array, Write, write_file, write_folder, write_gif, write_video

TONES = [(200, 30, 60), (20, 200, 90), (70, 130, 180), (128, 0, 0)]


def plain(tone: tuple[int, int, int], size: tuple[int, int] = (33, 47)) -> Array:
    return np.full((*size, 3), tone, np.uint8)


def noise(seed: int) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (200, 200, 3), np.uint8)


def test_a_film_is_h264_in_yuv420p_of_even_sides_and_starts_fast(tmp_path: Path) -> None:
    path = tmp_path / "new/film.mp4"
    with write_video(path, 12.5) as write:
        for tone in TONES:
            write("", plain(tone))
    with require_av().open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, stream.average_rate) == (48, 34, 12.5)
        seen = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    assert len(seen) == len(TONES)
    for picture, tone in zip(seen, TONES, strict=True):
        assert np.abs(picture.astype(int) - tone).max() <= 6  # the odd row and column, doubled, too


def test_a_gif_repeats_and_keeps_few_colours_as_they_are(tmp_path: Path) -> None:
    with write_gif(tmp_path / "a.gif", 5, width=94) as write:
        for tone in TONES:
            write("", plain(tone))
    with Image.open(tmp_path / "a.gif") as seen:
        assert (seen.n_frames, seen.size, seen.info["duration"], seen.info["loop"]) == (4, (94, 66), 200, 0)
        for i, tone in enumerate(TONES):
            seen.seek(i)
            assert np.abs(np.asarray(seen.convert("RGB")).astype(int) - tone).max() <= 2


@pytest.mark.parametrize("writer", [write_video, write_gif])
def test_pictures_of_another_size_are_refused(
    writer: Callable[..., AbstractContextManager[Write]], tmp_path: Path
) -> None:
    def write_two(second: tuple[int, int]) -> None:
        with writer(tmp_path / "a", 5) as write:
            write("first", plain(TONES[0]))
            write("second", plain(TONES[1], second))

    with pytest.raises(UserError, match=r"began with 33×47 pixels, and second has 47×33"):
        write_two((47, 33))
    assert not [*tmp_path.iterdir()]
    write_two((33, 47))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


WRITERS: dict[str, Callable[[Path], AbstractContextManager[Write]]] = {
    "folder": write_folder,
    "a.png": write_file,
    "a.mp4": partial(write_video, rate=5),
    "a.gif": partial(write_gif, rate=5),
}


@contextmanager
def little_room(size: int) -> Iterator[None]:
    """No file may grow beyond this many bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_no_half_file(name: str, tmp_path: Path) -> None:
    def write_noise() -> None:
        with WRITERS[name](tmp_path / name) as write:
            for seed in range(2):
                write("picture", noise(seed))

    with (
        little_room(30_000),
        pytest.raises(UserError, match=rf"cannot write .*{name}.* \(File too large\); make room there"),
    ):
        write_noise()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    write_noise()
    (written,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert written.stat().st_size > 30_000


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_an_error_of_somebody_else_stays_itself_and_keeps_what_was_there(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("earlier")

    def burn() -> None:
        with WRITERS[name](tmp_path / name) as write:
            write("picture", noise(0))
            raise RuntimeError("the camera burns")

    with pytest.raises(RuntimeError, match="the camera burns"):
        burn()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "earlier")]


@pytest.mark.parametrize("name", WRITERS)
def test_where_nothing_can_be_written(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with (
        pytest.raises(UserError, match=r"cannot make the folder .* \(Permission denied\)"),
        WRITERS[name](tmp_path / name),
    ):
        pass
