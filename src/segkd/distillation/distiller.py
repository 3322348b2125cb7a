"""The LightningModule: it sequences a training step and knows no loss, network or dataset by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import pytorch_lightning as pl
import torch
import torch.distributed
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from segkd.distillation.adversary import Adversary
from segkd.distillation.micro_batching import forward_in_chunks
from segkd.distillation.nan_guard import NanGuard
from segkd.distillation.phases import Phase, build_phases
from segkd.distillation.schedules import Schedule
from segkd.errors import UserError
from segkd.losses.weighted_sum import LossSum
from segkd.metrics import ConfusionMatrix, Scores
from segkd.models.base import SegmentationModel
from segkd.models.frozen import Frozen
from segkd.models.minimum_size import enlarge_to_minimum
from segkd.types import Batch, Step, resize

OptimizerFactory = Callable[[Sequence[nn.Parameter]], Optimizer]


class Distiller(pl.LightningModule):
    """Trains a student from labels, a frozen teacher and a discriminator, the last two if given.

    Optimization is manual: each phase of a step has its own objective and optimizer. Lightning's `global_step` counts
    optimizer steps; `step_count` counts batches, and everything here goes by it.

    Args:
        student: the network that is trained, validated and saved.
        teacher: None to train on labels only.
        losses: the student's objective, after its `setup`.
        adversary: None for no discriminator.
        optimizers: a factory for each phase.
        schedule: factor of every phase's learning rate.
        total_steps: batches in the whole run.
        classes: class names of the dataset.
        gradient_clip: greatest norm of a phase's gradient.
        ema: moving average of the student; None for none.
        guard: stops or skips updates that are not finite.
        micro_batches: chunks in which a batch goes through the networks.
    """

    step_count: Tensor

    def __init__(
        self,
        student: SegmentationModel,
        teacher: Frozen | None,
        losses: LossSum,
        adversary: Adversary | None,
        optimizers: Mapping[str, OptimizerFactory],
        schedule: Schedule,
        total_steps: int,
        classes: Sequence[str],
        gradient_clip: float | None = None,
        ema: AveragedModel | None = None,
        guard: NanGuard | None = None,
        micro_batches: int = 1,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.student, self.teacher, self.losses, self.adversary = student, teacher, losses, adversary
        self.phases = build_phases(student, losses, adversary)
        self.optimizer_factories, self.classes = optimizers, tuple(classes)
        self.schedule, self.total_steps, self.gradient_clip = schedule, total_steps, gradient_clip
        self.ema, self.guard, self.micro_batches = ema, guard or NanGuard(), micro_batches
        self.confusion = ConfusionMatrix(len(self.classes))
        self.register_buffer("step_count", torch.tensor(0))
        self._progress = 0.0

    def setup(self, stage: str) -> None:
        """Check the trainer's precision.

        Raises:
            UserError: it scales the losses, and so the gradients that are clipped and penalized.
        """
        if self.trainer.precision == "16-mixed":
            raise UserError('the Distiller needs gradients that are not scaled; give Trainer(precision="bf16-mixed")')

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
        """Move the teacher, which is no submodule, to the device, and set the learning rates."""
        if self.teacher is not None:
            self.teacher.to(self.device)
        self._update_learning_rates()

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Run all phases on one forward pass of each network."""
        step = self.forward_networks(batch)
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

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Update the confusion matrix; return the logits at the labels' size, for callbacks."""
        output = self.eval_model(enlarge_to_minimum(batch.images, self.eval_model))
        logits = resize(output.logits.float(), (batch.target.shape[-2], batch.target.shape[-1]), output.align_corners)
        self.confusion.update(logits, batch.target)
        return logits

    def on_validation_start(self) -> None:
        """Average the BatchNorm statistics of the processes."""
        self._sync_batchnorm_buffers()

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
