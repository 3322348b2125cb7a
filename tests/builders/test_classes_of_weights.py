"""Weights for classes of another order, name or number, wherever weights meet a dataset."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from segkd.builders.networks import build_network
from segkd.config.instantiate import NetworkSpec, parse_spec
from segkd.data.folder import Folder
from segkd.errors import UserError
from segkd.models.base import Normalization
from segkd.models.espnet import ESPNetC
from segkd.models.student_io import load_student, save_student
from segkd.runs.load import load_chosen_network, load_run_teacher, read_config
from tests.helpers.commands import Command, in_process

QUICK = (
    "data.crop_size=[64,64]",
    "data.workers=0",
    "data.batch_size=2",
    "student={p: 1, q: 1}",
    "trainer.max_epochs=1",
    "trainer.progress=false",
    "trainer=cpu",
    "wandb.mode=disabled",
    "check_teacher=warn",
)
NAMES = {
    "ab": ["sky", "road", "car"],
    "ba": ["road", "sky", "car"],
    "renamed": ["sky", "way", "car"],
    "Ab": ["Sky ", "road", "CAR"],
}
TURNED = r"class 0 is 'sky' in .* and 'road' in .* \(the same names in another order\)"
RENAMED = r"class 1 is 'road' in .* and 'way' in .* or give check_classes=count if these are the same classes"
TEACHER = ("model@teacher=espnet_c", "teacher.checkpoint=run/student.safetensors")


def write_dataset(folder: Path, names: list[str], ids: list[int] | None = None) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind, shape in (("images", (64, 64, 3)), ("labels", (64, 64))):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
            for i in range(2):
                values = rng.integers(0, 256 if kind == "images" else 3, shape, np.uint8)
                cv2.imwrite(str(folder / kind / split / f"{i}.png"), values)
    entries = [{"name": name, "id": i} for name, i in zip(names, ids or range(len(names)), strict=True)]
    (folder / "classes.yaml").write_text(yaml.safe_dump({"size": [64, 64], "classes": entries}))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with datasets of the same files, and a run on `ab`."""
    folder = tmp_path_factory.mktemp("classes")
    for name, classes in NAMES.items():
        write_dataset(folder / name, classes)
    run = folder / "run"
    result = in_process("train", "dataset=folder", f"dataset.root={folder / 'ab'}", *QUICK, f"output_dir={run}")
    assert result.code == 0, result.err
    return folder


@pytest.fixture(autouse=True)
def _in_its_folder(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)


def on(dataset: str) -> tuple[str, ...]:
    return "dataset=folder", f"dataset.root={dataset}"


COMMANDS: dict[str, Callable[[str], tuple[str, ...]]] = {
    "evaluate": lambda data: ("evaluate", "run=run", *on(data), "workers=0", "accelerator=cpu"),
    "evaluate a file": lambda data: (
        *("evaluate", "model=espnet_c", "checkpoint=run/student.safetensors", *on(data), "workers=0", "accelerator=cpu"),
    ),
    "export": lambda data: ("export", "run=run", *on(data), "format=torchscript", "workers=0"),
    "student.checkpoint": lambda data: ("train", *on(data), *QUICK, "student.checkpoint=run/student.safetensors"),
    "last.ckpt": lambda data: ("train", *on(data), *QUICK, "student.checkpoint=run/last.ckpt"),
    "teacher": lambda data: ("train", *on(data), *QUICK, *TEACHER, "loss=[cross_entropy,pixelwise]"),
    "critic": lambda data: ("train", *on(data), *QUICK, *TEACHER, "adversary=holistic"),
    "member": lambda data: (
        *("train", *on(data), *QUICK, "model@teacher=ensemble", "+model@teacher.members.one=espnet_c"),
        *("+teacher.members.one.checkpoint=run/student.safetensors", "loss=[cross_entropy,pixelwise]"),
    ),
    "resume": lambda data: ("train", *on(data), *QUICK, "resume=run/last.ckpt", "trainer.max_epochs=2"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "message"), [("ba", TURNED), ("renamed", RENAMED)])
@pytest.mark.parametrize("name", COMMANDS)
def test_other_classes_are_refused(name: str, data: str, message: str, command: Command, tmp_path: Path) -> None:
    result = command(*COMMANDS[name](data), f"output_dir={tmp_path / 'out'}")
    assert result.code == 2, result.err
    assert len(result.err.strip().splitlines()) <= 2, result.err
    assert re.search(message, result.err), result.err
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", ["evaluate", "student.checkpoint", "resume"])
def test_same_classes_and_renamed_ones_are_taken(name: str, command: Command, tmp_path: Path) -> None:
    for data, check in (("ab", "names"), ("Ab", "names"), ("renamed", "count")):
        arguments = COMMANDS[name](data)
        result = command(*arguments, f"check_classes={check}", f"output_dir={tmp_path / data}")
        assert result.code == 0, result.err


def test_label_table_is_part_of_a_run(trained: Path, command: Command, tmp_path: Path) -> None:
    write_dataset(trained / "moved", NAMES["ab"], [1, 0, 2])
    result = command("train", *on("moved"), *QUICK, "resume=run/last.ckpt", f"output_dir={tmp_path / 'out'}")
    assert result.code == 2
    assert (
        "label 0 was 'sky' in the training of run/last.ckpt and is 'road'; resume with the dataset= and the classes"
        in result.err
    )


