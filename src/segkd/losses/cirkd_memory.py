"""Cross-image relations to a memory: a place finds its like among what the teacher said of earlier images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.losses.base import Loss, directions, global_mean, side_by_side, tap_of
from segkd.losses.places import check_regions, classes_at, comb, evenly, members
from segkd.types import IGNORE_INDEX, Step, Taps


class Queue(nn.Module):
    """The last `size` unit vectors of each class, oldest out first. Saved and restored with the run."""

    entries: Tensor
    pushed: Tensor

    def __init__(self, classes: int, size: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("entries", torch.zeros(classes, size, channels))
        self.register_buffer("pushed", torch.zeros(classes, dtype=torch.int64))

    def push(self, vectors: Tensor, exist: Tensor) -> None:
        """Add m vectors to each class, K m C, of which those exist that K m says: the first of each class."""
        numbers = torch.arange(vectors.shape[1], device=vectors.device)
        slots = (self.pushed[:, None] + numbers) % self.entries.shape[1]
        classes = torch.arange(len(slots), device=slots.device)[:, None]
        kept = torch.where(exist[..., None], vectors.to(self.entries), self.entries[classes, slots])
        self.entries[classes, slots] = kept
        self.pushed += exist.sum(1)

    def drawn(self, count: int) -> tuple[Tensor, Tensor]:
        """`count` entries of each class, evenly spaced from the newest to the oldest: K·count C, and which exist."""
        size = self.entries.shape[1]
        ages, exist = comb(self.pushed.clamp(max=size), count)
        slots = (self.pushed[:, None] - 1 - ages) % size
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
    numbers, 86 MB for 19 classes of 512 channels, and a matrix B·places·pixels_drawn, 128 MiB for eight images.

    Args:
        weight: 0.1, the authors' of both terms (train_cirkd.py, lambda-memory-pixel and -region).
        temperature: τ, the authors' 0.1 (contrast-temperature).
        pixel_queue: places remembered of each class, a tenth of the authors' 20000, which take 856 MB with their regions.
        region_queue: regions remembered of each class, a tenth of the authors' 2000.
        pixels_drawn: remembered places compared with in a step, shared evenly between the classes; the authors' 4096.
        regions_drawn: remembered regions compared with in a step, likewise; the authors' 1024.
        pushed: places that an image adds to a class, the authors' 16.
        places: greatest number of places of an image that are compared, evenly spaced; the authors take all.
        regions: who says which places are of one class, `labels` or `teacher` (its answer; unlabelled images count then).
        tap: the features that are compared, of both networks.
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
        pixels_drawn: int = 4096,
        regions_drawn: int = 1024,
        pushed: int = 16,
        places: int = 1024,
        regions: str = "labels",
        tap: str = "encoder",
    ) -> None:
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        sizes = {"region_queue": region_queue, "pixels_drawn": pixels_drawn, "regions_drawn": regions_drawn}
        for name, size in {**sizes, "pushed": pushed, "places": places}.items():
            if size < 1:
                raise ValueError(f"{name} must be 1 or more, not {size}")
        if pixel_queue < pushed:
            raise ValueError(f"pixel_queue must hold what one image adds, {pushed} places, and not {pixel_queue}")
        super().__init__(weight)
        self.temperature = temperature
        self.queue_sizes = pixel_queue, region_queue
        self.totals_drawn = pixels_drawn, regions_drawn
        self.pushed = pushed
        self.places = places
        self.regions = check_regions(regions)
        self.tap = tap

    def connect(self, student: Taps, teacher: Taps | None) -> None:
        assert teacher is not None
        ours = tap_of(student, self.tap, "student").channels
        theirs = tap_of(teacher, self.tap, "teacher").channels
        classes = tap_of(teacher, "scores", "teacher").channels
        self.projector = nn.Identity() if ours == theirs else projector(ours, theirs)
        self.pixel_memory, self.region_memory = (Queue(classes, size, theirs) for size in self.queue_sizes)
        self.drawn = [-(-total // classes) for total in self.totals_drawn]

    def forward(self, step: Step) -> Tensor:
        ours, theirs, _ = side_by_side(step, self.tap, self.tap)
        classes = classes_at(step, (ours.shape[-2], ours.shape[-1]), self.regions).flatten(1)
        theirs = theirs.flatten(2).mT
        # Autocast would take the similarities, which the temperature then magnifies, in bfloat16.
        with torch.autocast(ours.device.type, enabled=False):
            if self.training and step.draw == 0:
                self._remember(theirs, classes)
            chosen, counted = evenly(classes != IGNORE_INDEX, min(self.places, classes.shape[1]))
            student_units = directions(self.projector(picked(ours.flatten(2).mT, chosen)), 2)
            teacher_units = directions(picked(theirs, chosen), 2)
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
        units = directions(features, 2)
        of_class = members(classes, len(self.pixel_memory.entries)).mT
        regions = directions(of_class.to(units) @ units, 2)[:, :, None]
        chosen, exist = evenly(of_class, self.pushed)
        pixels = picked(units, chosen.flatten(1)).view(*chosen.shape, -1)
        for memory, vectors, those in (
            (self.pixel_memory, pixels, exist),
            (self.region_memory, regions, of_class.any(2, keepdim=True)),
        ):
            for image in zip(everyones(vectors), everyones(those), strict=True):
                memory.push(*image)


def projector(student: int, teacher: int) -> nn.Sequential:
    """From the student's width to the teacher's, of … C."""
    return nn.Sequential(nn.Linear(student, teacher, bias=False), nn.ReLU(), nn.Linear(teacher, teacher, bias=False))


def picked(features: Tensor, indices: Tensor) -> Tensor:
    """The features, of B n C, at indices B m: B m C."""
    return features.gather(1, indices[..., None].expand(-1, -1, features.shape[2]))


def everyones(tensor: Tensor) -> Tensor:
    """The tensors of all processes, one after the other along the first axis; all are of one size."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return tensor
    found = [torch.empty_like(tensor) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(found, tensor.contiguous())
    return torch.cat(found)
