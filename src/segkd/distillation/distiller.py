"""The LightningModule: it sequences a training step and knows no loss, network or dataset by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

import pytorch_lightning as pl
import torch
import torch.distributed
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.trainer.states import RunningStage
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from segkd.data.batches import check_pair, check_range, make_batch, split_pair
from segkd.data.facts import OwnData
from segkd.distillation.adversary import Adversary
from segkd.distillation.averaging import build_ema
from segkd.distillation.micro_batching import forward_in_chunks
from segkd.distillation.nan_guard import NanGuard
from segkd.distillation.optimizers import OptimizerFactory
from segkd.distillation.phases import Phase, build_phases
from segkd.distillation.preparation import prepare_losses, prepare_optimizers, prepare_student, prepare_teacher
from segkd.distillation.schedules import Poly, Schedule
from segkd.distillation.trainers import check_trainer, count_batches
from segkd.losses.base import Loss
from segkd.losses.weighted_sum import LossSum
from segkd.metrics import ConfusionMatrix, Scores
from segkd.models.base import IMAGENET_MEAN, IMAGENET_STD, SegmentationModel
from segkd.models.class_names import name_classes
from segkd.models.frozen import Frozen
from segkd.models.minimum_size import enlarge_to_minimum
from segkd.types import Batch, Step, resize


class Distiller(pl.LightningModule):
    """Trains a student from labels, a frozen teacher and a discriminator, the last two if given.

    A training batch is a `Batch`, or a pair (images, target) of the user's own data loader: B 3 H W RGB in 0..255, and
    B H W integers. `Distiller.from_config` builds one from the keys of `segkd.train`.

    Optimization is manual: each phase of a step has its own objective and optimizer. Lightning's `global_step` counts
    optimizer steps; `step_count` counts batches, and everything here goes by it.

    Args:
        student: the network that is trained, validated and saved.
        teacher: a network, which is frozen; None to train on labels only.
        losses: the student's objective, by name.
        adversary: None for no discriminator.
        optimizers: a factory for each phase, `student` and `discriminator`; Adam where none is given.
        schedule: factor of every phase's learning rate; `Poly` by default.
        total_steps: batches in the whole run; None for those of the trainer.
        classes: class names of the data, or their number; None for those of the student.
        gradient_clip: greatest norm of a phase's gradient.
        ema: decay of a moving average of the student, or the average itself; None for none.
        guard: stops or skips updates that are not finite.
        micro_batches: chunks in which a batch goes through the networks.

    Raises:
        UserError: parts do not fit each other.
    """

    step_count: Tensor

    def __init__(
        self,
        student: SegmentationModel,
        teacher: SegmentationModel | Frozen | None,
        losses: LossSum | Mapping[str, Loss],
        adversary: Adversary | None = None,
        optimizers: Mapping[str, OptimizerFactory] | None = None,
        schedule: Schedule | None = None,
        total_steps: int | None = None,
        classes: Sequence[str] | int | None = None,
        gradient_clip: float | None = None,
        ema: AveragedModel | float | None = None,
        guard: NanGuard | None = None,
        micro_batches: int = 1,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.student, self.teacher = prepare_student(student), prepare_teacher(teacher)
        self.losses, self.adversary = prepare_losses(losses, self.student, self.teacher), adversary
        if adversary is not None:
            adversary.setup(self.student.features, None if self.teacher is None else self.teacher.network.features)
        self.classes = name_classes(self.student, classes, self.losses.extra_classes)
        self.phases = build_phases(self.student, self.losses, adversary)
        self.optimizer_factories = prepare_optimizers(optimizers)
        self.schedule, self.gradient_clip = schedule or Poly(), gradient_clip
        self.total_steps = total_steps or 0
        """Batches in the whole run; 0 until its start, if the trainer says how many there are."""
        self._asks_trainer = total_steps is None
        self.ema = build_ema(self.student, ema) if isinstance(ema, float) else ema
        self.guard, self.micro_batches = guard or NanGuard(), micro_batches
        self.student.classes = self.eval_model.classes = self.classes
        self.confusion = ConfusionMatrix(len(self.classes))
        self.register_buffer("step_count", torch.tensor(0))
        self._progress = 0.0
        self._checked_stages: set[RunningStage | None] = set()

    @classmethod
    def from_config(
        cls,
        overrides: Sequence[str] = (),
        *,
        classes: Sequence[str] | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        crop_size: tuple[int, int] | None = None,
    ) -> Self:
        """Build a Distiller from the keys of `python -m segkd.train`, without a command line.

        The data are those of `dataset=NAME`, or the user's own: then `classes` are given, and `mean` and `std` are used by
        networks without trained weights. Keys of the Trainer, of the run's folder and of loggers are refused, since they
        belong to the user's own Trainer; the batches of the run are counted by it.

        Args:
            overrides: as on the command line, such as `["model@student=espnet", "loss=[cross_entropy,pixelwise]"]`.
            classes: class names of the user's own data.
            mean: RGB in 0..255 over the user's own images; ImageNet's by default.
            std: RGB in 0..255.
            crop_size: height and width of training images, to check early that they are large enough.

        Raises:
            UserError: a key or a value is wrong, or parts do not fit each other.
        """
        from segkd.cli.compose import build_distiller_from_overrides  # it lies above this module and imports it

        data = None if classes is None else OwnData(tuple(classes), tuple(mean), tuple(std), crop_size)
        return build_distiller_from_overrides(cls, overrides, data)

    def setup(self, stage: str) -> None:
        """Check that the trainer fits.

        Raises:
            UserError: it scales the losses, and so the gradients that are clipped and penalized, or lacks what two phases need.
        """
        check_trainer(self.trainer, has_two_phases=self.adversary is not None)

    @property
    def eval_model(self) -> SegmentationModel:
        """The network that is validated and saved: the moving average, or the student without one."""
        return self.student if self.ema is None else cast("SegmentationModel", self.ema.module)

    def configure_optimizers(self) -> list[Optimizer]:
        """Create one optimizer for each phase."""
        optimizers = [self.optimizer_factories[phase.name](phase.parameters()) for phase in self.phases]
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["initial_lr"] = group["lr"]
        return optimizers

    def on_train_start(self) -> None:
        """Move the teacher, which is no submodule, to the device, count the steps, and set the learning rates.

        Raises:
            UserError: the length of the training is needed, and the trainer has no end.
        """
        if self.teacher is not None:
            self.teacher.to(self.device)
        if self._asks_trainer:
            self.total_steps = count_batches(self.trainer, sum(phase.repeats for phase in self.phases))
            if self.trainer.global_step == 0:
                self.step_count.zero_()  # of an earlier fit
        self._update_learning_rates()

    def training_step(self, batch: Batch | Sequence[Tensor], batch_idx: int) -> None:
        """Run all phases on one forward pass of each network.

        Raises:
            UserError: the batch is no `Batch`, and no pair of images and targets.
        """
        step = self.forward_networks(self._complete_batch(batch))
        for phase, optimizer in zip(self.phases, self._list_optimizers(), strict=True):
            for repeat in range(phase.repeats):
                self.run_phase(phase, optimizer, step._replace(repeat=repeat))
        if self.ema is not None:
            self.ema.update_parameters(self.student)
        self.step_count += 1
        self._update_learning_rates()

    def forward_networks(self, batch: Batch) -> Step:
        """Run each network once, for all phases."""
        self.guard.snapshot_buffers(self.student)
        student = forward_in_chunks(self.student, batch, self.micro_batches)
        teacher = None if self.teacher is None else forward_in_chunks(self.teacher, batch, self.micro_batches)
        return Step(batch, student, teacher, progress=self._progress)

    def run_phase(self, phase: Phase, optimizer: LightningOptimizer, step: Step) -> None:
        """Update the weights of one phase; no other method changes weights."""
        with self.toggled_optimizer(optimizer):
            total, terms = phase.objective(step)
            optimizer.zero_grad()
            self.manual_backward(total)
            norm = nn.utils.get_total_norm(p.grad for p in phase.parameters() if p.grad is not None)
            if self.gradient_clip is not None:
                nn.utils.clip_grads_with_norm_(phase.parameters(), self.gradient_clip, norm)
            rate = optimizer.param_groups[0]["lr"]
            values = {**terms, "total": total, "gradient": norm}
            if self.guard.allows_update(
                self.trainer, self.student, phase.name, step.batch, int(self.step_count), values
            ):
                optimizer.step()
            else:
                optimizer.zero_grad()
        logged: dict[str, Any] = {f"train/{name}": value.detach() for name, value in terms.items()}
        is_distributed = self.trainer.world_size > 1
        self.log_dict({**logged, f"lr/{phase.name}": rate}, sync_dist=is_distributed)
        if phase.name == "student":
            self.log("train/total", total.detach(), prog_bar=True, sync_dist=is_distributed)

    def validation_step(self, batch: Batch | Sequence[Tensor], batch_idx: int) -> Tensor:
        """Update the confusion matrix; return the logits at the labels' size, for callbacks.

        Raises:
            UserError: the batch is no `Batch`, and no pair of images and targets.
        """
        batch = self._complete_batch(batch)
        output = self.eval_model(enlarge_to_minimum(batch.images, self.eval_model))
        logits = resize(output.logits.float(), (batch.target.shape[-2], batch.target.shape[-1]), output.align_corners)
        self.confusion.update(logits, batch.target)
        return logits

    def on_validation_start(self) -> None:
        """Average the BatchNorm statistics of the processes, and begin a new confusion matrix."""
        self._sync_batchnorm_buffers()
        # What an earlier validation has left may be a tensor of inference mode, which a fit cannot update.
        self.confusion.reset()

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the whole validation set."""
        scores = Scores.from_confusion_matrix(self.confusion.compute(), len(self.classes))
        self.confusion.reset()
        self.log("val/miou", scores.miou, prog_bar=True)
        self.log_dict({"val/class_accuracy": scores.class_accuracy, "val/pixel_accuracy": scores.pixel_accuracy})
        self.log_dict({f"val/iou/{name}": iou for name, iou in zip(self.classes, scores.iou, strict=True)})

    def on_train_epoch_end(self) -> None:
        """Average the BatchNorm statistics of the processes."""
        self._sync_batchnorm_buffers()

    def _complete_batch(self, batch: Batch | Sequence[Tensor]) -> Batch:
        """Return a `Batch` as it is, and a pair of the user's own loader as a `Batch`, after checking it."""
        if isinstance(batch, Batch):
            return batch
        images, target = split_pair(batch)
        is_training, stage = bool(self.trainer.training), self.trainer.state.stage
        check_pair(images, target, len(self.classes), same_size=is_training)
        if stage not in self._checked_stages:
            check_range(images)
            if self.adversary is not None and is_training:
                self.adversary.check_size(self.student.features, (images.shape[-2], images.shape[-1]))
            self._checked_stages.add(stage)
        return make_batch(images, target, int(self.step_count), self.global_rank)

    def _list_optimizers(self) -> list[LightningOptimizer]:
        optimizers = self.optimizers()
        return cast("list[LightningOptimizer]", optimizers if isinstance(optimizers, list) else [optimizers])

    def _update_learning_rates(self) -> None:
        """Update the progress and the learning rates that follow from it."""
        self._progress = self.step_count.item() / self.total_steps
        factor = self.schedule(self._progress)
        for optimizer in self._list_optimizers():
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor

    def _sync_batchnorm_buffers(self) -> None:
        """Average floating-point buffers over processes, whose BatchNorm layers saw different images."""
        if self.trainer.world_size > 1:
            for buffer in (*self.student.buffers(), *(self.ema.buffers() if self.ema is not None else ())):
                if buffer.is_floating_point():
                    torch.distributed.all_reduce(buffer)
                    buffer /= self.trainer.world_size
