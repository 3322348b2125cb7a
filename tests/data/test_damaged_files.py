"""Damaged or mismatched files: one sentence names the file, its content and the cure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from segkd.data.camvid import CamVid
from segkd.errors import UserError
from tests.helpers.fake_datasets import write_camvid

Damage = Callable[[Path, Path], object]  # applied to an image and its label


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    cv2.imwrite(str(path), np.ascontiguousarray(change(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))))


def truncate(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])


def add_unknown_ids(label: np.ndarray) -> np.ndarray:
    label[0, :3] = (34, 12, 200)
    return label


DAMAGES: dict[str, tuple[Damage, str]] = {
    "image without label": (lambda _, label: label.unlink(), r"1 of 1 images of CamVid train in .* have no label; .*LABEL"),
    "no image": (lambda image, _: image.unlink(), "found no images of CamVid train in .*; get it with `python -m segkd.download"),
    "strange ids": (lambda _, label: rewrite(label, add_unknown_ids), r"LABEL holds the ids 12, 34, 200; CamVid allows 0–11. .*\(11\)"),
    "sizes": (lambda _, label: rewrite(label, lambda ids: ids[:-2]), "IMAGE is 24×36 but its label LABEL 22×36; make them the same"),
    "RGB label": (lambda _, label: rewrite(label, lambda ids: ids[..., None].repeat(3, 2)), r"LABEL is not one 8-bit .*36, 3\) uint8"),
    "16-bit label": (lambda _, label: rewrite(label, lambda ids: ids.astype(np.uint16) + 250), r"LABEL is .* ids from 250 to 261"),
    "half an image": (lambda image, _: truncate(image, image.stat().st_size // 2), r"IMAGE is not a complete image \(\d+ bytes\); down"),
    "half a label": (lambda _, label: truncate(label, label.stat().st_size // 2), r"LABEL is not a complete image \(\d+ bytes\)"),
    "all but the end": (lambda image, _: truncate(image, -13), r"IMAGE is not a complete image"),
    "empty image": (lambda image, _: truncate(image, 0), r"IMAGE is not a complete image \(0 bytes\)"),
    "empty label": (lambda _, label: truncate(label, 0), r"LABEL is not a complete image \(0 bytes\)"),
    "text": (lambda image, _: image.write_text("a web page"), r"IMAGE is not a complete image \(10 bytes\)"),
    "a folder": (lambda image, _: (image.unlink(), image.mkdir()), r"cannot read IMAGE \(Is a directory\); restore"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_reported(tmp_path: Path, name: str) -> None:
    write_camvid(tmp_path, train=1, val=0, test=0, size=(24, 36))
    image, label = CamVid(tmp_path, "train").files[0]
    assert CamVid(tmp_path, "train")[0].image.shape == (24, 36, 3)
    damage, message = DAMAGES[name]
    damage(image, label)
    with pytest.raises(UserError, match=message.replace("IMAGE", str(image)).replace("LABEL", str(label))) as error:
        CamVid(tmp_path, "train")[0]
    assert "\n" not in str(error.value)


def test_every_truncation_is_reported(tmp_path: Path) -> None:
    """A decoder that fills in missing pixels would silently train on gray areas."""
    write_camvid(tmp_path, train=1, val=0, test=0, size=(24, 36))
    data = CamVid(tmp_path, "train")
    for path in data.files[0]:
        content = path.read_bytes()
        for length in range(0, len(content), 1 + len(content) // 200):
            path.write_bytes(content[:length])
            with pytest.raises(UserError, match=rf"not a complete image \({length} bytes\)"):
                data[0]
        path.write_bytes(content[:-1])
        with pytest.raises(UserError):
            data[0]
        path.write_bytes(content)
    assert data[0].label.shape == (24, 36)


@pytest.mark.parametrize(
    ("root", "split", "message"),
    [
        (None, "train", "dataset=camvid needs dataset.root=DIR; get it with `python -m segkd.download what=camvid`"),
        ("nowhere", "train", "there is no folder nowhere for dataset=camvid; get it with"),
        ("nowhere", "training", "CamVid has no split 'training'; it has train, val, test, trainval"),
    ],
)
def test_missing_dataset_is_reported(root: str | None, split: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        CamVid(root, split)
