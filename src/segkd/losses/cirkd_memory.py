"""Cross-image relations to a memory: a place finds its like among what the teacher said of earlier images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.losses.base import Loss
from segkd.losses.distributed import global_mean
from segkd.losses.features import align_features, get_feature
from segkd.losses.functional import safe_normalize
from segkd.losses.regions import (
    check_class_source,
    downsample_classes,
    evenly_spaced,
    one_hot_membership,
    sample_evenly,
)
from segkd.types import IGNORE_INDEX, FeatureInfos, Step


class Queue(nn.Module):
    """The last `size` unit vectors of each class, oldest out first. Saved and restored with the run."""

    entries: Tensor
    pixels_per_class: Tensor

    def __init__(self, classes: int, size: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("entries", torch.zeros(classes, size, channels))
        self.register_buffer("pushed", torch.zeros(classes, dtype=torch.int64))

    def push(self, vectors: Tensor, exist: Tensor) -> None:
        """Add m vectors to each class, K m C, of which those exist that K m says: the first of each class."""
        numbers = torch.arange(vectors.shape[1], device=vectors.device)
        slots = (self.pixels_per_class[:, None] + numbers) % self.entries.shape[1]
        classes = torch.arange(len(slots), device=slots.device)[:, None]
        kept = torch.where(exist[..., None], vectors.to(self.entries), self.entries[classes, slots])
        self.entries[classes, slots] = kept
        self.pixels_per_class += exist.sum(1)

    def drawn(self, count: int) -> tuple[Tensor, Tensor]:
        """`count` entries of each class, evenly spaced from the newest to the oldest: K·count C, and which exist."""
        size = self.entries.shape[1]
        ages, exist = evenly_spaced(self.pixels_per_class.clamp(max=size), count)
        slots = (self.pixels_per_class[:, None] - 1 - ages) % size
        classes = torch.arange(len(slots), device=slots.device)[:, None]
        return self.entries[classes, slots].flatten(0, 1), exist.flatten()


class CIRKDMemory(Loss):
    """Divergence of the student's from the teacher's similarities of a place to remembered places and regions.

        L = L_pixels + L_regions,   each: mean over places a of Σ_v p_av (log p_av − log q_av),   p_a = softmax_v(f_a · v / τ)

    with f_a a place's unit feature, by the teacher in p and by the student, projected to the teacher's width, in q; v runs
    over a queue of the teacher's unit features: of single places, or of regions (the mean direction of an image's places
    of one class). Yang et al., *Cross-Image Relational Knowledge Distillation for Semantic Segmentation*, CVPR 2022 (arXiv
    2204.06986), the memory terms. Maps are B C h w. The teacher's map is resized to the student's. A place counts that has
    a class.

    In training each step first adds to the queues, of each image and class, the region and up to `pushed` places, then
    compares. Processes add each other's too, as the authors' do: the queues are the same everywhere, so the one that is saved
    is that of all. There is no randomness: places and entries are taken evenly spaced. The authors draw them at random, their
    places from the first of the image whatever their class, and start from random queues; here an empty slot is not compared.
    The value does not depend on the size of the batch until the queues are full; then a larger batch reaches less far back.

    The projector is the authors' without its BatchNorm, whose statistics would tie the images of a process together:
    linear, ReLU, linear, place by place; none where the widths are equal. The queues take K·(pixel_queue + region_queue)·C
    numbers, 86 MB for 19 classes of 512 channels, and a matrix B·places·num_pixel_samples, 128 MiB for eight images.

    Args:
        weight: 0.1, the authors' of both terms (train_cirkd.py, lambda-memory-pixel and -region).
        temperature: τ, the authors' 0.1 (contrast-temperature).
        pixel_queue: places remembered of each class, a tenth of the authors' 20000, which take 856 MB with their regions.
        region_queue: regions remembered of each class, a tenth of the authors' 2000.
        num_pixel_samples: remembered places compared with in a step, shared evenly between the classes; the authors' 4096.
        num_region_samples: remembered regions compared with in a step, likewise; the authors' 1024.
        pixels_per_class: places that an image adds to a class, the authors' 16.
        places: greatest number of places of an image that are compared, evenly spaced; the authors take all.
        class_source: who says which places are of one class, `labels` or `teacher` (its answer; unlabelled images count then).
        feature: the features that are compared, of both networks.
    """

    exemptions: ClassVar[Mapping[str, str]] = {
        "crop_invariance": "an image adds a fixed number of places, whatever the size of its crop",
        "labels_do_not_matter": "regions are of one label, unless the teacher says what is of one class",
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
        places: int = 1024,
        class_source: str = "labels",
        feature: str = "encoder",
    ) -> None:
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        sizes = {
            "region_queue": region_queue,
            "num_pixel_samples": num_pixel_samples,
            "num_region_samples": num_region_samples,
        }
        for name, size in {**sizes, "pushed": pixels_per_class, "places": places}.items():
            if size < 1:
                raise ValueError(f"{name} must be 1 or more, not {size}")
        if pixel_queue < pixels_per_class:
            raise ValueError(
                f"pixel_queue must hold what one image adds, {pixels_per_class} places, and not {pixel_queue}"
            )
        super().__init__(weight)
        self.temperature = temperature
        self.queue_sizes = pixel_queue, region_queue
        self.totals_drawn = num_pixel_samples, num_region_samples
        self.pixels_per_class = pixels_per_class
        self.places = places
        self.class_source = check_class_source(class_source)
        self.feature = feature

    def setup(self, student: FeatureInfos, teacher: FeatureInfos | None) -> None:
        assert teacher is not None
        ours = get_feature(student, self.feature, "student").channels
        theirs = get_feature(teacher, self.feature, "teacher").channels
        classes = get_feature(teacher, "kd_logits", "teacher").channels
        self.projector = nn.Identity() if ours == theirs else make_embedding(ours, theirs)
        self.pixel_memory, self.region_memory = (Queue(classes, size, theirs) for size in self.queue_sizes)
        self.drawn = [-(-total // classes) for total in self.totals_drawn]

    def forward(self, step: Step) -> Tensor:
        ours, theirs, _ = align_features(step, self.feature, self.feature)
        classes = downsample_classes(step, (ours.shape[-2], ours.shape[-1]), self.class_source).flatten(1)
        theirs = theirs.flatten(2).mT
        # Autocast would take the similarities, which the temperature then magnifies, in bfloat16.
        with torch.autocast(ours.device.type, enabled=False):
            if self.training and step.repeat == 0:
                self._remember(theirs, classes)
            chosen, counted = sample_evenly(classes != IGNORE_INDEX, min(self.places, classes.shape[1]))
            student_units = safe_normalize(self.projector(gather_positions(ours.flatten(2).mT, chosen)), 2)
            teacher_units = safe_normalize(gather_positions(theirs, chosen), 2)
            total = torch.zeros_like(counted, dtype=ours.dtype)
            for memory, count in zip((self.pixel_memory, self.region_memory), self.drawn, strict=True):
                remembered = memory.drawn(count)
                log_q, log_p = (self._log_likeness(units, *remembered) for units in (student_units, teacher_units))
                total = total + F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(2)
            return global_mean((total * counted).sum(), counted.sum())

    def _log_likeness(self, units: Tensor, remembered: Tensor, exist: Tensor) -> Tensor:
        """Log-probabilities of what is remembered, V C, for each place, B n C: B n V."""
        likeness = units @ remembered.to(units).mT / self.temperature
        # Finite, since an empty memory would give log-probabilities that are not numbers.
        return likeness.masked_fill(~exist, torch.finfo(likeness.dtype).min).log_softmax(2)

    @torch.no_grad()
    def _remember(self, features: Tensor, classes: Tensor) -> None:
        """Add the regions and some places of every process's images, B n C with classes B n."""
        units = safe_normalize(features, 2)
        of_class = one_hot_membership(classes, len(self.pixel_memory.entries)).mT
        regions = safe_normalize(of_class.to(units) @ units, 2)[:, :, None]
        chosen, exist = sample_evenly(of_class, self.pixels_per_class)
        pixels = gather_positions(units, chosen.flatten(1)).view(*chosen.shape, -1)
        for memory, vectors, those in (
            (self.pixel_memory, pixels, exist),
            (self.region_memory, regions, of_class.any(2, keepdim=True)),
        ):
            for image in zip(all_gather_cat(vectors), all_gather_cat(those), strict=True):
                memory.push(*image)


def make_embedding(student: int, teacher: int) -> nn.Sequential:
    """From the student's width to the teacher's, of … C."""
    return nn.Sequential(nn.Linear(student, teacher, bias=False), nn.ReLU(), nn.Linear(teacher, teacher, bias=False))


def gather_positions(features: Tensor, indices: Tensor) -> Tensor:
    """The features, of B n C, at indices B m: B m C."""
    return features.gather(1, indices[..., None].expand(-1, -1, features.shape[2]))


def all_gather_cat(tensor: Tensor) -> Tensor:
    """The tensors of all processes, one after the other along the first axis; all are of one size."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return tensor
    found = [torch.empty_like(tensor) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(found, tensor.contiguous())
    return torch.cat(found)
