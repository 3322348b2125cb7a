"""Near-duplicates: frames of one sequence and copies are linked, other scenes are not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from segkd.data.near_duplicates import MAX_DISTANCE, compute_distances, compute_fingerprint, group_near_duplicates
from segkd.data.street_scene import StreetScene

Array = npt.NDArray[np.uint8]
SCENES = [StreetScene((128, 240), 0, number).to_sample().image for number in range(12)]


def measure(one: Array, other: Array) -> float:
    rows = [compute_fingerprint(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[None] for image in (one, other)]
    return float(compute_distances(*rows)[0, 0])


def write(path: Path, image: Array) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])
    return path


def test_distance_of_a_hand_worked_pair() -> None:
    """An image that brightens to the right has 144 comparisons with contrast; its upper half has 72 of them, mirrored none."""
    ramp = np.arange(0, 130, 10, dtype=np.uint8)[None].repeat(13, 0)
    half = np.where(np.arange(13)[:, None] < 6, ramp, 0).astype(np.uint8)
    fingerprint = compute_fingerprint(ramp)
    assert (fingerprint[:144] == 1).all()
    assert not fingerprint[144:].any()
    rows = [compute_fingerprint(image)[None] for image in (ramp, half, ramp[:, ::-1])]
    assert compute_distances(rows[0], rows[0])[0, 0] == 0
    assert compute_distances(rows[0], rows[2])[0, 0] == 1
    # Of the 13 - 1 pixels below the upper half, the one of the ramp's zero does not differ from the black half.
    assert np.abs(rows[1]).sum() == 72 + 11
    assert compute_distances(rows[0], rows[1])[0, 0] == pytest.approx(1 - 72 / (144 + 11))


def test_copies_are_near_and_other_scenes_are_not() -> None:
    rng = np.random.default_rng(0)
    for image in SCENES:
        noisy = np.clip(image + rng.normal(0, 10, image.shape), 0, 255).astype(np.uint8)
        bright = np.clip(image * 1.2 + 10, 0, 255).astype(np.uint8)
        half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        compressed = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], cv2.IMREAD_COLOR)
        assert max(measure(image, copy) for copy in (noisy, bright, half, compressed, image[2:, 6:])) < MAX_DISTANCE
    others = [measure(one, other) for i, one in enumerate(SCENES) for other in SCENES[:i]]
    assert min(others) > MAX_DISTANCE + 0.1


def test_the_frames_of_a_sequence_are_one_group(tmp_path: Path) -> None:
    """Its ends, 60 pixels apart, are no near-duplicates: the frames between them link them."""
    frames = [
        write(tmp_path / f"{scene}/{start:02d}.jpg", SCENES[scene][:, start : start + 180])
        for scene in range(3)
        for start in range(0, 61, 4)
    ]
    lone = [write(tmp_path / f"lone/{scene}.png", SCENES[scene][:, :180]) for scene in range(3, 12)]
    (tmp_path / "damaged.png").write_bytes(frames[0].read_bytes()[:500])
    paths = [*lone[:4], *frames, tmp_path / "damaged.png", *lone[4:]]
    assert group_near_duplicates(paths) == [frames[:16], frames[16:32], frames[32:]]
    ends = [cv2.imread(str(frame))[..., ::-1] for frame in (frames[0], frames[15])]
    assert measure(*ends) > MAX_DISTANCE
    assert group_near_duplicates([]) == []


def test_images_with_little_to_see_are_not_linked(tmp_path: Path) -> None:
    """Black frames, and dark ones with one small spot each, have too little contrast to say that they are the same."""
    dark = np.full((130, 130, 3), 8, np.uint8)
    spots = [dark.copy() for _ in range(6)]
    for number, image in enumerate(spots):
        image[20 * number + 3 : 20 * number + 9, 60:66] = 255
    paths = [write(tmp_path / f"{i}.png", image) for i, image in enumerate([dark, dark, *spots])]
    assert group_near_duplicates(paths) == []
