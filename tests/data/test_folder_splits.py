"""`splits` in classes.yaml: which images a split gets, what its users see, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from segkd.data.folder import Folder
from segkd.data.folder_splits import SplitRule, read_split_rule
from segkd.data.identity import identify_data
from segkd.data.splitting import assign_splits
from segkd.data.street_scene import StreetScene
from segkd.errors import UserError
from tests.helpers.commands import Command
from tests.helpers.fake_datasets import edit_metadata, write_folder

NAMES = [f"cam{camera}_{frame}" for camera in range(4) for frame in range(3)]


def write_flat(root: Path, splits: Mapping[str, Any] | None, names: list[str] = NAMES) -> Path:
    """Write a folder whose images and labels lie together, each of another color."""
    write_folder(root)
    for kind in ("images", "labels"):
        source = Image.open(root / kind / "train/field/0.png").copy()
        shutil.rmtree(root / kind)
        for number, name in enumerate(names):
            path = root / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            source.putpixel((0, 0), (number, 0, 0) if kind == "images" else 10)
            source.save(path)
    edit_metadata(root, splits=splits)
    return root


def get_names(root: Path, split: str) -> set[str]:
    data = Folder(root, split)
    return {data.get_name(i) for i in range(len(data))}


def test_rule_splits_images_and_their_labels(tmp_path: Path) -> None:
    write_flat(tmp_path, {"val": 0.25, "test": 0.25, "seed": 3, "group": "[^_]+"}, [f"day/{name}" for name in NAMES])
    expected = assign_splits([f"day/{name}" for name in NAMES], {"val": 0.25, "test": 0.25}, 3, "[^_]+")
    data = Folder(tmp_path, "val")
    assert data.splits == ("train", "val", "test")
    for split in data.splits:
        assert get_names(tmp_path, split) == {name for name in expected if expected[name] == split}
        for image, label in Folder(tmp_path, split).files:
            assert label.relative_to(tmp_path / "labels") == image.relative_to(tmp_path / "images")
    assert len(data) == 3
    assert data[0].label.shape == (40, 60)
    with pytest.raises(UserError, match="has no split 'all'; it has train, val, test"):
        Folder(tmp_path, "all")


def test_train_is_the_rest_and_may_be_written() -> None:
    assert read_split_rule({"train": 0.7, "val": 0.2, "test": 0.1}) == SplitRule(
        {"val": 0.2, "test": 0.1}, 0, None, False
    )


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (0.2, r"'splits' is 0.2; give \{val: 0.2, test: 0.1,"),
        (None, "'splits' is None; give"),
        ({"valid": 0.2}, "'splits' has the key valid; give"),
        ({"test": 0.2}, "'splits' has no val, which scores a training; give"),
        ({"val": "20 %"}, "'val' of 'splits' is '20 %'; give a part of the images between 0 and 1, such as 0.2"),
        ({"val": True}, "'val' of 'splits' is True; give a part"),
        ({"val": 20}, "'splits': the parts of the images are val: 20; give parts above 0 whose sum is below 1"),
        ({"val": 0}, "'splits': the parts of the images are val: 0; give"),
        ({"train": 0.8, "val": 0.1}, "the parts of 'splits' add up to 0.9; leave out train, which gets the rest"),
        ({"val": 0.2, "seed": "a"}, "'seed' of 'splits' is 'a'; give an integer"),
        (
            {"val": 0.2, "group": 4},
            r"'group' of 'splits' is 4; give the beginning that names share, .* '\[\^_\]\+', or parent",
        ),
        ({"val": 0.2, "near_duplicates": "yes"}, "'near_duplicates' of 'splits' is 'yes'; give true or false"),
    ],
)
def test_other_values_are_refused(splits: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_split_rule(splits)


def test_what_the_images_do_not_allow_is_refused_with_the_file(tmp_path: Path) -> None:
    for rule, message in {
        r"street\d": r"classes.yaml: group: 'street\\d' does not match the start of 'cam0_0' and 11 more; give",
        "cam": r"classes.yaml: group: 'cam' makes 1 group of 12 images and the first is 'cam', too few for train and val",
    }.items():
        write_flat(tmp_path, {"val": 0.25, "group": rule})
        with pytest.raises(UserError, match=message):
            Folder(tmp_path, "train")
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(UserError, match=r"found no images of .* train in"):
        Folder(tmp_path, "train")


@pytest.mark.parametrize("name", ["train", "Valid", "test"])
def test_a_folder_of_a_split_and_the_rule_are_refused(tmp_path: Path, name: str) -> None:
    write_flat(tmp_path, {"val": 0.25})
    (tmp_path / "images" / name).mkdir()
    with pytest.raises(
        UserError, match=rf"images has the folder {name}, and .*classes.yaml has `splits`; remove `splits`"
    ):
        Folder(tmp_path, "train")
    (tmp_path / "images" / name).rename(tmp_path / "images/field")
    assert Folder(tmp_path, "train").splits == ("train", "val")


def test_a_folder_without_splits_is_told_of_the_rule(tmp_path: Path) -> None:
    write_flat(tmp_path, None)
    with pytest.raises(
        UserError, match=r"images has no folder of a split; .* or let `splits: \{val: 0.2\}` in classes.yaml split"
    ):
        Folder(tmp_path, "train")
    write_flat(tmp_path, None, ["cam0/a", "cam1/b"])
    with pytest.raises(
        UserError, match=r"has no split 'train'; it has cam0, cam1; if these are no splits, split all images with"
    ):
        Folder(tmp_path, "train")
    assert len(Folder(tmp_path, "cam0")) == 1


def test_images_outside_of_all_splits_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path)
    shutil.copy(tmp_path / "images/train/field/0.png", tmp_path / "images/a.png")
    for split in ("train", "val"):
        Folder(tmp_path, split)
    assert caplog.messages == [f"{tmp_path}/images/a.png is in no folder of a split and left out; move into one"]


def test_left_out_and_misnamed_files_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A label of an image of another split is none of the image whose label is missing."""
    write_flat(tmp_path, {"val": 0.5}, ["a", "a_2", "b", "b_2"])
    (tmp_path / "images/c.heic").touch()
    for split in ("train", "val"):
        Folder(tmp_path, split)
    assert [message.partition(" is not read")[0] for message in caplog.messages] == [f"{tmp_path}/images/c.heic"]
    (tmp_path / "labels/a.png").unlink()
    messages = []
    for split in ("train", "val"):
        try:
            Folder(tmp_path, split)
        except UserError as error:
            messages.append(str(error))
    assert [message.endswith(f"the first missing label is {tmp_path}/labels/a.png") for message in messages] == [True]
    Image.new("L", (60, 40), 10).save(tmp_path / "labels/x.png")
    assert Folder(tmp_path, "val", complete=False).find_labels_without_image("val") == [tmp_path / "labels/x.png"]


