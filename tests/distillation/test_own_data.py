"""A Distiller of plain parts, with the user's own Trainer and data loaders of pairs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import segkd
from segkd.config.paths import CONFIGS
from segkd.distillation.adversary import Adversary, Hinge
from segkd.distillation.distiller import Distiller
from segkd.distillation.optimizers import DEFAULT_OPTIMIZERS
from segkd.distillation.schedules import Constant, Poly
from segkd.errors import UserError
from segkd.losses.base import Loss
from segkd.losses.cross_entropy import CrossEntropy
from segkd.losses.hint import Hint
from segkd.losses.pixelwise import Pixelwise
from segkd.losses.weighted_sum import LossSum
from segkd.models.discriminator import Discriminator
from segkd.models.frozen import Frozen
from segkd.types import IGNORE_INDEX, Batch
from tests.helpers import own_data_worker
from tests.helpers.own_data_worker import CLASSES, make_model, make_pairs


def fit(
    distiller: Distiller, train: Any = None, val: Any = None, directory: Path | None = None, **arguments: Any
) -> pl.Trainer:
    """Train with a plain Trainer, by default on six pairs, by two, for an epoch."""
    options = {"max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_progress_bar": False,
               "enable_model_summary": False, "enable_checkpointing": directory is not None,
               "default_root_dir": directory}  # fmt: skip
    trainer = pl.Trainer(**{**options, **arguments})
    trainer.fit(distiller, DataLoader(make_pairs(6), 2) if train is None else train, val)
    return trainer


def make_supervised(**options: Any) -> Distiller:
    return Distiller(make_model(), None, {"cross_entropy": CrossEntropy()}, **options)


def make_adversarial(**options: Any) -> Distiller:
    adversary = Adversary(Discriminator(3, width=4), Hinge(), n_critic=2)
    return Distiller(make_model(), make_model(), {"cross_entropy": CrossEntropy()}, adversary, **options)


def get_weights(module: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(module.parameters()).detach().clone()


class TestDefaults:
    def test_parts_are_made_ready(self) -> None:
        student, teacher = make_model(), make_model(width=6)
        distiller = Distiller(
            student.eval(), teacher, {"hint": Hint(feature="encoder"), "cross_entropy": CrossEntropy()}
        )
        assert student.training
        assert isinstance(distiller.teacher, Frozen)
        assert not teacher.training
        assert not any(p.requires_grad for p in teacher.parameters())
        assert any("projector" in name for name, _ in distiller.losses.named_parameters())
        assert distiller.classes == ("0", "1", "2")
        assert isinstance(distiller.schedule, Poly)

    def test_a_frozen_part_of_the_student_stays_so(self) -> None:
        student = make_model()
        student.network[1].eval()  # type: ignore[index]
        Distiller(student, None, {"cross_entropy": CrossEntropy()})
        assert not student.network[1].training  # type: ignore[index]

    def test_losses_are_set_up_once(self) -> None:
        student, teacher = make_model(), make_model(width=6)
        losses = LossSum({"hint": Hint()})
        losses.setup(student.features, teacher.features)
        projector = get_weights(losses)
        assert torch.equal(get_weights(Distiller(student, teacher, losses).losses), projector)

    @pytest.mark.parametrize(("phase", "name"), [("student", "adam"), ("discriminator", "discriminator_adam")])
    def test_optimizers_are_those_of_the_configs(self, phase: str, name: str) -> None:
        node = yaml.safe_load((CONFIGS / "optimizer" / f"{name}.yaml").read_text())
        optimizer = DEFAULT_OPTIMIZERS[phase](list(make_model().parameters()))
        matrices, vectors = optimizer.param_groups
        assert node["_target_"] == f"torch.optim.{type(optimizer).__name__}"
        assert matrices["lr"] == vectors["lr"] == float(node["lr"])
        assert list(matrices["betas"]) == node["betas"]
        assert (matrices["weight_decay"], vectors["weight_decay"]) == (float(node["weight_decay"]), 0)
        assert {p.ndim for p in matrices["params"]} == {4}

    def test_schedule_is_that_of_the_configs(self) -> None:
        node = yaml.safe_load((CONFIGS / "schedule/poly.yaml").read_text())
        schedule = make_supervised().schedule
        assert vars(schedule) == {key: value for key, value in node.items() if key != "_target_"}

    def test_a_decay_makes_the_moving_average(self) -> None:
        distiller = make_supervised(ema=0.5)
        fit(distiller)
        assert distiller.ema is not None
        assert int(distiller.ema.n_averaged) == 3
        assert distiller.eval_model is not distiller.student
        assert distiller.eval_model.classes == distiller.classes


FAULTS: dict[str, tuple[Callable[[], object], str]] = {
    "plain student": (lambda: Distiller(nn.Conv2d(3, 3, 1), None, {}), r"the student is a Conv2d; wrap it, .*segkd\.wrap_model"),  # type: ignore[arg-type]
    "plain teacher": (lambda: Distiller(make_model(), nn.ReLU(), {}), "the teacher is a ReLU; wrap it"),  # type: ignore[arg-type]
    "name for a student": (lambda: Distiller("espnet", None, {}), "the student is a str; give a network"),  # type: ignore[arg-type]
    "no loss": (lambda: Distiller(make_model(), None, {}), "losses are given by name"),
    "list of losses": (lambda: Distiller(make_model(), None, [CrossEntropy()]), "losses are given by name"),  # type: ignore[arg-type]
    "function for a loss": (
        lambda: Distiller(make_model(), None, {"mine": nn.MSELoss()}),  # type: ignore[dict-item]
        r"losses\['mine'\] is a MSELoss; give a subclass of segkd\.losses\.base\.Loss",
    ),
    "no teacher": (
        lambda: Distiller(make_model(), None, {"pixelwise": Pixelwise()}), r"loss 'pixelwise' needs a teacher, .*teacher="
    ),
    "teacher of other classes": (
        lambda: Distiller(make_model(), make_model(outputs=5), {"pixelwise": Pixelwise()}), "the teacher has 5 outputs, the student 3"
    ),
    "other classes": (lambda: make_supervised(classes=["a", "b"] * 3), "has 3 outputs, and there are 6 classes"),
    "text for classes": (lambda: make_supervised(classes="road"), "classes='road' is a single text"),
    "class twice": (lambda: make_supervised(classes=["a", "b", "a"]), "names a class twice"),
    "void without an output": (
        lambda: Distiller(make_model(), None, {"cross_entropy": CrossEntropy(void="class")}, classes=CLASSES),
        "has 3 outputs, and there are 3 classes; build it with num_classes=4",
    ),
    "optimizer of no phase": (lambda: make_supervised(optimizers={"teacher": torch.optim.SGD}), "no phase 'teacher'"),
    "optimizer that is built": (
        lambda: make_supervised(optimizers={"student": torch.optim.SGD(make_model().parameters(), lr=1)}),
        r"optimizers\['student'\] is a SGD; give a function",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_parts_that_do_not_fit_are_named(fault: str) -> None:
    call, sentence = FAULTS[fault]
    with pytest.raises(UserError, match=sentence):
        call()


class TestPairs:
    def test_pairs_train_as_batches_do(self) -> None:
        pairs, student = make_pairs(6), make_model()
        images, target = pairs.tensors
        batches = [
            Batch(
                images[i : i + 2], target[i : i + 2], torch.ones(2, 32, 32, dtype=torch.bool), torch.tensor([i, i + 1])
            )
            for i in (0, 2, 4)
        ]
        results = []
        for loader in (DataLoader(pairs, 2), DataLoader(batches, batch_size=None)):  # type: ignore[arg-type]
            distiller = Distiller(student, None, {"cross_entropy": CrossEntropy()})
            state = {key: value.clone() for key, value in student.state_dict().items()}
            trainer = fit(distiller, loader, loader)
            results.append((get_weights(student), trainer.callback_metrics["val/miou"]))
            student.load_state_dict(state)
        assert torch.equal(results[0][0], results[1][0])
        assert results[0][1] == results[1][1]
        assert not torch.equal(results[0][0], get_weights(student))

    @pytest.mark.parametrize("convert", [Tensor.float, Tensor.half], ids=["float", "half"])
    def test_a_smaller_last_batch_and_void_are_fine(self, convert: Callable[[Tensor], Tensor]) -> None:
        images, target = make_pairs(5).tensors
        target[0], target[1, :10] = IGNORE_INDEX, IGNORE_INDEX
        distiller = make_adversarial()
        loader = DataLoader(TensorDataset(convert(images), target.to(torch.uint8)), 2)
        fit(distiller, loader, loader)
        assert distiller.step_count == 3

    @pytest.mark.parametrize("stage", ["train", "val"])
    def test_wrong_pairs_are_refused(self, stage: str) -> None:
        images, target = make_pairs(4).tensors
        wrong = DataLoader(TensorDataset(images / 255, target), 2)
        loaders = {"train": None, "val": DataLoader(make_pairs(2), 2), stage: wrong}
        with pytest.raises(UserError, match=r"float images are in 0\.\.1; give RGB in 0\.\.255"):
            fit(make_supervised(), **loaders)

    def test_a_dark_batch_later_on_is_fine(self) -> None:
        images, target = make_pairs(6).tensors
        images = images.float()
        images[4:] = 0
        fit(make_supervised(), DataLoader(TensorDataset(images, target), 2))

    def test_a_label_out_of_range_is_found_in_any_batch(self) -> None:
        images, target = make_pairs(6).tensors
        target[5, 0, 0] = 3
        with pytest.raises(UserError, match=r"the target holds 3; give classes 0\.\.2"):
            fit(make_supervised(), DataLoader(TensorDataset(images, target), 2))

    def test_images_too_small_for_the_discriminator_are_refused(self) -> None:
        with pytest.raises(UserError, match="use crops of at least"):
            fit(make_adversarial(), DataLoader(make_pairs(2, size=24), 2))


class Endless(IterableDataset[tuple[Tensor, Tensor]]):
    def __iter__(self) -> Any:
        while True:
            yield from (tuple(pair) for pair in make_pairs(2))


class TestLength:
    @pytest.mark.parametrize(
        ("arguments", "steps"),
        [({"max_epochs": 2}, 6), ({"max_epochs": 5, "max_steps": 4}, 4), ({"max_steps": 2, "max_epochs": -1}, 2),
         ({"max_epochs": 2, "limit_train_batches": 2}, 4)],
    )  # fmt: skip
    def test_the_trainer_says_it(self, arguments: dict[str, Any], steps: int) -> None:
        distiller = make_supervised()
        trainer = fit(distiller, **arguments)
        assert distiller.total_steps == distiller.step_count == steps
        assert trainer.optimizers[0].param_groups[0]["lr"] == 0  # the end of the schedule

    def test_max_steps_counts_the_updates_of_both_phases(self) -> None:
        pairs = make_pairs(12, size=256)
        distiller = make_adversarial()
        trainer = fit(distiller, DataLoader(pairs, 2), max_epochs=-1, max_steps=6)
        assert distiller.total_steps == distiller.step_count == 2
        assert trainer.global_step == 6

    def test_a_training_without_end_is_refused(self) -> None:
        loader = DataLoader(Endless(), 2)
        with pytest.raises(UserError, match=r"this Trainer has no end; give Trainer\(max_steps=N\)"):
            fit(make_supervised(), loader)
        distiller = make_supervised(schedule=Constant(), total_steps=100)
        fit(distiller, loader, max_epochs=-1, max_steps=2)
        assert (distiller.total_steps, distiller.step_count) == (100, 2)

    def test_another_fit_begins_a_new_schedule(self) -> None:
        distiller = make_supervised()
        fit(distiller)
        before = get_weights(distiller.student)
        fit(distiller, max_epochs=2)
        assert distiller.step_count == distiller.total_steps == 6
        assert not torch.equal(get_weights(distiller.student), before)


class TestTrainers:
    def test_checkpoints_have_no_teacher_and_resume(self, tmp_path: Path) -> None:
        losses: dict[str, Loss] = {"cross_entropy": CrossEntropy(), "pixelwise": Pixelwise()}
        teacher, loader = make_model(), DataLoader(make_pairs(6), 2)
        kept = ModelCheckpoint(tmp_path, monitor="val/miou", mode="max", save_last=True)
        distiller = Distiller(make_model(), teacher, losses)
        fit(distiller, loader, loader, tmp_path, max_epochs=2, callbacks=[kept])
        assert kept.best_model_score is not None
        assert Path(kept.best_model_path).is_file()
        state = torch.load(tmp_path / "last.ckpt", weights_only=True)
        assert not any("teacher" in key for key in state["state_dict"])
        resumed = Distiller(make_model(), teacher, {"cross_entropy": CrossEntropy(), "pixelwise": Pixelwise()})
        options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = pl.Trainer(max_epochs=3, accelerator="cpu", default_root_dir=tmp_path, **options)  # type: ignore[arg-type]
        trainer.fit(resumed, loader, ckpt_path=tmp_path / "last.ckpt")
        assert (resumed.step_count, resumed.total_steps) == (9, 9)

    def test_a_validation_before_the_fit_is_fine(self) -> None:
        distiller, loader = make_supervised(), DataLoader(make_pairs(4), 2)
        trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
                             enable_checkpointing=False)  # fmt: skip
        first = trainer.validate(distiller, loader, verbose=False)[0]
        trainer.fit(distiller, loader, loader)
        scores = trainer.validate(distiller, loader, verbose=False)[0]
        assert (
            scores["val/miou"] == trainer.validate(distiller, loader, verbose=False)[0]["val/miou"] != first["val/miou"]
        )

    def test_bfloat16(self) -> None:
        distiller = make_supervised()
        fit(distiller, val=DataLoader(make_pairs(2), 2), precision="bf16-mixed")
        assert get_weights(distiller.student).isfinite().all()

    def test_half_precision_is_refused(self) -> None:
        with pytest.raises(UserError, match=r"give Trainer\(precision=\"bf16-mixed\"\)"):
            fit(make_supervised(), precision="16-true")

    def test_validation_alone_equals_evaluate(self) -> None:
        distiller, pairs = make_supervised(classes=CLASSES), make_pairs(5)
        trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
        scores = trainer.validate(distiller, DataLoader(pairs, 2), verbose=False)[0]
        evaluation = segkd.evaluate(distiller.student, pairs)
        assert scores["val/miou"] == pytest.approx(evaluation.miou)
        assert {f"val/iou/{name}" for name in evaluation.iou} <= set(scores)


@pytest.mark.process
def test_two_processes_share_a_plain_loader(tmp_path: Path) -> None:
    """Lightning gives each its share: the processes' weights are equal, and every image is trained and validated."""
    command = [sys.executable, own_data_worker.__file__, str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert finished.returncode == 0, finished.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert torch.equal(first["weights"], second["weights"])
    assert first["step_count"] == second["step_count"] == 2
    assert first["miou"] == second["miou"]
    assert not set(first["images"]) & set(second["images"])
    assert len({*first["images"], *second["images"]}) == 8
    assert not set(first["seeds"]) & set(second["seeds"])
