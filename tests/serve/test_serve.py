"""`python -m segkd.serve`: the HTML for an upload, and a real server."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from segkd.data.cityscapes import Cityscapes
from segkd.data.streets import Streets
from segkd.models.base import Normalization
from segkd.models.espnet import ESPNet, ESPNetC
from segkd.models.student_io import save_student
from segkd.predict.palette import Palette
from segkd.serve.networks import load_networks
from segkd.serve.viewer import Viewer
from segkd.serve.web_demo import UploadHandler, load_template, make_upload_handler
from segkd.utils.packages import explain_install
from tests.helpers.commands import Command, start_process

NORMALIZATION = Normalization(Streets.mean, Streets.std)


def make_metadata(dataset: type[Streets] | type[Cityscapes]) -> dict[str, object]:
    return {
        "classes": list(dataset.classes),
        "colors": [list(color) for color in dataset.colors],
        "dataset": dataset.__name__,
    }


LABEL_LOSS = {"cross_entropy": {"_target_": "segkd.losses.cross_entropy.CrossEntropy"}}


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a baseline, a distilled student, their teacher, a student without config, and one of other classes."""
    monkeypatch.chdir(tmp_path)
    for name in ("baseline", "distilled", "teacher", "bare", "city"):
        Path(name).mkdir()
    for name in ("baseline", "distilled", "bare"):
        save_student(ESPNetC(11, NORMALIZATION, p=1, q=1), Path(name), make_metadata(Streets))
    save_student(ESPNet(11, NORMALIZATION, p=1, q=1), Path("teacher"), {})
    save_student(ESPNetC(19, NORMALIZATION, p=1, q=1), Path("city"), make_metadata(Cityscapes))
    config: dict[str, Any] = {
        "seed": 0,
        "loss": {**LABEL_LOSS, "pixelwise": {"_target_": "segkd.losses.pixelwise.Pixelwise"}},
        "adversary": {"_target_": None},
        "teacher": {"_target_": "segkd.models.espnet.ESPNet", "checkpoint": "teacher/student.safetensors"},
        "dataset": {"_target_": "segkd.data.streets.Streets"},
        "data": {"val_split": "val"},
    }
    Path("distilled/config.yaml").write_text(yaml.safe_dump(config))
    baseline = {**config, "loss": LABEL_LOSS, "teacher": {"_target_": None}}
    Path("baseline/config.yaml").write_text(yaml.safe_dump(baseline))
    Image.fromarray(Streets("test")[0].image).save("scene.png")
    return tmp_path


def make_handler(*runs: str) -> UploadHandler:
    """Return the upload handler of these runs."""
    folders = [Path(run) for run in runs]
    networks = load_networks(folders, show_teacher=True)
    modules = {name: served.network.eval() for name, served in networks.items()}
    viewer = Viewer(modules, Palette.from_run(folders[0]), 0.6, 512, 4)
    return make_upload_handler(viewer, networks, "a CPU", load_template())


def test_html_shows_predictions_costs_and_class_colors() -> None:
    html, video = make_handler("baseline", "distilled")("scene.png")
    assert video is None
    assert re.findall(r'<img src="data:image/png;base64,[^"]+" alt="([^"]*)">', html) == [
        "image", "teacher", "baseline", "distilled",
    ]  # fmt: skip
    rows = re.findall(r'<tr><th scope="row">(.*?)</th><td>([\d.]+)</td><td>(.*?)</td><td>(.*?)</td></tr>', html)
    size = sum(p.numel() for p in ESPNetC(11, NORMALIZATION, p=1, q=1).parameters())
    assert [(row[0], row[3]) for row in rows] == [
        ("teacher", ""), ("baseline", "labels"), ("distilled", "labels + pixelwise"),
    ]  # fmt: skip
    assert rows[1][2] == rows[2][2] == f"{size:,}"
    assert all(float(row[1]) > 0 for row in rows)
    for name, color in zip(Streets.classes, Streets.colors, strict=True):
        assert f'<span style="background: rgb{color}"></span>{name}</li>' in html
    assert "192×128 pixels" in html


def test_students_are_named_by_their_training() -> None:
    def list_names(*runs: str) -> list[str]:
        return [*load_networks([Path(run) for run in runs], show_teacher=False)]

    assert list_names("bare") == ["student"]
    assert list_names("distilled", "baseline", "bare") == [
        "distilled", "baseline", "student",
    ]  # fmt: skip
    Path("again").symlink_to("distilled")
    assert list_names("distilled", "again") == ["distilled (distilled)", "distilled (again)"]


