"""Build the data module from settings."""

from __future__ import annotations

from segkd.builders.datasets import open_dataset
from segkd.config.training import TrainerSettings, TrainSettings
from segkd.data.base import SegmentationDataset
from segkd.data.datamodule import SegmentationDataModule
from segkd.data.device_augmentation import DeviceAugmentation
from segkd.data.transforms import Augmentation, ColorJitter
from segkd.data.unlabeled import UnlabeledImages
from segkd.errors import UserError


def build_datamodule(settings: TrainSettings) -> SegmentationDataModule:
    """Return the module that serves training and validation batches.

    Raises:
        UserError: there is no data, or too little of it.
    """
    data = settings.data
    train, val = (open_dataset(settings.dataset, split) for split in (data.train_split, data.val_split))
    kind = DeviceAugmentation if data.on_device else Augmentation
    jitter = ColorJitter(**data.jitter.model_dump())
    augmentation = kind(get_crop_size(settings, train), data.scale, data.flip, jitter, train.mean)
    unlabeled = _open_unlabeled(settings, train)
    return SegmentationDataModule(train, val, augmentation, data.batch_size, data.workers, settings.seed, *unlabeled)


def uses_teacher(settings: TrainSettings) -> bool:
    """Return whether a loss or the adversary reads the teacher; an unused one would only cost time."""
    return settings.adversary is not None or any(spec.target.needs_teacher for spec in settings.loss.values())


def get_crop_size(settings: TrainSettings, dataset: SegmentationDataset) -> tuple[int, int]:
    """Return height and width of training crops."""
    return settings.data.crop_size or dataset.size


def count_steps_per_epoch(settings: TrainerSettings, datamodule: SegmentationDataModule) -> int:
    """Return the number of batches of an epoch, within `limit_train_batches`."""
    steps, limit = datamodule.steps_per_epoch, settings.limit_train_batches
    if limit is None:
        return steps
    return min(steps, limit) if isinstance(limit, int) else max(1, int(steps * limit))


def _open_unlabeled(settings: TrainSettings, dataset: SegmentationDataset) -> tuple[UnlabeledImages | None, int]:
    """Return images for distillation alone, and how many of them join each batch."""
    data = settings.data
    if data.unlabeled is None:
        return None, 0
    if data.on_device:
        raise UserError("unlabeled images are read from their files; give data.on_device=false, or data.unlabeled=null")
    if settings.teacher is None or not uses_teacher(settings):
        raise UserError(
            "data.unlabeled needs a teacher and at least one distillation loss; give model@teacher=NAME and such a loss, "
            "or data.unlabeled=null"
        )
    return UnlabeledImages(data.unlabeled, dataset.size[0]), max(1, round(data.batch_size * data.unlabeled_ratio))
