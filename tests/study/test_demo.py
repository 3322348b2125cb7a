"""`python -m segkd.demo`, with trainings of one epoch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkd.data.streets import Streets
from segkd.evaluate.loop import compute_confusion_matrix
from segkd.metrics import Scores
from segkd.models.student_io import load_student
from segkd.predict.drawing import colorize, draw_image_grid
from tests.helpers.commands import in_own_process


@pytest.mark.process
def test_demo_runs_to_its_table_and_picture(tmp_path: Path) -> None:
    result = in_own_process("demo", "epochs=1", "output_dir=demo", cwd=tmp_path)
    assert result.code == 0, result.err
    assert result.err.count("$ python -m segkd.train experiment=") == 3
    facts = json.loads((tmp_path / "demo/demo.json").read_text())
    assert facts.keys() == {"teacher", "alone", "distilled"}
    for name, said in facts.items():
        network = load_student(tmp_path / "demo" / name)
        scores = Scores.from_confusion_matrix(compute_confusion_matrix(network, Streets("test")), 11)
        assert said["miou"] == scores.miou
        assert f"{100 * scores.miou:.2f}" in result.out
        assert said["parameters"] == sum(p.numel() for p in network.parameters())
    gain = 100 * (facts["distilled"]["miou"] - facts["alone"]["miou"])
    assert result.out.splitlines()[-1].startswith(f"distillation: {gain:+.2f} mIoU")
    with Image.open(tmp_path / "demo/demo.png") as picture:
        assert picture.width > 5 * 192
        assert picture.height > 5 * 128


def test_gallery_puts_each_picture_in_its_place() -> None:
    labels = np.array([[0, 1], [255, 1]], np.uint8)
    colors = ((10, 20, 30), (200, 100, 0))
    picture = colorize(labels, colors)
    assert picture.tolist() == [[[10, 20, 30], [200, 100, 0]], [[255, 255, 255], [200, 100, 0]]]
    tones = ((50, 0, 90), (0, 150, 30))
    first, second = (np.full((8, 8, 3), tone, np.uint8) for tone in tones)
    sheet = np.array(draw_image_grid({"a": [first, second], "b": [second, first]}, {"x": (10, 20, 30)}, scale=4))
    left, right = sheet[:, : sheet.shape[1] // 2], sheet[:, sheet.shape[1] // 2 :]
    for side, order in ((left, tones), (right, tones[::-1])):
        places = [(side == tone).all(2) for tone in order]
        assert [int(place.sum()) for place in places] == [32 * 32, 32 * 32]
        assert places[0].nonzero()[0].max() < places[1].nonzero()[0].min()