def test_checkpoint_without_classes_is_resumed(trained: Path, command: Command, tmp_path: Path) -> None:
    """Version 0.1.0 wrote none."""
    state = torch.load(trained / "run/last.ckpt", weights_only=True)
    del state["recipe"]["classes"], state["recipe"]["labels"], state["student"]["classes"]
    torch.save(state, tmp_path / "old.ckpt")
    more = ("trainer.max_epochs=2", f"resume={tmp_path / 'old.ckpt'}", f"output_dir={tmp_path / 'out'}")
    result = command("train", *on("ba"), *QUICK, *more)
    assert result.code == 0, result.err


def test_features_of_a_teacher_of_other_classes_teach(command: Command, tmp_path: Path) -> None:
    for classes in (3, 5):
        network = ESPNetC(classes, Normalization((110, 100, 90), (55, 50, 45)), p=1, q=1)
        save_student(network, tmp_path, {"classes": [f"class {i}" for i in range(classes)]})
        teacher = ("model@teacher=espnet_c", f"teacher.checkpoint={tmp_path / 'student.safetensors'}")
        arguments = ("train", *on("ab"), *QUICK, *teacher, "check_teacher=stop")
        losses = "loss=[cross_entropy,pairwise,hint,attention]"
        result = command(*arguments, losses, f"output_dir={tmp_path / str(classes)}")
        assert result.code == 0, result.err
        assert "the teacher has other classes than ab; its features alone are used, and it is not scored" in result.err
        result = command(*arguments, "loss=[cross_entropy,ifvd]", f"output_dir={tmp_path / 'refused'}")
        assert result.code == 2
        assert "class_map" in result.err
        assert load_run_teacher(tmp_path / str(classes)) is None


def test_warm_start_leaves_out_what_belongs_to_other_classes(trained: Path) -> None:
    source = load_student(trained / "run").state_dict()["classifier.weight"]
    node = {
        "_target_": "segkd.models.espnet.ESPNetC",
        "p": 1,
        "q": 1,
        "init_from": str(trained / "run/student.safetensors"),
    }
    spec = parse_spec(node)
    assert isinstance(spec, NetworkSpec)
    for data, check, is_copied in (("ab", "names", True), ("ba", "names", False), ("renamed", "count", True)):
        network = build_network(spec, Folder(trained / data, "train"), check=check)  # type: ignore[arg-type]
        assert torch.equal(network.state_dict()["classifier.weight"], source) == is_copied


def test_void_as_a_class_is_known_from_the_file(trained: Path, tmp_path: Path) -> None:
    """A last output is void where the classes are named, and for files that say nothing; never a class of other data."""
    data = Folder(trained / "ab", "val")
    network = ESPNetC(4, Normalization((110, 100, 90), (55, 50, 45)), p=1, q=1)
    for classes, is_taken in ((NAMES["ab"], True), ([*NAMES["ab"], "tree"], False), (None, True)):
        save_student(network, tmp_path, {} if classes is None else {"classes": classes})
        if is_taken:
            load_chosen_network(tmp_path, None, None, data)
        else:
            with pytest.raises(UserError, match=r"has 4 classes \(sky, road, car, tree\), ab has 3 classes"):
                load_chosen_network(tmp_path, None, None, data)


@pytest.mark.parametrize(
    "content", [b"", b"- 1", b"a: [", b"\xff\xfe\0\1", b"a: 2026-99-99", b"teacher: {_target_: 3}"]
)
def test_damaged_config_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.yaml (is damaged|describes no teacher)"):
        load_run_teacher(tmp_path)


def test_changed_config_is_told(trained: Path, tmp_path: Path, command: Command) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained / "run", run)
    evaluate = ("evaluate", f"run={run}", "workers=0", "accelerator=cpu")
    assert "is not as the training wrote it" not in command(*evaluate).err
    config = run / "config.yaml"
    config.write_bytes(config.read_bytes().replace(b"val_split: val", b"val_split: train"))
    result = command(*evaluate)
    assert result.code == 0, result.err
    assert result.err.count("config.yaml is not as the training wrote it; it is read as it is now") == 1
    config.write_bytes(config.read_bytes().replace(str(trained / "ab").encode(), b"null"))
    result = command(*evaluate)
    assert result.code == 2
    assert "does not say where its data are; give dataset.root=DIR" in result.err


def test_runs_of_another_order_are_not_shown_side_by_side(trained: Path, command: Command, tmp_path: Path) -> None:
    save_student(load_student(trained / "run"), tmp_path, {"classes": NAMES["ba"]})
    out = tmp_path / "out"
    result = command("predict", f"run=[run,{tmp_path}]", "input=ab/images/val", f"output={out}", "accelerator=cpu")
    assert result.code == 2
    assert "(the same names in another order); give runs with the same classes in the same order" in result.err
    # A student that was saved without colors is shown in VOC's.
    result = command("predict", f"run={tmp_path}", "input=ab/images/val", f"output={out}", "accelerator=cpu")
    assert result.code == 0, result.err
    assert json.loads((out / "prediction.json").read_text())["classes"]["road"] == [128, 0, 0]
    assert read_config(tmp_path, "") is None
