"""Images that show nearly the same in two splits."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from segkd.data.folder import Folder
from segkd.data.integrity import inspect_sample
from segkd.data.split_issues import find_near_duplicate_issues
from segkd.data.street_scene import StreetScene
from tests.helpers.fake_datasets import write_folder


def test_near_duplicates_across_splits_are_noted_once(tmp_path: Path) -> None:
    """Frames that follow each other are, the same file is a fault of its own, and other scenes are nothing."""
    write_folder(tmp_path)
    scenes = [StreetScene((40, 70), 0, number).to_sample().image for number in range(3)]
    frames = {
        "train/field/0": scenes[0][:, :60],
        "train/field/1": scenes[1][:, :60],
        "val/field/0": scenes[0][:, 1:61],
        "val/field/1": scenes[2][:, :60],
    }
    for name, image in frames.items():
        Image.fromarray(image).save(tmp_path / f"images/{name}.png")

    def inspect() -> list[str]:
        samples = {
            split: [inspect_sample(Folder(tmp_path, split), index) for index in range(2)] for split in ("train", "val")
        }
        issues = list(find_near_duplicate_issues(tmp_path, samples))
        assert all(issue.severity == "note" for issue in issues)
        return [issue.message for issue in issues]

    near = f"such as {tmp_path}/images/val/field/0.png and {tmp_path}/images/train/field/0.png; the frames of a sequence belong"
    (message,) = inspect()
    assert message.startswith(f"1 of 2 images of val shows nearly the same as an image of train, {near}")
    Image.fromarray(scenes[1][:, 1:61]).save(tmp_path / "images/val/field/1.png")
    (message,) = inspect()
    assert message.startswith(f"2 of 2 images of val show nearly the same as images of train, {near}")
    for name in ("val/field/0", "val/field/1"):
        Image.fromarray(frames[name.replace("val", "train")]).save(tmp_path / f"images/{name}.png")
    assert inspect() == []
    Image.new("I;16", (60, 40)).save(tmp_path / "images/val/field/0.png")
    assert inspect_sample(Folder(tmp_path, "val"), 0).fingerprint is None
