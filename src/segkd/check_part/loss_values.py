"""Lines of a loss's contract about its value: the same at any batch size, crop size and number of processes."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from segkd.check_part.findings import NotApplicable, require
from segkd.check_part.loss_case import LossCase, format_number, get_teacher, require_close, require_finite
from segkd.check_part.simulated_processes import run_as_processes
from segkd.check_part.steps import change_all_maps, change_maps, compute_gradients, select_images
from segkd.types import IGNORE_INDEX, Batch, NetworkOutput, resize

_MEAN = "return the mean over the valid pixels of the global batch, segkd.losses.distributed.global_mean(total, count)"
_FLOAT32 = (
    "the same values in float32 give the latter, so cast maps with segkd.losses.tensors.at_least_float32 (align_features does), "
    "and call layers of the loss in `with torch.autocast(student.device.type, enabled=False):` (make_projector's do)"
)


def check_odd_sizes(case: LossCase) -> None:
    """A teacher of another size, and images that no stride divides."""
    step = case.make_step(size=(7, 9))
    other = case.make_step(size=(8, 10), seed=1).teacher
    step = step._replace(batch=Batch(*(t[..., :53, :70] if t.ndim > 1 else t for t in step.batch)), teacher=other)
    value = case.compute(step)
    where = "for maps of 7×9, a teacher of 8×10 and images of 53×70"
    require(bool(value > 0), f"the loss of random maps is {format_number(value)} {where}; it must be more than 0")
    require_finite(compute_gradients(value, step), where)


def check_nothing_valid(case: LossCase) -> None:
    """A zero that can be differentiated where no pixel counts."""
    step = case.make_step()
    batch = step.batch._replace(
        target=torch.full_like(step.batch.target, IGNORE_INDEX), valid=torch.zeros_like(step.batch.valid)
    )
    step = step._replace(batch=batch)
    value = case.compute(step)
    require(bool(value == 0), f"the loss is {format_number(value)} where no pixel is valid, and must be 0; {_MEAN}")
    require(
        value.requires_grad, "the loss cannot be differentiated where no pixel is valid; return total * 0, no constant"
    )
    gradients = compute_gradients(value, step)
    require(
        bool(gradients),
        "the loss depends on no map of the student where no pixel is valid; return total * 0, no constant",
    )
    require_finite(gradients, "where no pixel is valid; replace values before you divide, not after")
    largest = max(float(gradient.abs().max()) for gradient in gradients)
    require(largest == 0, f"the gradient is up to {largest:.3g} where no pixel is valid, and must be 0; {_MEAN}")


def check_zero_at_equality(case: LossCase) -> None:
    """Zero where student and teacher are equal, up to rounding."""
    step = case.make_step()
    value = case.compute(step._replace(teacher=change_maps(step.student, torch.clone)))
    rounding = 1e-6 * max(1.0, abs(float(case.compute(step).detach())))
    require(
        bool(0 <= value < rounding),
        f"the loss is {format_number(value)} where student and teacher are equal, and must be 0; "
        "subtract its minimum, or declare the exemption",
    )


def check_batch_invariance(case: LossCase) -> None:
    """The same value for a batch that is given twice."""
    step = case.make_step()
    twice = change_all_maps(step, lambda maps: maps.repeat(2, 1, 1, 1))
    twice = twice._replace(batch=Batch(*(torch.cat([tensor, tensor]) for tensor in step.batch)))
    require_close(case.compute(twice), case.compute(step), "the loss of a batch given twice", _MEAN)


def check_crop_invariance(case: LossCase) -> None:
    """A plane tiled with one crop has the loss of the crop, if no map has to be enlarged."""
    step = case.make_step()
    step = step._replace(batch=Batch(*(t[..., :6, :8] if t.ndim > 1 else t for t in step.batch)))
    tiled = change_all_maps(step, lambda maps: maps.repeat(1, 1, 2, 3))
    data = step.batch
    tiled = tiled._replace(
        batch=Batch(
            data.images.repeat(1, 1, 2, 3), data.target.repeat(1, 2, 3), data.valid.repeat(1, 2, 3), seeds=data.seeds
        )
    )
    require_close(case.compute(tiled), case.compute(step), "the loss of a plane tiled with a crop", _MEAN)


def check_process_invariance(case: LossCase) -> None:
    """Two processes, each with half of a batch and unequal parts of it valid, average to the gradient of the batch."""
    step = case.make_step(batch=4)
    step.batch.valid[0, :, 24:] = False
    step.batch.target[3, 16:] = IGNORE_INDEX
    halves = [select_images(step, slice(0, 2)), select_images(step, slice(2, 4))]
    losses = [case.make_loss(half) for half in halves]
    expected = compute_gradients(case.compute(step), step)

    def differentiate(rank: int) -> list[Tensor]:
        return compute_gradients(losses[rank](halves[rank]), halves[rank])

    parts = run_as_processes([partial(differentiate, rank) for rank in range(2)])
    pairs = [(torch.cat([a, b]) / 2, e) for a, b, e in zip(*parts, expected, strict=True)]
    difference = max(float((average - e).norm() / e.norm().clamp(min=1e-12)) for average, e in pairs)
    require(
        all(torch.allclose(average, e, rtol=1e-4, atol=1e-8) for average, e in pairs),
        f"in two processes with half of the batch each, the averaged gradient is another than that of the whole batch, by "
        f"{100 * difference:.3g} %; {_MEAN}",
    )


def check_sums_in_float32(case: LossCase) -> None:
    """The same loss of bfloat16 maps and of their float32 copies: nothing in the loss itself is in bfloat16."""
    step = case.make_step(size=(7, 9))
    step = step._replace(teacher=case.make_step(size=(8, 10), seed=1).teacher)
    short = change_all_maps(step, torch.Tensor.bfloat16)
    cast = change_all_maps(short, torch.Tensor.float)
    loss = case.make_loss(short)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(short)
    require_close(value, case.compute(cast), "the loss of maps in bfloat16", _FLOAT32)
    require_finite(compute_gradients(value, short), "for maps in bfloat16")


def check_labels_do_not_matter(case: LossCase) -> None:
    """An image without labels counts like any other."""
    step = case.make_step()
    unlabeled = step.batch._replace(target=torch.full_like(step.batch.target, IGNORE_INDEX))
    value, expected = case.compute(step._replace(batch=unlabeled)), case.compute(step)
    require(
        bool(value == expected),
        f"the loss of unlabeled images is {format_number(value)} instead of {format_number(expected)}; "
        "count step.batch.valid and not the labels, or declare the exemption",
    )


def check_teacher_is_resized_by_its_own_convention(case: LossCase) -> None:
    """A teacher's maps of another size are resized as the teacher says, with aligned corners or without.

    Losses compare at the student's size, or at that of the images.
    """
    step, other = case.make_step(size=(7, 9)), get_teacher(case.make_step(size=(11, 6), seed=1))
    image_size = step.batch.valid.shape[1], step.batch.valid.shape[2]
    for align_corners in (True, False):
        value = case.compute(step._replace(teacher=other._replace(align_corners=align_corners)))
        expected = [
            case.compute(step._replace(teacher=_resize_maps(other, size, align_corners)))
            for size in ((7, 9), image_size)
        ]
        if torch.isclose(value, expected[1], rtol=1e-5):
            continue
        require_close(
            value,
            expected[0],
            f"the loss with a teacher of 11×6 for a student of 7×9 and align_corners={align_corners}",
            "resize with segkd.types.resize(maps, size, step.teacher.align_corners) (align_features does)",
        )


def _resize_maps(output: NetworkOutput, size: tuple[int, int], align_corners: bool) -> NetworkOutput:
    resized = change_maps(output, partial(resize, size=size, align_corners=align_corners))
    return resized._replace(align_corners=align_corners)


def check_teacher_of_other_classes(case: LossCase) -> None:
    """A loss that declares `needs_teacher_classes = False` takes a teacher of any classes."""
    step = case.make_step()
    loss = case.make_loss(step)
    if not loss.needs_teacher:
        raise NotApplicable("it needs no teacher")
    if loss.needs_teacher_classes:
        raise NotApplicable("it needs a teacher of the student's classes")
    step = step._replace(teacher=case.make_step(classes=case.classes + 4).teacher)
    value = case.compute(step)
    where = f"with a teacher of {case.classes + 4} classes for a student of {case.classes}"
    require(bool(value.isfinite()), f"the loss is {format_number(value)} {where}")
    moved = any(bool(gradient.any()) for gradient in compute_gradients(value, step))
    require(moved, f"the student gets no gradient {where}")


def check_padding_does_not_matter(case: LossCase) -> None:
    """What a map holds where the batch was padded changes nothing."""
    step = case.make_step()
    batch, width = step.batch, step.batch.valid.shape[2]
    batch.valid[0, :, width // 2 :] = False
    batch.target[0, :, width // 2 :] = IGNORE_INDEX

    def disturb(maps: Tensor) -> Tensor:
        changed = maps.clone()
        # Not the first padded column, which a resized map mixes with the last valid one.
        changed[0, :, :, maps.shape[3] // 2 + 1 :] += 3 * torch.arange(maps.shape[1])[:, None, None]
        return changed

    require_close(
        case.compute(change_all_maps(step, disturb)),
        case.compute(step),
        "the loss with other values at padded positions",
        "multiply by the mask of valid positions, segkd.losses.tensors.downsample_mask(step.batch.valid, size)",
    )
