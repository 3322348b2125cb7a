"""What the Distiller makes of its arguments: networks checked, the teacher frozen, losses joined and set up."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from segkd.distillation.optimizers import DEFAULT_OPTIMIZERS, OptimizerFactory
from segkd.errors import UserError
from segkd.losses.base import Loss
from segkd.losses.weighted_sum import LossSum
from segkd.models.base import SegmentationModel
from segkd.models.frozen import Frozen


def prepare_student(student: object) -> SegmentationModel:
    """Return the student, in training mode unless a part of it is already, as where BatchNorm is frozen.

    Raises:
        UserError: it is no network of segkd, or one that cannot be trained.
    """
    network = _require_network(student, "student")
    if not network.can_be_student:
        raise UserError(
            f"a student is a single network for the classes of the data, and a {type(network).__name__} is not; "
            "ensembles and class maps are for teachers"
        )
    # A student that was loaded from a file is in evaluation mode, and Lightning leaves it so.
    return network if any(module.training for module in network.modules()) else network.train()


def prepare_teacher(teacher: object) -> Frozen | None:
    """Return the teacher, frozen: in evaluation mode and without gradients, from now on.

    Raises:
        UserError: it is no network of segkd.
    """
    return teacher if teacher is None or isinstance(teacher, Frozen) else Frozen(_require_network(teacher, "teacher"))


def prepare_losses(losses: LossSum | Mapping[str, Loss], student: SegmentationModel, teacher: Frozen | None) -> LossSum:
    """Return the student's objective, set up for its networks.

    Raises:
        UserError: there is no loss, or one that does not fit the networks; the message names it.
    """
    if not isinstance(losses, LossSum):
        if not isinstance(losses, Mapping) or not losses:
            raise UserError('losses are given by name, as in {"cross_entropy": CrossEntropy()}')
        for name, loss in losses.items():
            if not isinstance(loss, Loss):
                raise UserError(
                    f"losses['{name}'] is a {type(loss).__name__}; give a subclass of segkd.losses.base.Loss"
                )
        losses = LossSum(losses)
    if losses.is_set_up:
        return losses
    for name, loss in losses.named_losses():
        if loss.needs_teacher and teacher is None:
            raise UserError(
                f"loss '{name}' needs a teacher, and there is none; give Distiller(…, teacher=…) or leave it out"
            )
        if teacher is not None and loss.needs_teacher and loss.needs_teacher_classes:
            _check_same_outputs(name, student, teacher.network)
    losses.setup(student.features, None if teacher is None else teacher.network.features)
    return losses


def prepare_optimizers(factories: Mapping[str, OptimizerFactory] | None) -> dict[str, OptimizerFactory]:
    """Return a factory for each phase; the default where none is given.

    Raises:
        UserError: a name is of no phase, or a value is no factory.
    """
    given = dict(factories or {})
    for name, factory in given.items():
        if name not in DEFAULT_OPTIMIZERS:
            raise UserError(f"there is no phase '{name}' to optimize; there are {', '.join(DEFAULT_OPTIMIZERS)}")
        if not callable(factory):
            raise UserError(
                f"optimizers['{name}'] is a {type(factory).__name__}; give a function of the parameters, as in "
                "lambda parameters: torch.optim.AdamW(parameters, lr=1e-3)"
            )
    return {**DEFAULT_OPTIMIZERS, **given}


def _require_network(network: object, role: str) -> SegmentationModel:
    if isinstance(network, SegmentationModel):
        return network
    if isinstance(network, nn.Module):
        raise UserError(
            f"the {role} is a {type(network).__name__}; wrap it, which also says how it normalizes images: "
            'segkd.wrap_model(module, features={"encoder": "…"})'
        )
    raise UserError(f"the {role} is a {type(network).__name__}; give a network, as from segkd.create_model")


def _check_same_outputs(loss: str, student: SegmentationModel, teacher: SegmentationModel) -> None:
    if student.num_classes != teacher.num_classes:
        raise UserError(
            f"loss '{loss}' compares classes, and the teacher has {teacher.num_classes} outputs, the student "
            f"{student.num_classes}; give a teacher of the same classes, or one in segkd.models.ensemble.ClassRemap"
        )
