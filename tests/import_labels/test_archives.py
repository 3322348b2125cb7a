"""Archives of exports: what is unpacked, and what is refused."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from segkd.errors import UserError
from segkd.import_labels.archives import open_export

FILES = {"annotations.xml": b"<annotations/>", "images/Ünï [1].jpg": b"an image"}


def _write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def _write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ["task.zip", "TASK.ZIP", "task.tar", "task.tar.gz", "task.tgz"])
def test_an_archive_is_unpacked_and_removed(name: str, tmp_path: Path) -> None:
    if name.lower().endswith(".zip"):
        archive = _write_zip(tmp_path / name, FILES)
    else:
        archive = _write_tar(tmp_path / name, FILES, "w" if name.endswith(".tar") else "w:gz")
    with open_export(archive) as folder:
        assert folder != archive
        assert {file: (folder / file).read_bytes() for file in FILES} == FILES
    assert not folder.exists()


def test_errors_name_the_archive(tmp_path: Path) -> None:
    archive = _write_zip(tmp_path / "task.zip", FILES)
    with (
        pytest.raises(UserError, match=f"^{tmp_path}/task.zip/annotations.xml is damaged$"),
        open_export(archive) as folder,
    ):
        raise UserError(f"{folder / 'annotations.xml'} is damaged")


def test_folders_and_other_files_are_used_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "export.zip").mkdir()
    for path in (tmp_path / "export.zip", _write_zip(tmp_path / "annotations.xml", FILES)):
        with open_export(path) as opened:
            assert opened == path


def test_a_missing_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no input=.*nowhere\.zip"), open_export(tmp_path / "nowhere.zip"):
        pass


@pytest.mark.parametrize(
    "name", ["../escaped.txt", "images/../../escaped.txt", "/escaped.txt", "..\\escaped.txt", "C:\\escaped.txt"]
)
@pytest.mark.parametrize("write", [_write_zip, _write_tar], ids=["zip", "tar"])
def test_entries_that_lead_out_are_refused(write, name: str, tmp_path: Path) -> None:
    archive = write(tmp_path / ("task.zip" if write is _write_zip else "task.tar"), {**FILES, name: b"x"})
    with pytest.raises(UserError, match="a path out of it; unpack it yourself if you trust it"), open_export(archive):
        pass
    assert not [*tmp_path.rglob("escaped*"), *tmp_path.parent.glob("escaped*")]


def test_links_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("images/link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "task.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    tar_link = tarfile.TarInfo("images/link")
    tar_link.type, tar_link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(tmp_path / "task.tar", "w") as tar:
        tar.addfile(tar_link)
    for name in ("task.zip", "task.tar"):
        with pytest.raises(UserError, match="images/link, a link"), open_export(tmp_path / name):
            pass


@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_an_archive_that_expands_too_much_is_refused(suffix: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("segkd.import_labels.archives._ALWAYS_ALLOWED_BYTES", 1 << 16)
    zeros = {"annotations.xml": bytes(1 << 22)}
    path = tmp_path / f"bomb.{suffix}"
    archive = _write_zip(path, zeros) if suffix == "zip" else _write_tar(path, zeros, "w:gz")
    with pytest.raises(UserError, match=r"would expand to more than \d+ MiB"), open_export(archive):
        pass
    monkeypatch.setattr("segkd.import_labels.archives._ALWAYS_ALLOWED_BYTES", 1 << 23)  # the limit alone refuses it
    with open_export(archive) as folder:
        assert (folder / "annotations.xml").stat().st_size == 1 << 22


def test_two_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    archive = _write_zip(tmp_path / "task.zip", FILES)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(archive, "a") as opened:
        opened.writestr("annotations.xml", "other")
    with pytest.raises(UserError, match=r"annotations\.xml twice"), open_export(archive):
        pass


@pytest.mark.parametrize("name", ["task.rar", "task.7z", "annotations.xml.gz"])
def test_archives_of_other_kinds_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"Rar!")
    with (
        pytest.raises(UserError, match=r"is no \.zip, .*; unpack it yourself and give the folder"),
        open_export(tmp_path / name),
    ):
        pass


@pytest.mark.parametrize("name", ["task.zip", "task.tar", "task.tar.gz"])
def test_damaged_archives_are_refused(name: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * 64
    if name == "task.zip":
        archive = _write_zip(tmp_path / name, {"a.bin": content})
    else:
        archive = _write_tar(tmp_path / name, {"a.bin": content}, "w" if name.endswith(".tar") else "w:gz")
    whole = archive.read_bytes()
    for damaged in (b"", b"no archive", whole[: len(whole) // 2]):
        archive.write_bytes(damaged)
        with pytest.raises(UserError, match="cannot be unpacked"), open_export(archive):
            pass
