"""`python -m segkd.serve`: the answers of its page, and a real server."""

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
from segkd.predict.rendering import Palette
from segkd.serve.main import Answer, _students, _teacher, _template, run_viewer
from segkd.serve.viewer import Viewer
from tests.helpers.commands import Command, started

NORMALIZATION = Normalization(Streets.mean, Streets.std)


def facts(data: type[Streets] | type[Cityscapes]) -> dict[str, object]:
    return {"classes": list(data.classes), "colors": [list(color) for color in data.colors], "dataset": data.__name__}


BY_LABELS = {"cross_entropy": {"_target_": "segkd.losses.cross_entropy.CrossEntropy"}}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a student alone, a distilled one, their teacher, a student without its run, and one of other classes."""
    monkeypatch.chdir(tmp_path)
    for name in ("alone", "distilled", "teacher", "bare", "city"):
        Path(name).mkdir()
    for name in ("alone", "distilled", "bare"):
        save_student(ESPNetC(11, NORMALIZATION, p=1, q=1), Path(name), facts(Streets))
    save_student(ESPNet(11, NORMALIZATION, p=1, q=1), Path("teacher"), {})
    save_student(ESPNetC(19, NORMALIZATION, p=1, q=1), Path("city"), facts(Cityscapes))
    config: dict[str, Any] = {
        "seed": 0,
        "loss": {**BY_LABELS, "pixelwise": {"_target_": "segkd.losses.pixelwise.Pixelwise"}},
        "adversary": {"_target_": None},
        "teacher": {"_target_": "segkd.models.espnet.ESPNet", "checkpoint": "teacher/student.safetensors"},
        "dataset": {"_target_": "segkd.data.streets.Streets"},
        "data": {"val_split": "val"},
    }
    Path("distilled/config.yaml").write_text(yaml.safe_dump(config))
    alone = {**config, "loss": BY_LABELS, "teacher": {"_target_": None}}
    Path("alone/config.yaml").write_text(yaml.safe_dump(alone))
    Image.fromarray(Streets("test")[0].image).save("scene.png")
    return tmp_path


def answer(*runs: str) -> Answer:
    """What the page of these runs says."""
    folders = [Path(run) for run in runs]
    networks = {**_teacher(folders), **_students(folders)}
    shown = {name: one.network.eval() for name, one in networks.items()}
    viewer = Viewer(shown, Palette.of_run(folders[0]), 0.6, 512, 4)
    return run_viewer(viewer, networks, "a CPU", _template())


def test_every_network_has_a_picture_its_cost_and_the_classes_their_colours() -> None:
    said, film = answer("alone", "distilled")("scene.png")
    assert film is None
    assert re.findall(r'<img src="data:image/png;base64,[^"]+" alt="([^"]*)">', said) == [
        "image", "teacher", "student alone", "distilled",
    ]  # fmt: skip
    rows = re.findall(r'<tr><th scope="row">(.*?)</th><td>([\d.]+)</td><td>(.*?)</td><td>(.*?)</td></tr>', said)
    size = sum(p.numel() for p in ESPNetC(11, NORMALIZATION, p=1, q=1).parameters())
    assert [(row[0], row[3]) for row in rows] == [
        ("teacher", ""), ("student alone", "labels"), ("distilled", "labels + pixelwise"),
    ]  # fmt: skip
    assert rows[1][2] == rows[2][2] == f"{size:,}"
    assert all(float(row[1]) > 0 for row in rows)
    for name, color in zip(Streets.classes, Streets.colors, strict=True):
        assert f'<span style="background: rgb{color}"></span>{name}</li>' in said
    assert "192×128 pixels" in said


def test_names_of_students() -> None:
    assert [*_students([Path("bare")])] == ["student"]
    assert [*_students([Path("distilled"), Path("alone"), Path("bare")])] == [
        "distilled", "student alone", "student",
    ]  # fmt: skip
    Path("again").symlink_to("distilled")
    assert [*_students([Path("distilled"), Path("again")])] == ["distilled (distilled)", "distilled (again)"]


def test_a_fault_of_the_upload_is_a_sentence_without_the_servers_paths(place: Path) -> None:
    Path("<b>.png").write_text("no image")
    see = answer("alone")
    said, film = see(str(place / "<b>.png"))
    assert film is None
    assert '<p class="fault" role="alert">&lt;b&gt;.png is no image; give an image (PNG, JPEG) or a film</p>' in said
    assert str(place) not in said
    assert see(None) == ("", None)


MISTAKES = {
    "nothing": (("run=null",), "say whose student to show: run=DIR, or several as run=[DIR,DIR]"),
    "no run": (("run=nowhere",), "no student in nowhere: student.yaml is missing"),
    "no weights": (("run=empty",), "student.safetensors"),
    "no config": (("run=bare",), "the teacher is the one that bare/config.yaml names, and there is no such file"),
    "teacher that moved": (("run=moved",), "moved/config.yaml names cannot be had: no checkpoint at gone"),
    "other classes": (
        ("run=[alone,city]", "teacher=false"),
        "alone knows the classes of Streets and city those of Cityscapes; show runs of the same",
    ),
    "no port": (("port=0",), "port"),
    "address of somebody else": (("host=192.0.2.1",), "cannot listen on 192.0.2.1, port "),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_end_with_a_sentence(command: Command, name: str) -> None:
    pytest.importorskip("gradio")
    for made in ("empty", "moved"):
        Path(made).mkdir()
        Path(made, "student.yaml").write_bytes(Path("distilled/student.yaml").read_bytes())
    config = yaml.safe_load(Path("distilled/config.yaml").read_text())
    Path("empty/config.yaml").write_text(yaml.safe_dump(config))
    config["teacher"]["checkpoint"] = "gone.safetensors"
    Path("moved/config.yaml").write_text(yaml.safe_dump(config))
    Path("moved/student.safetensors").write_bytes(Path("distilled/student.safetensors").read_bytes())
    typed, said = MISTAKES[name]
    code, out, err = command("serve", "run=alone", f"port={free_port()}", *typed)
    assert (code, out) == (2, ""), err
    assert len(err.splitlines()) == 1
    assert said in err


def test_without_gradio_the_extra_is_named(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, out, err = command("serve", "run=alone")
    assert (code, out) == (2, "")
    assert err == "segkd: the page needs gradio, which is not installed; pip install 'segkd[serve]'\n"


def fetched(address: str) -> str:
    with urllib.request.urlopen(address) as answered:
        return str(answered.read().decode())


def fetched_by(text: str) -> list[str]:
    """Addresses elsewhere that a browser would fetch for it."""
    return re.findall(r"""(?:<(?:script|link|img)[^>]+(?:src|href)=|url\()["']?(https?:[^"')]*)""", text)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def server(place: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Its address, and its process."""
    pytest.importorskip("gradio")
    process = started("serve", "run=[alone,distilled]", f"port={free_port()}", "max_upload_mb=1", cwd=place)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip(), process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.process
def test_a_real_server_answers_refuses_and_ends(
    server: tuple[str, subprocess.Popen[str]], command: Command, place: Path
) -> None:
    from gradio_client import Client, handle_file

    address, process = server
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", address), process.communicate()
    page, theme = (fetched(f"{address}/{name}") for name in ("", "theme.css"))
    assert "What the networks see" in page
    assert fetched_by(page + theme) == []
    assert fetched_by('<link href="https://elsewhere/a.css"> @import url("https://elsewhere/b.css")') == [
        "https://elsewhere/a.css", "https://elsewhere/b.css",
    ]  # fmt: skip
    client = Client(address, verbose=False, download_files=False)
    said, _ = client.predict(handle_file("scene.png"), api_name="/see")
    assert re.findall(r'alt="([^"]*)"', said) == ["image", "teacher", "student alone", "distilled"]
    Path("notes.png").write_text("no image")
    said, _ = client.predict(handle_file("notes.png"), api_name="/see")
    assert "notes.png is no image; give an image (PNG, JPEG) or a film" in said
    Path("large.png").write_bytes(bytes(2**20 + 1))
    with pytest.raises(Exception, match=r"413|size"):
        client.predict(handle_file("large.png"), api_name="/see")

    taken = command("serve", "run=alone", f"port={address.rpartition(':')[2]}")
    assert taken.code == 2
    assert re.search(
        r"cannot listen on 127.0.0.1, port \d+ \(Address already in use.*; give another host or port", taken.err
    )

    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (143, "")


@pytest.mark.process
def test_an_interrupt_ends_it(server: tuple[str, subprocess.Popen[str]]) -> None:
    _, process = server
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")