def test_a_part_far_from_the_one_asked_for_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_flat(tmp_path, {"val": 0.1, "group": "[^_]+"})
    for split in ("train", "val"):
        Folder(tmp_path, split)
    clause = "val gets 25% of the images where 10% are asked for, as groups are not divided"
    assert caplog.messages == [f"{tmp_path}/classes.yaml: {clause}"]
    described = Folder(tmp_path, "train").describe_splits()
    assert described == f"`splits` divides 12 images in 4 groups by seed 0: train 75%, val 25%; {clause}"


def test_near_duplicates_share_a_split_if_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each camera's frames are one scene that moves; without the key, and with it the cache, are the controls."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_flat(tmp_path, {"val": 0.25})
    scenes = [StreetScene((64, 100), 0, number).to_sample().image for number in range(4)]
    for name in NAMES:
        number, frame = int(name[3]), int(name[5])
        Image.fromarray(scenes[number][:, 2 * frame : 2 * frame + 90]).save(tmp_path / f"images/{name}.png")
    assert len({name[:4] for name in get_names(tmp_path, "val")}) > 1
    edit_metadata(tmp_path, splits={"val": 0.25, "near_duplicates": True})
    assert len(list((tmp_path / "cache").rglob("*.json"))) == 0
    (camera,) = {name[:4] for name in get_names(tmp_path, "val")}
    assert get_names(tmp_path, "val") == {name for name in NAMES if name.startswith(camera)}
    assert len(list((tmp_path / "cache/segkd/near_duplicates").iterdir())) == 1
    shutil.copy(tmp_path / f"images/{camera}_0.png", tmp_path / "images/copy.png")
    shutil.copy(tmp_path / f"labels/{camera}_0.png", tmp_path / "labels/copy.png")
    assert {f"{camera}_0", "copy"} <= get_names(tmp_path, "val") or {f"{camera}_0", "copy"} <= get_names(
        tmp_path, "train"
    )
    assert len(list((tmp_path / "cache/segkd/near_duplicates").iterdir())) == 2


def test_other_splits_are_other_data(tmp_path: Path) -> None:
    one = write_flat(tmp_path / "one", {"val": 0.25})
    other = write_flat(tmp_path / "other", {"val": 0.25})
    assert identify_data(Folder(one, "val")) == identify_data(Folder(other, "val"))
    edit_metadata(other, splits={"val": 0.25, "seed": 1})
    first, second = (identify_data(Folder(root, "val")) for root in (one, other))
    assert (first["images"], first["class_table"]) == (second["images"], second["class_table"])
    assert first["contents"] != second["contents"]


def test_commands_know_the_splits(command: Command, tmp_path: Path) -> None:
    """Other splits are not resumed and not compared, and an evaluation on them is told."""
    data = write_flat(tmp_path / "data", {"val": 0.25})
    base = [
        "train", "dataset=folder", f"dataset.root={data}", "trainer=cpu", "data.workers=0", "data.batch_size=2", "trainer.progress=false",
        "wandb.mode=disabled", "student.p=1", "student.q=1",
    ]  # fmt: skip
    run, other = tmp_path / "run", tmp_path / "other"
    assert command(*base, "trainer.max_epochs=1", f"output_dir={run}").code == 0
    checked = command("check", "dataset=folder", f"dataset.root={data}")
    assert "note: `splits` divides 12 images by seed 0: train 75%, val 25%" in checked.out
    assert command("evaluate", f"run={run}", "workers=0").err.count("holds other files") == 0
    packed = command("pack", "dataset=folder", f"dataset.root={data}", f"output_dir={tmp_path / 'pack'}")
    assert packed.code == 0, packed.err
    edit_metadata(data, splits={"val": 0.25, "seed": 1})
    resumed = command(*base, "trainer.max_epochs=2", f"resume={run}/last.ckpt", f"output_dir={tmp_path / 'resumed'}")
    assert resumed.code == 2
    assert (
        "was trained on other images, which were as many: their names differ. Split and name them as before"
        in resumed.err
    )
    stale = command("stats", "dataset=packed", f"dataset.root={tmp_path / 'pack'}")
    assert stale.code == 2
    assert "classes.yaml has changed" in stale.err
    evaluated = command("evaluate", f"run={run}", "workers=0", f"output_dir={tmp_path / 'evaluation'}")
    assert f"data val holds other files than in the training of {run} (3 images, then 3); images that" in evaluated.err
    assert command(*base, "trainer.max_epochs=1", "seed=1", f"output_dir={other}").code == 0
    compared = command("compare", f"runs=[{run},{other}]")
    assert compared.code == 2
    assert "the files of data val differ between" in compared.err
