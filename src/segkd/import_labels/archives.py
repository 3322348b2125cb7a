"""Unpack the archive of an export to a temporary folder."""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import NamedTuple

from segkd.errors import UserError

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
"""Suffixes of the archives that are unpacked, in lower case."""
_UNREAD_SUFFIXES = (".rar", ".7z", ".gz", ".bz2", ".xz", ".zst")
_MAX_EXPANSION = 100  # text packs 10 to 30 times, images hardly
_ALWAYS_ALLOWED_BYTES = 1 << 28
_MAX_ENTRIES = 2_000_000
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,  # an unknown compression
    RuntimeError,  # a password
    OSError,  # gzip and bzip2 raise it for damaged bytes
)


def is_archive(path: Path) -> bool:
    """Return whether a path is a file with one of `ARCHIVE_SUFFIXES`."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES) and path.is_file()


@contextmanager
def open_export(path: Path) -> Iterator[Path]:
    """Yield the path of an export; that of an archive is a temporary folder with its content, removed at the end.

    Errors on files of an archive name the archive instead of that folder.

    Raises:
        UserError: The path does not exist, or the archive is damaged, expands to too much, or has entries that would
            be written outside the folder.
    """
    if not path.exists():
        raise UserError(f"there is no input={path}; give the folder or the archive of an export")
    if not is_archive(path):
        if path.is_file() and path.name.lower().endswith(_UNREAD_SUFFIXES):
            raise UserError(f"{path} is no {', '.join(ARCHIVE_SUFFIXES)}; unpack it yourself and give the folder")
        yield path
        return
    with TemporaryDirectory(prefix="segkd-import-") as folder:
        unpack(path, Path(folder))
        try:
            yield Path(folder)
        except UserError as error:
            raise UserError(str(error).replace(folder, str(path))) from None


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive into an empty folder.

    Raises:
        UserError: See `open_export`.
    """
    try:
        if archive.name.lower().endswith(".zip"):
            with zipfile.ZipFile(archive) as opened:
                _check_entries(archive, folder, map(_describe_zipped, opened.infolist()))
                opened.extractall(folder)  # noqa: S202  its entries are checked
        else:
            with tarfile.open(archive) as opened_tar:
                _check_entries(archive, folder, map(_describe_tarred, opened_tar))
                opened_tar.extractall(folder, filter="data")
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.strerror:
            raise UserError(
                f"cannot unpack {archive} to {folder.parent} ({error.strerror}); set TMPDIR to another folder"
            ) from None
        raise UserError(
            f"{archive} cannot be unpacked ({error}); download it again, or unpack it yourself and give the folder"
        ) from None


class _Entry(NamedTuple):
    name: str
    size: int
    is_folder: bool
    is_link: bool


def _check_entries(archive: Path, folder: Path, entries: Iterable[_Entry]) -> None:
    """Check name, kind and size of each entry before one is written.

    Raises:
        UserError: An entry is a link, has a name that leads out of the folder, or a name that another entry has; or
            there are too many of them, or too many bytes.
    """
    free = shutil.disk_usage(folder).free
    allowed = max(_ALWAYS_ALLOWED_BYTES, _MAX_EXPANSION * archive.stat().st_size)
    total, names = 0, set()
    for count, entry in enumerate(entries, 1):
        total += entry.size
        if entry.is_link or _leads_out(entry.name):
            kind = "a link" if entry.is_link else "a path out of it"
            raise UserError(f"{archive} holds {entry.name}, {kind}; unpack it yourself if you trust it")
        if entry.name in names and not entry.is_folder:
            raise UserError(f"{archive} holds {entry.name} twice; unpack it yourself and keep one")
        names.add(entry.name)
        if total > allowed or count > _MAX_ENTRIES:
            raise UserError(
                f"{archive} would expand to more than {allowed >> 20} MiB or {_MAX_ENTRIES} files, as harmful archives "
                "do; unpack it yourself if you trust it"
            )
        if total > free:
            raise UserError(
                f"{archive} needs more than the {free >> 20} MiB that are free in {folder.parent}; set TMPDIR to another folder"
            )


def _describe_zipped(entry: zipfile.ZipInfo) -> _Entry:
    return _Entry(entry.filename, entry.file_size, entry.is_dir(), stat.S_ISLNK(entry.external_attr >> 16))


def _describe_tarred(entry: tarfile.TarInfo) -> _Entry:
    return _Entry(entry.name, entry.size, entry.isdir(), entry.islnk() or entry.issym())


def _leads_out(name: str) -> bool:
    windows = PureWindowsPath(name)  # splits at both kinds of slashes
    return bool(windows.anchor) or ".." in windows.parts
