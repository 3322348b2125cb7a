"""Writers: formats, sizes, and no partial files."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkd.data.image_io import Array
from segkd.errors import UserError
from segkd.predict.sources import require_av
from segkd.predict.writers import Write, write_file, write_folder, write_gif, write_video

COLORS = [(200, 30, 60), (20, 200, 90), (70, 130, 180), (128, 0, 0)]


def make_plain(color: tuple[int, int, int], size: tuple[int, int] = (33, 47)) -> Array:
    return np.full((*size, 3), color, np.uint8)


def make_noise(seed: int) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (200, 200, 3), np.uint8)


def test_video_is_h264_yuv420p_with_even_sides_and_fast_start(tmp_path: Path) -> None:
    path = tmp_path / "new/video.mp4"
    with write_video(path, 12.5) as write:
        for color in COLORS:
            write("", make_plain(color))
    with require_av().open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, stream.average_rate) == (48, 34, 12.5)
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    assert len(images) == len(COLORS)
    for image, color in zip(images, COLORS, strict=True):
        assert np.abs(image.astype(int) - color).max() <= 6  # the repeated row and column too


def test_gif_loops_and_keeps_few_colors_unchanged(tmp_path: Path) -> None:
    with write_gif(tmp_path / "a.gif", 5, width=94) as write:
        for color in COLORS:
            write("", make_plain(color))
    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.n_frames, gif.size, gif.info["duration"], gif.info["loop"]) == (4, (94, 66), 200, 0)
        for i, color in enumerate(COLORS):
            gif.seek(i)
            assert np.abs(np.asarray(gif.convert("RGB")).astype(int) - color).max() <= 2


@pytest.mark.parametrize("writer", [write_video, write_gif])
def test_images_of_another_size_are_refused(
    writer: Callable[..., AbstractContextManager[Write]], tmp_path: Path
) -> None:
    def write_two(second: tuple[int, int]) -> None:
        with writer(tmp_path / "a", 5) as write:
            write("first", make_plain(COLORS[0]))
            write("second", make_plain(COLORS[1], second))

    with pytest.raises(UserError, match=r"began with 33×47 pixels, and second has 47×33"):
        write_two((47, 33))
    assert not [*tmp_path.iterdir()]
    write_two((33, 47))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


WRITERS: dict[str, Callable[[Path], AbstractContextManager[Write]]] = {
    "folder": write_folder,
    "a.png": write_file,
    "a.mp4": partial(write_video, fps=5),
    "a.gif": partial(write_gif, fps=5),
}


@contextmanager
def limit_file_size(size: int) -> Iterator[None]:
    """Let no file grow beyond this many bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", WRITERS)
def test_full_disk_leaves_no_partial_file(name: str, tmp_path: Path) -> None:
    def write_noise() -> None:
        with WRITERS[name](tmp_path / name) as write:
            for seed in range(2):
                write("image", make_noise(seed))

    with (
        limit_file_size(30_000),
        pytest.raises(UserError, match=rf"cannot write .*{name}.* \(File too large\); make room there"),
    ):
        write_noise()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    write_noise()
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert file.stat().st_size > 30_000


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_foreign_error_passes_and_keeps_the_former_file(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("earlier")

    def fail_while_writing() -> None:
        with WRITERS[name](tmp_path / name) as write:
            write("image", make_noise(0))
            raise RuntimeError("the camera failed")

    with pytest.raises(RuntimeError, match="the camera failed"):
        fail_while_writing()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "earlier")]


@pytest.mark.parametrize("name", WRITERS)
def test_unwritable_folder_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with (
        pytest.raises(UserError, match=r"cannot make the folder .* \(Permission denied\)"),
        WRITERS[name](tmp_path / name),
    ):
        pass
