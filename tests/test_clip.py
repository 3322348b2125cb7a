"""`python -m segkd.clip`: two networks on one sequence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from segkd.data.streets import Streets
from segkd.models.base import Normalization
from segkd.models.espnet import ESPNetC
from segkd.models.student_io import save_student
from segkd.predict.sources import open_source, require_av
from tests.helpers.commands import Command


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with two runs, and one of other classes that learnt from streets nevertheless."""
    monkeypatch.chdir(tmp_path)
    for name, classes in {"alone": 11, "distilled": 11, "city": 19}.items():
        Path(name).mkdir()
        save_student(ESPNetC(classes, Normalization(Streets.mean, Streets.std), p=1, q=1), Path(name), {})
        (Path(name) / "config.yaml").write_text("dataset: {_target_: segkd.data.streets.Streets}\n")


@pytest.fixture(autouse=True)
def others(place: None) -> None:
    """Runs of as many classes that learnt from other data; and one that does not say from which."""
    for name in ("camera", "other", "bare"):
        shutil.copytree("alone", name)
    Path("camera/config.yaml").write_text("dataset: {_target_: segkd.data.camvid.CamVid, root: camvid}\n")
    Path("other/config.yaml").write_text("dataset: {_target_: segkd.data.streets.Streets, scene_seed: 9}\n")
    Path("distilled/config.yaml").write_text("dataset: {_target_: segkd.data.streets.Streets, scene_seed: 0}\n")
    Path("bare/config.yaml").unlink()


def test_a_film_and_a_gif_of_62_scenes(command: Command) -> None:
    code, out, err = command("clip", "before=bare", "after=distilled", "output=new/streets", "width=300", "fps=2")
    assert code == 0, err
    assert out.startswith("62 frames of Streets → new/streets.mp4 (")
    film = open_source("new/streets.mp4")
    shown = [*film]
    assert (len(shown), film.rate, film.skipped) == (62, 2, [])
    assert shown[0].image.shape[1] == 3 * (192 + 6) + 6
    image = Streets("test")[61].image.astype(int)
    seen = shown[61].image[24 : 24 + 128, 6 : 6 + 192].astype(int)
    assert abs(seen - image).mean() < 8  # grain costs more than a film spends on it
    assert abs(shown[60].image[24 : 24 + 128, 6 : 6 + 192].astype(int) - image).mean() > 20
    with Image.open("new/streets.gif") as gif:
        assert (gif.n_frames, gif.width, gif.info["duration"]) == (62, 300, 500)
    assert Path("new/streets.gif").stat().st_size < 2e6


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("after=null",), "say which networks to compare: before=RUN after=RUN"),
        (
            ("after=nowhere.pth", "dataset=streets"),
            "nowhere.pth is no folder of a run; if it holds weights, say of which network: model=NAME",
        ),
        (("after=nowhere.pth", "model=espnet_c", "dataset=streets"), "no checkpoint at nowhere.pth"),
        (("before=a.pth", "after=b.pth", "model=espnet_c"), "say on which data: dataset=NAME dataset.root=DIR"),
        (
            ("before=camera",),
            "the data of camera are not at camvid, seen from where the training started; give dataset.root=DIR",
        ),
        (("before=other",), "other and distilled learnt from different data; give dataset=NAME dataset.root=DIR"),
        (("after=city",), "the student in city scores 19 classes, Streets has 11"),
        (("sequence=0001TP",), "no image of Streets test is called 0001TP…; the first is test_00000"),
        (("split=night",), "no split 'night'"),
    ],
)
def test_mistakes_end_with_a_sentence(command: Command, typed: tuple[str, ...], said: str) -> None:
    code, out, err = command("clip", "before=alone", "after=distilled", "output=new/clip", *typed)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1
    assert not Path("new").exists()


@pytest.mark.published
def test_the_authors_students_on_the_sequence_0001TP(command: Command, published_files: Path) -> None:
    weights = published_files / "weights/skd-authors/camvid"
    code, out, err = command(
        "clip", "dataset=camvid", f"dataset.root={published_files / 'data/camvid'}", "sequence=0001TP", "fps=8", "model=espnet_c",
        f"before={weights / 'espnet_c_base_56.7.pth'}", f"after={weights / 'espnet_c_kd_sd_60.3.pth'}", "output=clip",
    )  # fmt: skip
    assert code == 0, err
    assert out.startswith("62 frames of CamVid")
    with require_av().open("clip.mp4") as container:
        stream = container.streams.video[0]
        assert (stream.frames, stream.width, stream.codec_context.name) == (62, 3 * (480 + 6) + 6, "h264")
    with Image.open("clip.gif") as gif:
        assert (gif.n_frames, gif.width) == (62, 600)
    assert Path("clip.gif").stat().st_size <= 2e6
