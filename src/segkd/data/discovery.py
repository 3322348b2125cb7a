"""Find the image files below a folder, and what looks like an image but is left out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from segkd.data.image_io import IMAGE_SUFFIXES
from segkd.errors import UserError

_UNREAD_SUFFIXES = (
    ".apng", ".arw", ".avif", ".cr2", ".cr3", ".dcm", ".dng", ".eps", ".exr", ".gif", ".hdr", ".heic", ".heif", ".ico", ".jxl",
    ".nef", ".orf", ".pcx", ".pfm", ".psd", ".raf", ".ras", ".raw", ".rw2", ".svg", ".tga",
)  # fmt: skip
"""Suffixes of images that are not read, since not every OpenCV decodes them to one still image of 8 bits."""
_TEXT_SUFFIXES = (
    ".csv", ".db", ".html", ".ini", ".json", ".md", ".npy", ".npz", ".txt", ".xml", ".yaml", ".yml", ".zip",
)  # fmt: skip
"""Suffixes that annotation tools write beside images; such files are not opened."""
_HIDDEN_NAMES = frozenset(("__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found", "#recycle"))
"""Folders that operating systems and file servers make; any name that begins with a dot is hidden, too."""
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\0\0\0\x0cjP  ")
"""First bytes of PNG, JPEG, TIFF, BigTIFF and JPEG 2000."""
_HEADER_LENGTH = 16
_MAX_TARGET = 1024  # bytes


class FoundImages(NamedTuple):
    """The image files below a folder."""

    paths: list[Path]
    """Files with one of `IMAGE_SUFFIXES`, in upper or lower case, sorted."""
    left_out: list[Path]
    """Files of other suffixes that look like images."""
    hidden: list[Path]
    """Images whose name, or one of whose folders, is hidden."""
    lost_links: list[Path]
    """Links without suffix that lead nowhere, and text files that a copy made of links to folders."""


def find_images(folder: Path, recursive: bool = True) -> FoundImages:
    """Find the images below a folder; links to folders are followed, and a link to a folder above itself is not.

    Args:
        folder: The folder; one that does not exist holds no images.
        recursive: Look into subfolders.

    Raises:
        UserError: A folder cannot be read.
    """
    found = FoundImages([], [], [], [])
    if not folder.is_dir():
        return found
    for path in _walk(folder, recursive):
        is_image = path.suffix.lower() in IMAGE_SUFFIXES
        if any(map(is_hidden, path.relative_to(folder).parts)):
            if is_image:
                found.hidden.append(path)
        elif is_image:
            found.paths.append(path)
        elif not path.suffix and _is_lost_link(path):
            found.lost_links.append(path)
        elif _looks_like_image(path):
            found.left_out.append(path)
    return FoundImages(*map(sorted, found))


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is left out, as one that tools made and not the user."""
    return name.startswith(".") or name in _HIDDEN_NAMES


def is_still_image(path: Path) -> bool:
    """Return whether a file is an image that OpenCV reads, by its first bytes and whatever its suffix."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_LENGTH)
    except OSError:
        return False
    is_bitmap = header[:2] == b"BM" and header[6:10] == b"\0\0\0\0"
    is_netpbm = header[:1] == b"P" and header[1:2] in b"123456" and header[2:3].isspace()
    is_webp = header[:4] == b"RIFF" and header[8:12] == b"WEBP"
    return header.startswith(_SIGNATURES) or is_bitmap or is_netpbm or is_webp


def describe_left_out(found: FoundImages) -> list[str]:
    """Return a sentence for each kind of file that is left out, with the first one and their number."""
    sentences = []
    if found.left_out:
        readable = " ".join(IMAGE_SUFFIXES)
        sentences.append(
            f"{count_files(found.left_out)} not read, for the suffix is none of {readable}; convert or remove"
        )
    if found.hidden:
        sentences.append(f"{count_files(found.hidden)} left out as hidden")
    if found.lost_links:
        reason = "for the link to a folder leads nowhere, or a copy made it a text file"
        sentences.append(f"{count_files(found.lost_links)} not followed, {reason}; link or copy that folder again")
    return sentences


def count_files(paths: Sequence[Path]) -> str:
    """Return 'FIRST is' or 'FIRST and N more are', to begin a sentence."""
    return f"{paths[0]} is" if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more are"


def _walk(folder: Path, recursive: bool, above: frozenset[Path] | None = None) -> Iterator[Path]:
    """Yield the files below a folder, and links to nothing; if not recursive, all that is in the folder."""
    resolved = folder.resolve()
    above = frozenset(resolved.parents) if above is None else above
    if resolved in above:
        return
    try:
        with os.scandir(folder) as entries:
            # The entry of a link to itself raises an error, its path does not.
            names = {entry.name: (Path(entry) if entry.is_symlink() else entry).is_dir() for entry in entries}
    except OSError as error:
        raise UserError(f"cannot read the folder {folder} ({error.strerror}); make it readable") from None
    for name, is_folder in names.items():
        if not is_folder or not recursive:
            yield folder / name
        else:
            yield from _walk(folder / name, recursive, above | {resolved})


def _is_lost_link(path: Path) -> bool:
    if path.is_symlink():
        return not path.exists()
    try:
        # Git, archives and network drives without links store a link as a file that holds its target.
        is_short = 0 < path.stat().st_size <= _MAX_TARGET
        target = path.read_bytes().decode().strip() if is_short else ""
        return bool(target) and "\0" not in target and (path.parent / target).is_dir()
    except (OSError, ValueError):
        return False


def _looks_like_image(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in _UNREAD_SUFFIXES or (suffix not in _TEXT_SUFFIXES and is_still_image(path))
