"""`python -m segkd.download`: fetch CamVid or the published checkpoints, and check each file's SHA-256.

`downloads/*.sha256` lists the origin and hash of each file; `sha256sum -c` reads these manifests too. GitHub repacks its
archives now and then, with other bytes, so the files are checked and not the archive.
"""

from __future__ import annotations

import shutil
import zlib
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal, NamedTuple
from urllib.parse import quote
from zipfile import BadZipFile, ZipFile

from omegaconf import DictConfig
from pydantic import AfterValidator, BeforeValidator, Field
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from segkd.cli.launch import launch
from segkd.config.schema import Settings, load_settings
from segkd.errors import UserError
from segkd.utils.files import exclusive_lock, sha256
from segkd.utils.http import fetch_file

MANIFESTS = Path(__file__).parent / "downloads"

_FOLDERS = {"camvid": Path("data/camvid"), "weights": Path("weights")}
_MAX_BYTES = 2**30  # far more than any listed file has, so a larger one is not the requested file
_CURE = "run the same command again, or try a mirror with url=URL"


class Source(NamedTuple):
    """Files from one address: a single file, or a folder in a zip archive."""

    address: str
    folder: str | None
    """Folder of the files in the archive, below its top folder; None if the address is the file itself."""
    files: dict[str, str]
    """Path in the output folder → SHA-256."""


def download(cfg: DictConfig) -> None:
    """Fetch the files that the output folder lacks; a file gets its final name once it is complete and verified."""
    settings = load_settings(cfg, DownloadSettings)
    directory = settings.output_dir or _FOLDERS[settings.what]
    sources = read_manifest(MANIFESTS / f"{settings.what}.sha256")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(directory / ".lock", f"another download to {directory}"):
            missing = _find_missing(sources, directory)
            _fetch_all(missing, settings.url, directory)
    except OSError as error:
        raise UserError(
            f"cannot write to {directory} ({error.strerror}); make room there or choose another with output_dir=DIR"
        ) from None
    count = sum(len(source.files) for source in sources)
    print(f"{directory} is complete, {count} files{'' if missing else '; nothing to download'}")


def read_manifest(path: Path) -> list[Source]:
    """Read a manifest: lines `# from ADDRESS`, each followed by the hashes of its files."""
    sources: list[Source] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# from "):
            archive, _, folder = line.removeprefix("# from ").partition(".zip/")
            sources.append(Source(f"{archive}.zip", folder, {}) if folder else Source(archive, None, {}))
        else:
            digest, name = line.split(maxsplit=1)
            sources[-1].files[name] = digest
    return sources


def _find_missing(sources: list[Source], directory: Path) -> list[Source]:
    """Return the sources of which the folder lacks files.

    Raises:
        UserError: A file has another content; it may be the user's own, so it is not overwritten.
    """
    wrong = [
        name
        for source in sources
        for name, digest in source.files.items()
        if (directory / name).exists() and sha256(directory / name) != digest
    ]
    if wrong:
        raise UserError(
            f"{len(wrong)} files in {directory} are not the published ones, the first is {wrong[0]}; "
            "delete them to fetch them again, or choose another folder with output_dir=DIR"
        )
    return [source for source in sources if not all((directory / name).exists() for name in source.files)]


def _fetch_all(sources: list[Source], url: str, directory: Path) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for source in sources:
            name = Path(source.address).name if source.folder else next(iter(source.files))
            partial_file = _make_parent(directory / f"{name}.part")
            bar = progress.add_task(name, total=None)
            fetch_file(f"{url}/{quote(source.address)}", partial_file, _MAX_BYTES, partial(progress.update, bar))
            if source.folder:
                _unpack(partial_file, source, directory)
            else:
                _accept(partial_file, source, directory)


def _accept(partial_file: Path, source: Source, directory: Path) -> None:
    """Verify a fetched file and give it its final name."""
    ((name, digest),) = source.files.items()
    if sha256(partial_file) != digest:
        partial_file.unlink()
        raise UserError(f"{source.address} is not the published file (its SHA-256 differs) and was deleted; {_CURE}")
    partial_file.replace(directory / name)


def _unpack(archive: Path, source: Source, directory: Path) -> None:
    """Extract the files of the manifest from an archive, all or none.

    Paths in the archive are only looked up and never used as paths on disk, so none can lead out of the folder.
    """
    try:
        with ZipFile(archive) as opened, TemporaryDirectory(dir=directory, prefix=".unpacked-") as stage:
            members = {name.partition("/")[2]: name for name in opened.namelist()}
            for name, digest in source.files.items():
                member = opened.getinfo(members[f"{source.folder}{name}"])
                if member.file_size > _MAX_BYTES:
                    raise BadZipFile(f"{name} has {member.file_size} bytes")
                target = _make_parent(Path(stage, name))
                with opened.open(member) as content, target.open("wb") as file:
                    shutil.copyfileobj(content, file)
                if sha256(target) != digest:
                    raise BadZipFile(f"the SHA-256 of {name} differs")
            for name in source.files:
                Path(stage, name).replace(_make_parent(directory / name))
    # zipfile raises NotImplementedError for an unknown compression, and RuntimeError for a password.
    except (BadZipFile, KeyError, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        archive.unlink()
        reason = f"it has no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{source.address} is not the published archive ({reason}) and was deleted; {_CURE}") from None
    archive.unlink()


def _make_parent(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


class DownloadSettings(Settings):
    """Settings of `python -m segkd.download`."""

    what: Annotated[Literal["camvid", "weights"], BeforeValidator(lambda what: _check_downloadable(what))] = Field(
        description="701 street scenes with labels (about 200 MB), or eleven checkpoints of the authors (15 MB)"
    )
    output_dir: Path | None = Field(
        description="folder of the files; null: data/camvid, or weights", json_schema_extra={"values": "DIR|null"}
    )
    url: Annotated[str, AfterValidator(lambda url: _check_url(url))] = Field(
        description="the host, or a mirror with the same paths", json_schema_extra={"values": "URL"}
    )


def _check_downloadable(what: str | None) -> str:
    # The message of Literal would not say how to get Cityscapes.
    if what not in ("camvid", "weights"):
        raise ValueError(
            "camvid or weights can be downloaded; Cityscapes' license forbids redistribution, so register at "
            "cityscapes-dataset.com and fetch it with its own tool (pip install cityscapesscripts; "
            "csDownload leftImg8bit_trainvaltest.zip gtFine_trainvaltest.zip)"
        )
    return what


def _check_url(url: str) -> str:
    if not url.startswith(("https://", "http://")):
        raise ValueError("only https:// and http:// addresses are supported")
    return url.rstrip("/")


if __name__ == "__main__":
    launch("download")
