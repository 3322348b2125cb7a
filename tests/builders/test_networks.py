"""Networks of other libraries, class maps and ensembles, through the command."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from segkd.data.camvid import CLASSES
from segkd.models.adapter import Adapter
from segkd.models.student_io import load_student
from tests.helpers.commands import Command
from tests.helpers.third_party_networks import ThirdPartyNetwork

pytestmark = pytest.mark.usefixtures("third_party_plugin")

QUICK = (
    "data.crop_size=[128,128]",
    "data.workers=0",
    "trainer.max_epochs=1",
    "trainer.validate_every=1",
    "trainer.progress=false",
    "dataset.images=8",
    "data.batch_size=2",
    "wandb.mode=disabled",
    "check_teacher=warn",
)
TAUGHT = ("loss=[cross_entropy,pixelwise,pairwise]", "adversary=holistic", "adversary.discriminator.width=8")
SMALL = "student={p: 1, q: 1}"
NETWORK = ("network=tests.helpers.third_party_networks.ThirdPartyNetwork", "features={encoder: backbone}")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def terms(run: str) -> set[str]:
    return set(Path(run, "metrics.csv").read_text().splitlines()[0].split(","))


def as_teacher(*keys: str) -> list[str]:
    return [f"teacher.{key}" for key in keys]


def test_anybodys_network_teaches_and_learns(command: Command) -> None:
    torch.save(ThirdPartyNetwork().state_dict(), "theirs.pth")
    adapter = as_teacher(*NETWORK, "arguments={outputs: 11}", "checkpoint=theirs.pth")
    taught = command("train", *QUICK, *TAUGHT, SMALL, "model@teacher=adapter", *adapter, "output_dir=taught")
    assert taught.code == 0, taught.err
    assert {"train/pixelwise", "train/pairwise", "train/discriminator/teacher"} <= terms("taught")

    arguments = [f"student.{key}" for key in (*NETWORK, "classes_argument=outputs")]
    learnt = command("train", *QUICK, "model@student=adapter", *arguments, "output_dir=learnt")
    assert learnt.code == 0, learnt.err
    student = load_student("learnt")
    assert isinstance(student, Adapter)
    assert isinstance(student.network, ThirdPartyNetwork)
    scored = command("evaluate", "run=learnt", "workers=0")
    assert scored.code == 0, scored.err


def test_a_teacher_of_other_classes_and_a_second_one(command: Command, teacher_file: Path) -> None:
    """Foreign scores 13 classes, two of which are cars and one nothing of ours; the small ESPNet scores ours."""
    torch.save(ThirdPartyNetwork(13).state_dict(), "theirs.pth")
    mapped = {name: [i] for i, name in enumerate(CLASSES)}
    foreign = {
        "network": "tests.helpers.third_party_networks.ThirdPartyNetwork",
        "arguments": {"outputs": 13},
        "checkpoint": "theirs.pth",
    }
    experiment = {
        "defaults": [
            "quickstart",
            {"/model@teacher.members.small": "espnet"},
            {"/model@teacher.members.foreign": "adapter"},
            {"override /model@teacher": "ensemble"},
        ],
        "teacher": {
            "checkpoint": None,
            "weights": {"foreign": 2},
            "members": {
                "small": {"checkpoint": str(teacher_file)},
                "foreign": {**foreign, "class_map": {**mapped, "car": [8, 12]}},
            },
        },
    }
    Path("mine/experiment").mkdir(parents=True)
    Path("mine/experiment/two.yaml").write_text("# @package _global_\n" + yaml.safe_dump(experiment))
    two = ["--config-dir", "mine", "experiment=two", *QUICK]
    result = command("train", *two, "output_dir=run")
    assert result.code == 0, result.err
    assert "student.safetensors: segkd's ESPNet" in result.err
    assert "theirs.pth: Adapter" in result.err

    wrong = "teacher.members.foreign.class_map.sky=[8]"
    result = command("train", *two, wrong, "output_dir=broken")
    assert result.code == 2
    assert "class_map has 8 in two classes" in result.err
    assert not Path("broken").exists()


def test_unlabelled_images_of_other_sizes_teach(command: Command, teacher_file: Path) -> None:
    Path("images").mkdir()
    for index, side in enumerate((100, 150, 200)):
        cv2.imwrite(f"images/{index}.png", np.full((side, 300 - side, 3), 60 * index, np.uint8))
    more = (*TAUGHT, SMALL, "model@teacher=espnet", f"teacher.checkpoint={teacher_file}", "data.unlabeled=images")
    result = command("train", *QUICK, *more, "data.unlabeled_ratio=1.5", "output_dir=run")
    assert result.code == 0, result.err
    assert json.loads(Path("run/summary.json").read_text())["steps"] == 4


def test_a_constructor_may_bring_the_weights(command: Command) -> None:
    transformers = pytest.importorskip("transformers")
    widths = {"hidden_sizes": [16, 16, 32, 32], "decoder_hidden_size": 32, "num_attention_heads": [1, 1, 2, 4]}
    config = transformers.SegformerConfig(num_labels=11, depths=[1, 1, 1, 1], **widths)
    transformers.SegformerForSemanticSegmentation(config).save_pretrained("theirs")
    brings = (
        "network=transformers.SegformerForSemanticSegmentation.from_pretrained",
        "arguments={pretrained_model_name_or_path: theirs}",
        "features={encoder: decode_head.batch_norm}",
    )
    teacher = as_teacher(*brings, "checkpoint=pretrained")
    result = command("train", *QUICK, *TAUGHT, SMALL, "model@teacher=adapter", *teacher, "output_dir=taught")
    assert result.code == 0, result.err
    scored = command(
        "evaluate",
        "dataset=streets",
        "model=adapter",
        *(f"model.{key}" for key in brings),
        "checkpoint=pretrained",
        "output_dir=scored",
    )
    assert scored.code == 0, scored.err
    assert len(json.loads(Path("scored/evaluation.json").read_text())["checkpoint_sha256"]) == 64


@pytest.mark.process
def test_a_segformer_of_hugging_face_learns_and_then_teaches(command: Command) -> None:
    pytest.importorskip("transformers")
    widths = "hidden_sizes: [16, 16, 32, 32], decoder_hidden_size: 32, num_attention_heads: [1, 1, 2, 4]"
    small = f"student.arguments={{depths: [1, 1, 1, 1], {widths}}}"
    result = command("train", *QUICK, "model@student=segformer_b0", small, "output_dir=teacher")
    assert result.code == 0, result.err
    teacher = as_teacher("checkpoint=teacher/student.safetensors")
    result = command(
        "train",
        *QUICK,
        *TAUGHT,
        "model@student=espnet",
        SMALL,
        "model@teacher=segformer_b0",
        *teacher,
        "output_dir=taught",
    )
    assert result.code == 0, result.err
    assert {"train/pixelwise", "train/pairwise"} <= terms("taught")
