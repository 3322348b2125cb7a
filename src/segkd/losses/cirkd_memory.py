"""Cross-image relations to a memory: positions are similar to those of earlier images as they are in the teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.losses.base import Loss
from segkd.losses.checks import check_positions, check_temperature
from segkd.losses.distributed import all_gather_cat, global_mean
from segkd.losses.features import align_features, get_feature
from segkd.losses.regions import (
    check_class_source,
    downsample_classes,
    encode_membership,
    gather_positions,
    sample_evenly,
    space_evenly,
)
from segkd.losses.tensors import at_least_float32, get_size, safe_normalize
from segkd.types import IGNORE_INDEX, FeatureInfos, Step


def cirkd_memory_loss(
    student: Tensor,
    teacher: Tensor,
    memories: Sequence[tuple[Tensor, Tensor]],
    valid: Tensor | None = None,
    temperature: float = 0.1,
) -> Tensor:
    """Return Σ over memories of the mean over positions a of KL(p_a ‖ q_a), with p_a = softmax_v(cos(f_a, v) / τ).

    Yang et al., CVPR 2022 (arXiv 2204.06986), the memory terms; v runs over the vectors of a memory, such as
    `segkd.losses.cirkd_memory.Queue`: `push` adds to it, and `sample` returns what to compare with.

    Args:
        student: features of n positions, mapped to the teacher's channels, B n C: of a map B C h w `maps.flatten(2).mT`.
        teacher: those of the teacher, B n C.
        memories: of each the teacher's vectors of length 1, V C, and which of them exist, V bool.
        valid: the positions that count, B n bool.
        temperature: τ.

    Raises:
        ValueError: the tensors do not fit each other.

    Example:
        >>> student, teacher, queue = torch.randn(2, 100, 8), torch.randn(2, 100, 8), Queue(11, size=50, channels=8)
        >>> cirkd_memory_loss(student, teacher, [queue.sample(10)]).shape
        torch.Size([])
    """
    check_temperature(temperature)
    check_positions(student, teacher, memories, valid)
    student, teacher = at_least_float32(student), at_least_float32(teacher).detach()
    valid = torch.ones(student.shape[:2], dtype=torch.bool, device=student.device) if valid is None else valid
    # Autocast would take the similarities, which the temperature then magnifies, in bfloat16.
    with torch.autocast(student.device.type, enabled=False):
        units = safe_normalize(student, 2), safe_normalize(teacher.to(student), 2)
        total = torch.zeros_like(valid, dtype=student.dtype)
        for vectors, exists in memories:
            log_q, log_p = (_log_similarity(positions, vectors, exists, temperature) for positions in units)
            total = total + F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(2)
        return global_mean((total * valid).sum(), valid.sum())


def _log_similarity(units: Tensor, vectors: Tensor, exists: Tensor, temperature: float) -> Tensor:
    """Return the log-softmax of the similarities of positions B n C to vectors V C: B n V."""
    similarity = units @ vectors.to(units).mT / temperature
    # Finite, since an empty memory would give NaN.
    return similarity.masked_fill(~exists, torch.finfo(similarity.dtype).min).log_softmax(2)


class Queue(nn.Module):
    """The last `size` unit vectors of each class, oldest out first; saved and restored with the run.

    Args:
        num_classes: K.
        size: vectors of a class.
        channels: C.
    """

    entries: Tensor
    pushed: Tensor

    def __init__(self, num_classes: int, size: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("entries", torch.zeros(num_classes, size, channels))
        self.register_buffer("pushed", torch.zeros(num_classes, dtype=torch.int64))

    def push(self, vectors: Tensor, exists: Tensor) -> None:
        """Add up to m vectors to each class.

        Args:
            vectors: K m C.
            exists: K m bool; which to add, the first ones of each class.
        """
        ranks = torch.arange(vectors.shape[1], device=vectors.device)
        slots = (self.pushed[:, None] + ranks) % self.entries.shape[1]
        classes = torch.arange(len(slots), device=slots.device)[:, None]
        kept = torch.where(exists[..., None], vectors.to(self.entries), self.entries[classes, slots])
        self.entries[classes, slots] = kept
        self.pushed += exists.sum(1)

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """Return `count` entries of each class, evenly spaced from newest to oldest: K·count C, and which exist."""
        size = self.entries.shape[1]
        ages, exists = space_evenly(self.pushed.clamp(max=size), count)
        slots = (self.pushed[:, None] - 1 - ages) % size
        classes = torch.arange(len(slots), device=slots.device)[:, None]
        return self.entries[classes, slots].flatten(0, 1), exists.flatten()


class CIRKDMemory(Loss):
    """Divergence between the teacher's and the student's similarities of a position to stored pixels and regions.

        L = L_pixels + L_regions,   each: mean over positions a of Σ_v p_av (log p_av − log q_av),   p_a = softmax_v(f_a · v / τ)

    with f_a the unit feature of a position, of the teacher in p and of the student, projected to the teacher's width, in q; v
    runs over a queue of the teacher's unit features: of single pixels, or of regions (the mean direction of an image's
    positions of one class). Yang et al., *Cross-Image Relational Knowledge Distillation for Semantic Segmentation*, CVPR 2022
    (arXiv 2204.06986), the memory terms. The teacher's map is resized to the student's. A position counts if it has a class.

    In training each step first adds to the queues, for each image and class, the region and up to `pixels_per_class` pixels,
    then compares. Processes exchange what they add, as the authors' do, so that all queues are equal and one saved copy
    serves all processes. Nothing is random: positions and entries are evenly spaced. The authors sample both at random, from
    an image's first positions whatever their class, and start from random queues; here an empty slot is not compared. The
    value does not depend on the batch size until the queues are full; then a larger batch reaches less far back.

    The projector is the authors' without its BatchNorm, whose statistics would tie the images of a process together:
    linear, ReLU, linear, position by position; none where the widths are equal. The queues take
    K·(pixel_queue + region_queue)·C numbers, 86 MB for 19 classes of 512 channels, and a matrix
    B·max_positions·num_pixel_samples, 128 MiB for eight images.

    Shape:
        - student feature: B C h w; teacher feature: B C' h' w'.
        - output: scalar.

    Example:
        >>> loss = CIRKDMemory(pixel_queue=100, region_queue=10)
        >>> loss.setup(features, features)
        >>> loss(step).shape
        torch.Size([])

    Args:
        weight: 0.1, the authors' of both terms (train_cirkd.py, lambda-memory-pixel and -region).
        temperature: τ, the authors' 0.1 (contrast-temperature).
        pixel_queue: stored pixels of each class, a tenth of the authors' 20000, which take 856 MB with their regions.
        region_queue: stored regions of each class, a tenth of the authors' 2000.
        num_pixel_samples: stored pixels to compare with in a step, shared evenly between the classes; the authors' 4096.
        num_region_samples: stored regions to compare with in a step, likewise; the authors' 1024.
        pixels_per_class: pixels that an image adds to a class, the authors' 16.
        max_positions: greatest number of positions of an image that are compared, evenly spaced; the authors take all.
        class_source: what decides the class of a position, `labels` or `teacher` (its prediction; then unlabeled images
            count too).
        feature: name of the compared feature, in both networks.
    """

    exemptions: ClassVar[Mapping[str, str]] = {
        "crop_invariance": "an image adds a fixed number of pixels, whatever the size of its crop",
        "labels_do_not_matter": "regions come from the labels, unless class_source is teacher",
    }

    def __init__(
        self,
        weight: float = 0.1,
        temperature: float = 0.1,
        pixel_queue: int = 2000,
        region_queue: int = 200,
        num_pixel_samples: int = 4096,
        num_region_samples: int = 1024,
        pixels_per_class: int = 16,
        max_positions: int = 1024,
        class_source: str = "labels",
        feature: str = "encoder",
    ) -> None:
        check_temperature(temperature)
        counts = {
            "region_queue": region_queue,
            "num_pixel_samples": num_pixel_samples,
            "num_region_samples": num_region_samples,
            "pixels_per_class": pixels_per_class,
            "max_positions": max_positions,
        }
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name} must be 1 or more, not {count}")
        if pixel_queue < pixels_per_class:
            raise ValueError(f"pixel_queue must be at least pixels_per_class, {pixels_per_class}, not {pixel_queue}")
        super().__init__(weight)
        self.temperature = temperature
        self.queue_sizes = pixel_queue, region_queue
        self.total_samples = num_pixel_samples, num_region_samples
        self.pixels_per_class = pixels_per_class
        self.max_positions = max_positions
        self.class_source = check_class_source(class_source)
        self.feature = feature

    def setup(self, student: FeatureInfos, teacher: FeatureInfos | None) -> None:
        """Check the features, and create the projector and the queues."""
        assert teacher is not None
        student_channels = get_feature(student, self.feature, "student").channels
        channels = get_feature(teacher, self.feature, "teacher").channels
        num_classes = get_feature(teacher, "kd_logits", "teacher").channels
        self.projector = nn.Identity() if student_channels == channels else make_mlp(student_channels, channels)
        self.pixel_memory, self.region_memory = (Queue(num_classes, size, channels) for size in self.queue_sizes)
        self.samples_per_class = [-(-total // num_classes) for total in self.total_samples]

    def forward(self, step: Step) -> Tensor:
        """Compute the loss, a scalar; in training, add the batch to the queues first."""
        student, teacher, _ = align_features(step, self.feature, self.feature)
        classes = downsample_classes(step, get_size(student), self.class_source).flatten(1)
        teacher = teacher.flatten(2).mT
        # Autocast would take the similarities, which the temperature then magnifies, in bfloat16.
        with torch.autocast(student.device.type, enabled=False):
            if self.training and step.repeat == 0:
                self._update_memory(teacher, classes)
            positions, valid = sample_evenly(classes != IGNORE_INDEX, min(self.max_positions, classes.shape[1]))
            memories = [
                memory.sample(count)
                for memory, count in zip((self.pixel_memory, self.region_memory), self.samples_per_class, strict=True)
            ]
            student = self.projector(gather_positions(student.flatten(2).mT, positions))
        return cirkd_memory_loss(student, gather_positions(teacher, positions), memories, valid, self.temperature)

    @torch.no_grad()
    def _update_memory(self, features: Tensor, classes: Tensor) -> None:
        """Add the regions and some pixels of the images of all processes, B n C with classes B n."""
        units = safe_normalize(features, 2)
        membership = encode_membership(classes, len(self.pixel_memory.entries)).mT
        regions = safe_normalize(membership.to(units) @ units, 2)[:, :, None]
        positions, exists = sample_evenly(membership, self.pixels_per_class)
        pixels = gather_positions(units, positions.flatten(1)).view(*positions.shape, -1)
        for memory, vectors, mask in (
            (self.pixel_memory, pixels, exists),
            (self.region_memory, regions, membership.any(2, keepdim=True)),
        ):
            for image in zip(all_gather_cat(vectors), all_gather_cat(mask), strict=True):
                memory.push(*image)


def make_mlp(in_channels: int, out_channels: int) -> nn.Sequential:
    """Create linear, ReLU, linear on the last axis."""
    return nn.Sequential(
        nn.Linear(in_channels, out_channels, bias=False), nn.ReLU(), nn.Linear(out_channels, out_channels, bias=False)
    )
