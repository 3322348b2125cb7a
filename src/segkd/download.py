"""`python -m segkd.download`: CamVid, or the authors' checkpoints, each file checked against the hash that comes with segkd.

Where a file comes from and what it must be stands in `downloads/*.sha256`, which `sha256sum -c` understands too. GitHub
packs an archive anew now and then, with other bytes, so its files are checked and not the archive.
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal, NamedTuple
from urllib import request
from urllib.error import HTTPError
from urllib.parse import quote
from zipfile import BadZipFile, ZipFile

from omegaconf import DictConfig
from pydantic import (
    AfterValidator,
    BeforeValidator,
)
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from segkd.cli.launch import launch
from segkd.config.schema import Settings, load_settings
from segkd.errors import UserError
from segkd.utils.files import exclusive_lock, sha256

MANIFESTS = Path(__file__).parent / "downloads"

_FOLDERS = {"camvid": Path("data/camvid"), "weights": Path("weights")}
_LARGEST = 2**30  # bytes; no file here comes near, so whatever is larger is something else
_CHUNK = 2**16
_TIMEOUT = 60  # seconds without a byte


class Source(NamedTuple):
    """Files that come from one address: one file, or a folder of a zip archive."""

    address: str
    folder: str | None
    """Where the files lie in the archive, below its top folder; None: the address is the file itself."""
    files: dict[str, str]
    """Path in the output folder → SHA-256."""


def download(cfg: DictConfig) -> None:
    """Fetch what the output folder lacks; a file has its final name only when it is whole and the right one."""
    settings = load_settings(cfg, DownloadSettings)
    directory = settings.output_dir or _FOLDERS[settings.what]
    origins = _read(MANIFESTS / f"{settings.what}.sha256")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(directory / ".lock", f"another download to {directory}"):
            missing = _missing(origins, directory)
            _fetch_all(missing, settings.url, directory)
    except OSError as error:
        raise UserError(
            f"cannot write to {directory} ({error.strerror}); make room there or choose another with output_dir=DIR"
        ) from None
    count = sum(len(origin.files) for origin in origins)
    print(f"{directory} is complete, {count} files{'' if missing else '; nothing to download'}")


def _read(manifest: Path) -> list[Source]:
    """The origins of a manifest: lines `# from ADDRESS`, each with the hashes of its files below it."""
    origins: list[Source] = []
    for line in manifest.read_text().splitlines():
        if line.startswith("# from "):
            archive, _, folder = line.removeprefix("# from ").partition(".zip/")
            origins.append(Source(f"{archive}.zip", folder, {}) if folder else Source(archive, None, {}))
        else:
            digest, name = line.split(maxsplit=1)
            origins[-1].files[name] = digest
    return origins


def _missing(origins: list[Source], directory: Path) -> list[Source]:
    """The origins of which the folder has not all files.

    Raises:
        UserError: a file there is not what it should be; it may be the user's own, so it is not overwritten.
    """
    wrong = [
        name
        for origin in origins
        for name, digest in origin.files.items()
        if (directory / name).exists() and sha256(directory / name) != digest
    ]
    if wrong:
        raise UserError(
            f"{len(wrong)} files in {directory} are not the published ones, the first is {wrong[0]}; "
            "delete them to have them fetched anew, or choose another folder with output_dir=DIR"
        )
    return [origin for origin in origins if not all((directory / name).exists() for name in origin.files)]


def _fetch_all(origins: list[Source], url: str, directory: Path) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for origin in origins:
            what = Path(origin.address).name if origin.folder else next(iter(origin.files))
            part = _with_folder(directory / f"{what}.part")
            bar = progress.add_task(what, total=None)
            _fetch(f"{url}/{quote(origin.address)}", part, partial(progress.update, bar))
            take = _unpack if origin.folder else _accept
            take(part, origin, directory)


def _fetch(url: str, part: Path, tell: Callable[..., None]) -> None:
    """Fetch an address to a file, from where an earlier attempt broke off if the server can.

    Args:
        tell: called with `completed`, the bytes that are there, and `total`, their final number if the server says it.

    Raises:
        UserError: the server cannot be reached, has no such file, or the connection broke; what came is kept.
    """
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "segkd", **({"Range": f"bytes={have}-"} if have else {})}
    wanted = request.Request(url, headers=headers)  # noqa: S310  validated to be http, and `_http` speaks nothing else
    try:
        answer: HTTPResponse = _http().open(wanted, timeout=_TIMEOUT)
    except HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            return  # all of it came before
        raise UserError(f"{url} answered {error.code} {error.reason}; try later, or a mirror with url=URL") from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"cannot reach {url} ({reason}); check the connection, or try a mirror with url=URL") from None
    with answer:
        continued = answer.status == HTTPStatus.PARTIAL_CONTENT
        done = have if continued else 0
        length = answer.headers["Content-Length"]
        total = done + int(length) if length else None
        with part.open("ab" if continued else "wb") as file:
            for chunk in _chunks(answer, url):
                done += file.write(chunk)
                tell(completed=done, total=total)
                if done > _LARGEST:
                    break
    if done > _LARGEST:
        part.unlink()
        raise UserError(f"{url} sends more than {_LARGEST} bytes, so it is not what was asked for; check url=URL")
    if total is not None and done < total:
        raise _broken(url, f"after {done} of {total} bytes")


def _http() -> request.OpenerDirector:
    """Speaks HTTP and HTTPS, through the proxies that the environment names; a redirection cannot leave them."""
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler,
        request.HTTPHandler,
        request.HTTPSHandler,
        request.HTTPRedirectHandler,
        request.HTTPErrorProcessor,
        request.HTTPDefaultErrorHandler,
        request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


def _chunks(answer: HTTPResponse, url: str) -> Iterator[bytes]:
    try:
        while chunk := answer.read(_CHUNK):
            yield chunk
    except (OSError, HTTPException) as error:
        raise _broken(url, f"({error})") from None


def _broken(url: str, how: str) -> UserError:
    return UserError(f"{url} broke off {how}; run the same command again to go on from there")


def _accept(part: Path, origin: Source, directory: Path) -> None:
    """Give a fetched file its name, if it is the right one."""
    ((name, digest),) = origin.files.items()
    if sha256(part) != digest:
        part.unlink()
        raise UserError(
            f"{origin.address} is not the published file (its SHA-256 differs) and was deleted; "
            "run the same command again, or try a mirror with url=URL"
        )
    part.replace(directory / name)


def _unpack(archive: Path, origin: Source, directory: Path) -> None:
    """Take the files of the manifest, and nothing else, from an archive: all of them or none.

    No path in the archive becomes a path on the disk, it is only looked up; so none can lead out of the folder.
    """
    try:
        with ZipFile(archive) as opened, TemporaryDirectory(dir=directory, prefix=".unpacked-") as stage:
            members = {name.partition("/")[2]: name for name in opened.namelist()}
            for name, digest in origin.files.items():
                member = opened.getinfo(members[f"{origin.folder}{name}"])
                if member.file_size > _LARGEST:
                    raise BadZipFile(f"{name} has {member.file_size} bytes")
                target = _with_folder(Path(stage, name))
                with opened.open(member) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file)
                if sha256(target) != digest:
                    raise BadZipFile(f"the SHA-256 of {name} differs")
            for name in origin.files:
                Path(stage, name).replace(_with_folder(directory / name))
    # zipfile's own, of a damaged archive: NotImplementedError is a compression that it does not know, RuntimeError a password.
    except (BadZipFile, KeyError, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        archive.unlink()
        reason = f"it has no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"{origin.address} is not the published archive ({reason}) and was deleted; "
            "run the same command again, or try a mirror with url=URL"
        ) from None
    archive.unlink()


def _with_folder(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


class DownloadSettings(Settings):
    """`python -m segkd.download`."""

    what: Annotated[Literal["camvid", "weights"], BeforeValidator(lambda what: _check_downloadable(what))]
    output_dir: Path | None
    url: Annotated[str, AfterValidator(lambda url: _check_url(url))]


def _check_downloadable(what: str | None) -> str:
    """Refuses in more words than Literal would, for who asks for Cityscapes."""
    if what not in ("camvid", "weights"):
        raise ValueError(
            "camvid or weights can be downloaded; Cityscapes' licence forbids passing it on, so register at "
            "cityscapes-dataset.com and fetch it with its own tool (pip install cityscapesscripts; "
            "csDownload leftImg8bit_trainvaltest.zip gtFine_trainvaltest.zip)"
        )
    return what


def _check_url(url: str) -> str:
    if not url.startswith(("https://", "http://")):
        raise ValueError("only https:// and http:// addresses are fetched from")
    return url.rstrip("/")


if __name__ == "__main__":
    launch("download")
