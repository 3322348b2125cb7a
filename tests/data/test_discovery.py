"""Images below a folder: suffixes, links, hidden files, and what is left out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segkd.data.discovery import FoundImages, describe_left_out, find_images, is_still_image
from segkd.data.image_io import IMAGE_SUFFIXES, read_image
from segkd.errors import UserError

PIXELS = np.stack(np.broadcast_arrays(*np.ogrid[:6, :8], 3), 2).astype(np.uint8) * 20  # smooth, for JPEG
PILLOW_FORMATS = {".jpe": "JPEG", ".jfif": "JPEG", ".dib": "BMP", ".pbm": "PPM", ".pgm": "PPM", ".pnm": "PPM"}


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def name_found(found: FoundImages, root: Path) -> list[list[str]]:
    return [[path.relative_to(root).as_posix() for path in paths] for paths in found]


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_every_suffix_is_found_and_read(tmp_path: Path, suffix: str) -> None:
    """What Pillow writes under each suffix, in either case, is read, and recognized without its suffix."""
    path = tmp_path / f"a{suffix.upper()}"
    image = Image.fromarray(PIXELS).convert({".pbm": "1", ".pgm": "L"}.get(suffix, "RGB"))
    image.save(path, PILLOW_FORMATS.get(suffix), **({"lossless": True} if suffix == ".webp" else {}))
    assert find_images(tmp_path).paths == [path]
    read = read_image(path, cv2.IMREAD_COLOR)[..., ::-1]
    tolerance = 20 if suffix in (".jpg", ".jpeg", ".jpe", ".jfif", ".jp2") else 0
    assert np.abs(read.astype(int) - np.array(image.convert("RGB")).astype(int)).max() <= tolerance
    path.rename(tmp_path / "a")
    assert is_still_image(tmp_path / "a")
    assert find_images(tmp_path) == ([], [tmp_path / "a"], [], [])


def test_other_files_are_no_images(tmp_path: Path) -> None:
    for name, content in {
        "a": b"",
        "b": b"P",
        "c.md": b"BM",
        "d.dat": b"RIFF0000WAVE",
        "e.mp4": b"\0\0\0\x18ftypmp42",
    }.items():
        (tmp_path / name).write_bytes(content)
        assert not is_still_image(tmp_path / name)
    (tmp_path / "folder.png").mkdir()
    assert find_images(tmp_path) == ([], [], [], [])
    assert find_images(tmp_path, recursive=False).paths == [
        tmp_path / "folder.png"
    ]  # and cannot be read, which is told
    assert not is_still_image(tmp_path / "nowhere")
    assert find_images(tmp_path / "nowhere") == ([], [], [], [])


def test_what_is_left_out_is_described(tmp_path: Path) -> None:
    root = tmp_path / ".cache/images"  # that the folder itself lies below a hidden one does not hide its images
    touch(
        *(
            root / name
            for name in ("a.png", "b.HEIC", "x/c.gif", "x/readme.txt", "._a.png", ".ipynb_checkpoints/a-checkpoint.png")
        )
    )
    touch(root / "__MACOSX/a.jpg", root / ".DS_Store")
    found = find_images(root)
    assert name_found(found, root) == [
        ["a.png"],
        ["b.HEIC", "x/c.gif"],
        ["._a.png", ".ipynb_checkpoints/a-checkpoint.png", "__MACOSX/a.jpg"],
        [],
    ]
    unread, hidden = describe_left_out(found)
    assert unread.startswith(f"{root}/b.HEIC and 1 more are not read, for the suffix is none of .png .jpg")
    assert hidden == f"{root}/._a.png and 2 more are left out as hidden"
    assert describe_left_out(FoundImages([root / "a.png"], [], [], [])) == []
    assert name_found(find_images(root, recursive=False), root)[:2] == [["a.png"], ["b.HEIC"]]


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    root = tmp_path / "images"
    touch(root / "a.png", root / "sub/b.png", tmp_path / "elsewhere/c.png", tmp_path / "elsewhere/deep/d.jpg")
    (root / "linked").symlink_to("../elsewhere")
    (root / "file.png").symlink_to("sub/b.png")
    for loop, target in {"sub/up": "..", "self": ".", "outside": "../..", "sub/x": "x"}.items():
        (root / loop).symlink_to(target)
    (tmp_path / "elsewhere/back").symlink_to("../images")
    found = name_found(find_images(root), root)
    assert found == [["a.png", "file.png", "linked/c.png", "linked/deep/d.jpg", "sub/b.png"], [], [], ["sub/x"]]


def test_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    """A link without suffix cannot be told from one to a folder; Git without links stores the target as text."""
    root = tmp_path / "images"
    touch(root / "a.png", tmp_path / "elsewhere/b.png")
    (root / "gone").symlink_to("../nowhere")
    (root / "copied").write_text("../elsewhere\n")
    (root / "notes").write_text("nothing\n")
    found = find_images(root)
    assert name_found(found, root) == [["a.png"], [], [], ["copied", "gone"]]
    (sentence,) = describe_left_out(found)
    assert sentence.startswith(f"{root}/copied and 1 more are not followed")


def test_unreadable_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> Iterator[os.DirEntry[str]]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"cannot read the folder .* \(Permission denied\)"):
        find_images(tmp_path)


NAMES = st.sampled_from(["a", "b.png", "C.JPG", "d.tif", "e.heic", ".f.png", "g.txt"])


@settings(derandomize=True, max_examples=30, deadline=None)
@given(
    files=st.sets(st.tuples(st.sampled_from(["", "s", "s/t", ".h"]), NAMES)),
    links=st.sets(st.sampled_from(["", "s", "s/t"])),
)
def test_random_trees_with_links_equal_a_walk(
    tmp_path_factory: pytest.TempPathFactory, files: set[tuple[str, str]], links: set[str]
) -> None:
    """Links to a folder outside show its files as a copy would, and links to folders above change nothing."""
    root = tmp_path_factory.mktemp("tree")
    touch(root / "linked/z.bmp", *(root / "images" / folder / name for folder, name in files))
    for folder in links:
        (root / "images" / folder).mkdir(parents=True, exist_ok=True)
        (root / "images" / folder / "link").symlink_to(root / "linked")
        (root / "images" / folder / "loop").symlink_to(root / "images")
    expected = [
        (f"{folder}/{name}").lstrip("/") for folder, name in files if Path(name).suffix in (".png", ".JPG", ".tif")
    ]
    expected = [name for name in expected if not name.startswith(".") and "/." not in name]
    expected += [f"{folder}/link/z.bmp".lstrip("/") for folder in links]
    assert sorted(name_found(find_images(root / "images"), root / "images")[0]) == sorted(expected)
