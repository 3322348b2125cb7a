"""A teacher that reads labels: through a noise that is each image's own; images alone stay as they are."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from commands import Command
from segkd import networks
from segkd.data.streets import Streets
from segkd.errors import UserError
from segkd.micro_batches import answer
from segkd.models import assistant
from segkd.models.assistant import LabelAssistant, known_labels
from segkd.models.base import Normalization
from segkd.models.espnet import ESPNetC
from segkd.models.frozen import Frozen
from segkd.models.weights import load_student, save_student
from segkd.types import IGNORE_INDEX, Batch

NORMALIZATION = Normalization((110,) * 3, (55,) * 3)
KEYS = torch.tensor([3, 4])
CLASSES = len(Streets.classes)
TARGET = (
    torch.tensor([[0, 0, 1], [2, IGNORE_INDEX, 1]])
    .repeat_interleave(20, 0)
    .repeat_interleave(16, 1)[None]
    .repeat(2, 1, 1)
)
IMAGES = torch.randint(0, 256, (2, 3, *TARGET.shape[1:]), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def reader() -> LabelAssistant:
    """One that says something."""
    torch.manual_seed(0)
    made = LabelAssistant(3)
    nn.init.normal_(made.add.weight)
    return made


def told(assistant: LabelAssistant, target: Tensor = TARGET, keys: Tensor = KEYS) -> Tensor:
    return assistant._told(target, keys)


def test_in_evaluation_each_class_has_its_place() -> None:
    for noise in (0, 2):
        without = told(LabelAssistant(3, noise).eval())
        assert without.shape == (2, 1, *TARGET.shape[1:])
        for label, place in ((0, -1), (1, -1 / 3), (2, 1 / 3), (IGNORE_INDEX, 1)):
            assert without[:, 0][label == TARGET].unique().tolist() == pytest.approx([place])


def test_in_training_each_class_of_each_image_is_moved_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assistant, "PIXEL_NOISE", 0)
    drawn = told(LabelAssistant(3, noise=2))
    moved = drawn - told(LabelAssistant(3, noise=2).eval())
    for one in range(2):
        shifts = [moved[one, 0][TARGET[one] == label].unique() for label in (0, 1, 2, IGNORE_INDEX)]
        assert [len(each) for each in shifts] == [1, 1, 1, 1]
        assert torch.cat(shifts).unique().numel() == 4
    assert not torch.equal(drawn[0], drawn[1])
    alone = told(LabelAssistant(3, noise=2), TARGET[1:], KEYS[1:])
    assert torch.equal(alone[0], drawn[1])  # by its key, whatever the batch


def test_the_noise_is_normal_and_as_large_as_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = (told(LabelAssistant(3)) - told(LabelAssistant(3).eval())).flatten()
    assert 0.027 < pixels.std() < 0.033
    assert pixels.unique().numel() > 0.9 * pixels.numel()
    monkeypatch.setattr(assistant, "PIXEL_NOISE", 0)
    many, keys = torch.zeros(2000, 1, 1, dtype=torch.int64), torch.arange(2000)
    classes = (told(LabelAssistant(3, noise=0.5), many, keys) + 1).flatten()
    assert classes.mean().abs() < 3 * 0.5 / math.sqrt(2000)
    assert 0.47 < classes.std() < 0.53


def test_without_labels_and_at_the_start_images_stay_as_they_are() -> None:
    images = torch.randn(2, 3, *TARGET.shape[1:])
    assert torch.equal(reader()(images), images)
    with known_labels(TARGET, KEYS):
        assert torch.equal(LabelAssistant(3)(images), images)
        assert not torch.equal(reader()(images), images)
    assert torch.equal(reader()(images), images)


def test_labels_of_other_pixels_are_refused() -> None:
    with known_labels(TARGET[:, ::2, ::2], KEYS), pytest.raises(UserError, match="needs those of the same pixels"):
        reader()(torch.randn(2, 3, *TARGET.shape[1:]))


def assisted() -> ESPNetC:
    torch.manual_seed(0)
    network = ESPNetC(CLASSES, NORMALIZATION, p=1, q=1)
    network.assist()
    assert network.assistant is not None
    nn.init.normal_(network.assistant.add.weight)
    return network


def test_a_batch_in_parts_reads_the_labels_of_each_part() -> None:
    teacher = Frozen(assisted())
    batch = Batch(IMAGES, TARGET.clone(), torch.ones_like(TARGET, dtype=torch.bool), KEYS)
    batch.target[1] = 1
    torch.testing.assert_close(answer(teacher, batch, 2).logits, answer(teacher, batch, 1).logits)
    assert not torch.equal(answer(teacher, batch, 1).logits, teacher(IMAGES).logits)


def test_saved_it_is_itself_again(tmp_path: Path) -> None:
    network = assisted().eval()
    save_student(network, tmp_path, {})
    node = {"_target_": "segkd.models.espnet.ESPNetC", "p": 1, "q": 1, "checkpoint": tmp_path / "student.safetensors"}
    for again in (load_student(tmp_path), networks.network(node, Streets("val"))[0].eval()):
        with known_labels(TARGET, KEYS):
            assert torch.equal(again(IMAGES).logits, network(IMAGES).logits)


TINY = (
    "dataset.images=4",
    "trainer.max_epochs=1",
    "trainer.limit_val_batches=1",
    "student.p=1",
    "student.q=1",
    "data.batch_size=2",
    "data.workers=0",
    "data.crop_size=[128,128]",
    "trainer=cpu",
    "trainer.progress=false",
    "wandb.mode=disabled",
)


def test_it_is_trained_and_teaches(command: Command, tmp_path: Path) -> None:
    """What it scores beside the labels is called so; what others see of it is what it says of images alone."""
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    learnt = command("train", *TINY, "student.label_noise=0.2", f"output_dir={teacher}")
    assert learnt.code == 0, learnt.err
    assert "beside the labels after 2 steps" in learnt.out
    assert "student, reads labels" in learnt.err
    typed = ("model@teacher=espnet_c", f"teacher.checkpoint={teacher / 'student.safetensors'}", "preflight=warn")
    taught = command("train", *TINY, *typed, "loss=[cross_entropy,pixelwise]", f"output_dir={student}")
    assert taught.code == 0, taught.err
    assert "beside the labels" not in taught.out
    assert "teacher, which reads their labels: mIoU" in " ".join(taught.err.split())
    assert load_student(student).assistant is None
    for run, said in ((teacher, True), (student, False)):
        seen = command("evaluate", f"run={run}", "split=val", "dataset=streets", "dataset.images=2", "workers=0")
        assert seen.code == 0, seen.err
        assert ("it has the images alone, and knows less" in seen.err) is said


@pytest.mark.parametrize("noise", ["true", "-1", "much"])
def test_noise_that_is_none_is_refused(command: Command, tmp_path: Path, noise: str) -> None:
    refused = command("train", *TINY, f"student.label_noise={noise}", f"output_dir={tmp_path / 'run'}")
    assert refused.code == 2
    assert "label_noise is a number of 0 and more, or null for images alone" in refused.err


def test_what_it_cannot_be_is_refused(command: Command, tmp_path: Path) -> None:
    compiled = command(
        "train", *TINY, "student.label_noise=1", "trainer.compile=true", f"output_dir={tmp_path / 'run'}"
    )
    assert compiled.code == 2
    assert "trainer.compile=true does not go together with a network that reads labels" in compiled.err
    node = {"_target_": "segkd.models.espnet.ESPNetC", "p": 1, "q": 1, "label_noise": 1, "class_map": {"road": [0]}}
    with pytest.raises(UserError, match="it cannot have a class_map"):
        networks.network(node, Streets("val"))
