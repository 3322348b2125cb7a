"""Inspection of samples: whatever the files hold, it ends with issues and not with an exception."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from segkd.data.base import Sample
from segkd.data.folder import Folder
from segkd.data.integrity import SampleReport, inspect_sample
from segkd.data.label_issues import find_conversions
from segkd.errors import UserError
from tests.helpers.fake_datasets import write_folder
from tests.helpers.image_files import GRAY_ALPHA, make_exif, make_png, save

IMAGE = np.kron(np.arange(72, dtype=np.uint8).reshape(4, 6, 3), np.ones((5, 5, 1), np.uint8))
IDS = np.full((20, 30), 10, np.uint8)
IDS[:9, :7] = 20


def write_sample(root: Path, image: bytes, label: bytes) -> Folder:
    """Write a dataset of one sample."""
    write_folder(root)
    for kind, content in (("images", image), ("labels", label)):
        folder = root / kind / "train"
        for path in folder.rglob("*.*"):
            path.unlink()
        (folder / "a.png").write_bytes(content)
    return Folder(root, "train")


def save_turned(samples: np.ndarray, orientation: int) -> bytes:
    return save(Image.fromarray(samples), "PNG", exif=make_exif(orientation))


def list_notes(report: SampleReport) -> list[str]:
    assert all(issue.severity == "note" for issue in report.issues)
    return [issue.message.replace(str(issue.path), issue.path.parts[-3]) for issue in report.issues]


TURNS = {
    (1, 1): [],
    (6, 6): [
        "images is turned by its EXIF orientation (6), as its label is",
        "labels is turned by its EXIF orientation (6), as its image is",
    ],
    (3, 1): ["images is turned by its EXIF orientation (3), and its label is not; make sure that they match"],
    (1, 3): ["labels is turned by its EXIF orientation (3), and its image is not; make sure that they match"],
    (3, 2): [
        "images is turned by its EXIF orientation (3), and its label otherwise (2); make sure that they match",
        "labels is turned by its EXIF orientation (2), and its image otherwise (3); make sure that they match",
    ],
}  # fmt: skip


@pytest.mark.parametrize("orientations", TURNS)
def test_turned_images_and_labels_are_noted(tmp_path: Path, orientations: tuple[int, int]) -> None:
    image, label = orientations
    dataset = write_sample(tmp_path, save_turned(IMAGE, image), save_turned(IDS, label))
    assert list_notes(inspect_sample(dataset, 0)) == TURNS[orientations]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_image_and_label_of_one_orientation_match(tmp_path: Path, orientation: int) -> None:
    """A pair that is turned alike is the same as an upright pair, after the same turn."""
    sample: Sample = write_sample(tmp_path, save_turned(IMAGE, orientation), save_turned(IDS, orientation))[0]
    marked = sample.label == 1
    assert np.array_equal(np.unique(sample.image[marked], axis=0), np.unique(IMAGE[IDS == 20], axis=0))
    unturned = write_sample(tmp_path, save_turned(IMAGE, 3), save_turned(IDS, 1))[0]  # negative control
    assert not np.array_equal(
        np.unique(unturned.image[unturned.label == 1], axis=0), np.unique(IMAGE[IDS == 20], axis=0)
    )


def test_unusual_form_of_labels_is_noted_once(tmp_path: Path) -> None:
    label = make_png(np.stack([IDS, np.full_like(IDS, 255)], -1), 8, GRAY_ALPHA)
    report = inspect_sample(write_sample(tmp_path, save_turned(IMAGE, 1), label), 0)
    assert list_notes(report) == []
    [issue] = find_conversions([report] * 3)
    assert issue.message == f"label {report.label} and 2 more have an opaque alpha channel, which is dropped"
    assert issue.severity == "note"
    assert list(find_conversions([report._replace(conversion="")])) == []


@settings(derandomize=True, max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_inspection_survives_any_file(tmp_path: Path, data: st.DataObject) -> None:
    kinds = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM", "JPEG2000", "GIF")
    contents = []
    for samples in (IMAGE, IDS):
        content = bytearray(save(Image.fromarray(samples), data.draw(st.sampled_from(kinds), label="format")))
        for _ in range(data.draw(st.integers(0, 3), label="flips")):
            content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        contents.append(bytes(content[: data.draw(st.integers(0, 2 * len(content)), label="length")]))
    report = inspect_sample(write_sample(tmp_path, *contents), 0)
    assert all("\n" not in issue.message for issue in report.issues)


def test_blended_ids_are_explained(tmp_path: Path) -> None:
    """A mask that was resized with interpolation holds values that no class has."""
    blended = cv2.resize(IDS, (97, 61), interpolation=cv2.INTER_CUBIC)
    dataset = write_sample(tmp_path, save_turned(IMAGE, 1), save_turned(blended, 1))
    with pytest.raises(
        UserError, match=r"holds the ids .*\. They lie between the ids of classes: if it was resized, or saved as"
    ):
        dataset.load_label(0)
    dataset = write_sample(tmp_path, save_turned(IMAGE, 1), save_turned(np.full_like(IDS, 77), 1))
    with pytest.raises(UserError, match=r"holds the ids 77; .*\. Map unlabeled pixels to an ignored one \(255\)$"):
        dataset.load_label(0)
    dataset.label_map = {10: 0, 20: 1}
    with pytest.raises(UserError, match=r"\. Correct the label, or add them to the classes or to the ignored ones$"):
        dataset.load_label(0)
