"""Checks of the tensors that a training loop passes to `segkd.losses.functional`, and of the arguments of losses.

Each raises a ValueError that says what was given, what was expected, and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from segkd.losses.tensors import at_least_float32, downsample_mask, get_size


def prepare_maps(
    student: Tensor, teacher: Tensor, equal: Literal["classes", "channels"] | None = None
) -> tuple[Tensor, Tensor]:
    """Return both maps in float32 or wider, the teacher's detached.

    Args:
        student: B C h w.
        teacher: B C' h w.
        equal: what the channels are, if there must be as many in both.

    Raises:
        ValueError: one is no map of floating-point numbers, or they do not fit each other.
    """
    student, teacher = prepare_map(student, "the student's map"), prepare_map(teacher, "the teacher's map")
    if len(student) != len(teacher):
        raise ValueError(
            f"the student's map has {len(student)} images and the teacher's {len(teacher)}; pass both networks the same batch"
        )
    if get_size(student) != get_size(teacher):
        height, width = get_size(student)
        raise ValueError(
            f"the student's map is {height}×{width} and the teacher's {teacher.shape[2]}×{teacher.shape[3]}; resize one first, "
            f"as in F.interpolate(teacher, size=({height}, {width}), mode='bilinear')"
        )
    channels = student.shape[1], teacher.shape[1]
    if equal and channels[0] != channels[1]:
        cure = {
            "classes": "compare networks with the same classes in the same order",
            "channels": f"map the student's features first, with a trained nn.Conv2d({channels[0]}, {channels[1]}, 1)",
        }[equal]
        raise ValueError(f"the student's map has {channels[0]} {equal} and the teacher's {channels[1]}; {cure}")
    if equal == "classes":
        _check_num_classes(student)
    return student, teacher.detach().to(student.dtype)


def prepare_logits_and_target(logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return logits in float32 or wider, and labels of the same size as int64.

    Raises:
        ValueError: they are no such tensors, or do not fit each other.
    """
    logits = prepare_map(logits, "logits")
    _check_num_classes(logits)
    target = prepare_target(target, len(logits), logits.shape[1], ignore_index)
    if get_size(logits) != get_size(target):
        height, width = get_size(target)
        raise ValueError(
            f"logits are {logits.shape[2]}×{logits.shape[3]} and target is {height}×{width}; enlarge the logits first, "
            f"as in F.interpolate(logits, size=({height}, {width}), mode='bilinear')"
        )
    return logits, target


def prepare_map(maps: Tensor, name: str) -> Tensor:
    """Return a map in float32 or wider.

    Raises:
        ValueError: it is not B C h w of floating-point numbers.
    """
    check_tensor(maps, name, "the logits or a feature of the network's output")
    if not maps.is_floating_point():
        raise ValueError(f"{name} must be floating-point numbers, not {_get_dtype(maps)}; pass it before any argmax")
    if maps.ndim != 4:
        raise ValueError(f"{name} must be B C h w, not of shape {tuple(maps.shape)}; pass a single image as maps[None]")
    return at_least_float32(maps)


def prepare_valid(valid: Tensor | None, maps: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Return the mask of the positions that count, B h w bool; all true without one.

    Args:
        valid: B H W bool at any resolution.
        maps: B C h w, whose batch it belongs to.
        size: h w; those of the maps by default.

    Raises:
        ValueError: it is not bool, or not B H W of this batch.
    """
    size = size or get_size(maps)
    if valid is None:
        return torch.ones(len(maps), *size, dtype=torch.bool, device=maps.device)
    check_tensor(valid, "valid", "a mask B H W bool, and options by name, such as temperature=4.0")
    if valid.dtype != torch.bool:
        raise ValueError(f"valid must be bool, not {_get_dtype(valid)}; pass a mask such as valid > 0")
    _check_layout(valid, "valid", len(maps))
    return downsample_mask(valid, size)


def prepare_target(target: Tensor, num_images: int, num_classes: int, ignore_index: int) -> Tensor:
    """Return the labels as int64.

    Args:
        target: B H W of integers.
        num_images: B.
        num_classes: K.
        ignore_index: the label of a pixel that does not count.

    Raises:
        ValueError: it is not B H W of integers, or on a CPU a label is neither a class nor `ignore_index`.
    """
    check_tensor(target, "target", "labels B H W")
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise ValueError(
            f"target must be class indices, not {_get_dtype(target)}; pass integers, such as target.long()"
        )
    _check_layout(target, "target", num_images)
    target = target.long()
    # An accelerator would have to wait for the answer, and a compiled graph would end here.
    if target.device.type == "cpu" and not torch.compiler.is_compiling():
        wrong = target[((target < 0) | (target >= num_classes)) & (target != ignore_index)]
        if len(wrong):
            raise ValueError(
                f"target has the label {int(wrong[0])}, and there are {num_classes} classes; map labels to 0..{num_classes - 1}, "
                f"and what should not count to {ignore_index} (ignore_index)"
            )
    return target


def check_positions(
    student: Tensor, teacher: Tensor, memories: Sequence[tuple[Tensor, Tensor]], valid: Tensor | None
) -> None:
    """Check features of positions and the memories they are compared with.

    Args:
        student: B n C.
        teacher: B n C.
        memories: pairs of V C and V bool.
        valid: B n bool.

    Raises:
        ValueError: they are no such tensors, or do not fit each other.
    """
    for features, name in ((student, "student"), (teacher, "teacher")):
        check_tensor(features, name, "features B n C")
        if features.ndim != 3 or features.shape != student.shape or not features.is_floating_point():
            raise ValueError(
                f"{name} must be B n C, as many numbers for both networks, not of shape {tuple(features.shape)}; pass "
                "maps.flatten(2).mT, the student's through a trained projector"
            )
    for vectors, exists in memories:
        if vectors.shape[1:] != student.shape[2:] or exists.shape != vectors.shape[:1] or exists.dtype != torch.bool:
            raise ValueError(
                f"a memory must be vectors V × {student.shape[2]} and V bool that say which exist, not of shapes "
                f"{tuple(vectors.shape)} and {tuple(exists.shape)}; pass what Queue.sample returns"
            )
    if valid is not None and (valid.shape != student.shape[:2] or valid.dtype != torch.bool):
        raise ValueError(
            f"valid must be bool of shape {tuple(student.shape[:2])}, not {_get_dtype(valid)} of {tuple(valid.shape)}; pass B n"
        )


def check_tensor(value: Any, name: str, expected: str) -> None:
    """Refuse what is no tensor, such as the output object of a network of another library.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a tensor, not a {type(value).__name__}; pass {expected}")


def check_temperature(temperature: float) -> None:
    """Refuse a temperature that is not positive.

    Raises:
        ValueError: it is not.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")


def _check_num_classes(logits: Tensor) -> None:
    if logits.shape[1] < 2:
        raise ValueError(
            "logits of one channel have a constant softmax; pass two, as in torch.cat([torch.zeros_like(logits), logits], 1)"
        )


def _check_layout(tensor: Tensor, name: str, num_images: int) -> None:
    if tensor.ndim != 3 or len(tensor) != num_images:
        cure = (
            f"; {name}.squeeze(1) removes the axis of one channel" if tensor.ndim == 4 and tensor.shape[1] == 1 else ""
        )
        raise ValueError(
            f"{name} must be B H W of the same {num_images} images, not of shape {tuple(tensor.shape)}{cure}"
        )


def _get_dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