def test_invalid_upload_gives_an_error_without_server_paths(workspace: Path) -> None:
    Path("<b>.png").write_text("no image")
    handler = make_handler("baseline")
    html, video = handler(str(workspace / "<b>.png"))
    assert video is None
    assert (
        '<p class="error" role="alert">&lt;b&gt;.png is not an image; give an image (PNG, JPEG) or a video</p>' in html
    )
    assert str(workspace) not in html
    assert handler(None) == ("", None)


MISTAKES = {
    "nothing": (("run=null",), "no run given; choose one with run=DIR, or several with run=[DIR,DIR]"),
    "no run": (("run=nowhere",), "no student in nowhere: student.yaml is missing"),
    "no weights": (("run=empty",), "student.safetensors"),
    "no config": (("run=bare",), "bare/config.yaml is missing, which names the teacher"),
    "teacher that moved": (("run=moved",), "moved/config.yaml names cannot be loaded: no checkpoint at gone"),
    "other classes": (
        ("run=[baseline,city]", "teacher=false"),
        "city has 19 classes (road, sidewalk, building, wall, …); give runs with the same classes in the same order",
    ),
    "no port": (("port=0",), "port"),
    "address of another machine": (("host=192.0.2.1",), "cannot listen on 192.0.2.1, port "),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_give_one_sentence(command: Command, name: str) -> None:
    pytest.importorskip("gradio")
    for name_of_run in ("empty", "moved"):
        Path(name_of_run).mkdir()
        Path(name_of_run, "student.yaml").write_bytes(Path("distilled/student.yaml").read_bytes())
    config = yaml.safe_load(Path("distilled/config.yaml").read_text())
    Path("empty/config.yaml").write_text(yaml.safe_dump(config))
    config["teacher"]["checkpoint"] = "gone.safetensors"
    Path("moved/config.yaml").write_text(yaml.safe_dump(config))
    Path("moved/student.safetensors").write_bytes(Path("distilled/student.safetensors").read_bytes())
    arguments, phrase = MISTAKES[name]
    code, out, err = command("serve", "run=baseline", f"port={find_free_port()}", *arguments)
    assert (code, out) == (2, ""), err
    assert phrase in err.splitlines()[-1]  # after the log of the networks that could be loaded
    assert err.count("\n") <= 2


def test_missing_gradio_names_the_extra(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, out, err = command("serve", "run=baseline")
    assert (code, out) == (2, "")
    assert err == f"segkd: the web demo needs gradio, which is not installed; {explain_install('serve')}\n"


def fetch(address: str) -> str:
    with urllib.request.urlopen(address) as response:
        return str(response.read().decode())


def list_external_urls(text: str) -> list[str]:
    """Return the external addresses that a browser would load for it."""
    return re.findall(r"""(?:<(?:script|link|img)[^>]+(?:src|href)=|url\()["']?(https?:[^"')]*)""", text)


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def server(workspace: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start a server; return its address and its process."""
    pytest.importorskip("gradio")
    process = start_process(
        "serve", "run=[baseline,distilled]", f"port={find_free_port()}", "max_upload_mb=1", cwd=workspace
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip(), process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.process
def test_real_server_predicts_refuses_and_ends(
    server: tuple[str, subprocess.Popen[str]], command: Command, workspace: Path
) -> None:
    from gradio_client import Client, handle_file

    address, process = server
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", address), process.communicate()
    page, theme = (fetch(f"{address}/{name}") for name in ("", "theme.css"))
    assert "Compare segmentation networks" in page
    assert list_external_urls(page + theme) == []
    assert list_external_urls('<link href="https://elsewhere/a.css"> @import url("https://elsewhere/b.css")') == [
        "https://elsewhere/a.css", "https://elsewhere/b.css",
    ]  # fmt: skip
    client = Client(address, verbose=False, download_files=False)
    html, _ = client.predict(handle_file("scene.png"), api_name="/predict")
    assert re.findall(r'alt="([^"]*)"', html) == ["image", "teacher", "baseline", "distilled"]
    Path("notes.png").write_text("no image")
    html, _ = client.predict(handle_file("notes.png"), api_name="/predict")
    assert "notes.png is not an image; give an image (PNG, JPEG) or a video" in html
    Path("large.png").write_bytes(bytes(2**20 + 1))
    with pytest.raises(Exception, match=r"413|size"):
        client.predict(handle_file("large.png"), api_name="/predict")

    taken = command("serve", "run=baseline", f"port={address.rpartition(':')[2]}")
    assert taken.code == 2
    assert re.search(
        r"cannot listen on 127.0.0.1, port \d+ \(Address already in use.*; give another host or port", taken.err
    )

    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143
    assert all(line.startswith("segkd: student.safetensors: ") for line in err.splitlines()), err


@pytest.mark.process
def test_interrupt_ends_the_server(server: tuple[str, subprocess.Popen[str]]) -> None:
    _, process = server
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert all(line.startswith("segkd: student.safetensors: ") for line in err.splitlines()), err
