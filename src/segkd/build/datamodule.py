"""Build the data module from settings."""

from __future__ import annotations

from segkd.build.datasets import open_dataset
from segkd.config.instantiate import resolve_target
from segkd.config.schema import TrainerSettings, TrainSettings
from segkd.data.base import SegmentationDataset
from segkd.data.datamodule import SegmentationDataModule
from segkd.data.device_augmentation import DeviceAugmentation
from segkd.data.transforms import Augmentation, ColorJitter
from segkd.data.unlabelled import UnlabelledImages
from segkd.errors import UserError


def build_datamodule(settings: TrainSettings) -> SegmentationDataModule:
    """Training and validation batches.

    Raises:
        UserError: no data, or too little of it.
    """
    given = settings.data
    train, val = (open_dataset(settings.dataset, split) for split in (given.train_split, given.val_split))
    jitter = ColorJitter(**given.jitter.model_dump())
    kind = DeviceAugmentation if given.on_device else Augmentation
    augmentation = kind(get_crop_size(settings, train), given.scale, given.flip, jitter, train.mean)
    unlabelled = _open_unlabelled(settings, train)
    return SegmentationDataModule(train, val, augmentation, given.batch_size, given.workers, settings.seed, *unlabelled)


def _open_unlabelled(settings: TrainSettings, facts: SegmentationDataset) -> tuple[UnlabelledImages | None, int]:
    """Images for distillation alone, and how many of them join each batch."""
    given = settings.data
    if given.unlabelled is None:
        return None, 0
    if given.on_device:
        raise UserError(
            "unlabelled images are read from their files; give data.on_device=false, or data.unlabelled=null"
        )
    if settings.teacher.get("_target_") is None or not uses_teacher(settings):
        raise UserError(
            "unlabelled images teach nothing without a teacher and a loss that hears it; give model@teacher=NAME and such a "
            "loss, or data.unlabelled=null"
        )
    images = UnlabelledImages(given.unlabelled, facts.size[0])
    return images, max(1, round(given.batch_size * given.unlabelled_ratio))


def uses_teacher(settings: TrainSettings) -> bool:
    """Whether anything listens to a teacher; one that nothing hears would only cost time."""
    return settings.adversary.get("_target_") is not None or any(
        resolve_target(node).needs_teacher for node in settings.loss.values()
    )


def get_crop_size(settings: TrainSettings, facts: SegmentationDataset) -> tuple[int, int]:
    """Height and width of training crops."""
    return settings.data.crop_size or facts.size


def count_steps_per_epoch(settings: TrainerSettings, served: SegmentationDataModule) -> int:
    """Batches of an epoch, as far as the settings let it go."""
    steps, limit = served.steps_per_epoch(), settings.limit_train_batches
    if limit is None:
        return steps
    return min(steps, limit) if isinstance(limit, int) else max(1, int(steps * limit))
