"""Predictions as label files, one an image, as Cityscapes' test server wants them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from segkd.data.base import SegmentationDataset
from segkd.errors import UserError
from segkd.evaluation import Answer
from segkd.types import IGNORE_INDEX


class LabelFiles:
    """Writes each answer as an 8-bit PNG of the data set's label ids on disk; void, where it was said, has the first ignored id.

    Args:
        directory: where to; must be empty or new.
        dataset: what is predicted.

    Raises:
        UserError: the folder holds something, or a file cannot be written.
    """

    def __init__(self, directory: Path, dataset: SegmentationDataset) -> None:
        if directory.is_dir() and any(directory.iterdir()):
            raise UserError(
                f"label_files={directory} is not empty; the server would mix its files up: give a new folder"
            )
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make label_files={directory} ({error.strerror}); give another folder") from None
        self.directory, self.dataset = directory, dataset
        ids = type(dataset).ids  # by label id, even where an instance reads training ids
        first = {class_index: label_id for label_id, class_index in reversed(ids.items())}
        self.label_ids = np.array(
            [*(first[i] for i in range(len(dataset.classes))), first.get(IGNORE_INDEX, IGNORE_INDEX)], np.uint8
        )

    def __call__(self, answer: Answer) -> None:
        name = self.dataset.name(answer.index).removesuffix("_leftImg8bit")
        labels = self.label_ids[answer.predicted[0].cpu().numpy()]
        path = self.directory / f"{name}_labelIds.png"
        part = path.with_suffix(".part")
        try:
            part.write_bytes(cv2.imencode(".png", labels)[1].tobytes())
            part.rename(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise UserError(f"cannot write {path} ({error.strerror}); make room, or give another folder") from None
