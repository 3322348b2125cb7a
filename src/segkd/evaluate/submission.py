"""Predictions as label files, one an image, as Cityscapes' test server wants them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from segkd.data.base import SegmentationDataset
from segkd.errors import UserError
from segkd.evaluate.loop import Prediction
from segkd.types import IGNORE_INDEX
from segkd.utils.files import atomic_write, make_dir

_KEY = "submission_dir"


class SubmissionWriter:
    """Writes each answer as an 8-bit PNG of the data set's label ids on disk; void, where it was said, has the first ignored id.

    Args:
        directory: where to; must be empty or new.
        dataset: what is predicted.

    Raises:
        UserError: the folder holds something, or a file cannot be written.
    """

    def __init__(self, directory: Path, dataset: SegmentationDataset) -> None:
        if directory.is_dir() and any(directory.iterdir()):
            raise UserError(f"{_KEY}={directory} is not empty; the server would mix its files up: give a new folder")
        # The class's table where it has one: an object of it may read training ids.
        ids = getattr(type(dataset), "ids", dataset.ids)
        if max(ids) > 255:
            raise UserError(
                f"{dataset.display_name()} codes its labels as colours, and {_KEY} are of ids; leave it out"
            )
        self.directory, self.dataset = make_dir(directory, _KEY), dataset
        first = {class_index: label_id for label_id, class_index in reversed(ids.items())}
        known = (first[i] for i in range(len(dataset.classes)))
        self.label_ids = np.array([*known, first.get(IGNORE_INDEX, IGNORE_INDEX)], np.uint8)

    def __call__(self, answer: Prediction) -> None:
        name = self.dataset.name(answer.index).removesuffix("_leftImg8bit").replace("/", "_")
        labels = self.label_ids[answer.predicted[0].cpu().numpy()]
        with atomic_write(self.directory / f"{name}_labelIds.png", _KEY) as part:
            part.write_bytes(cv2.imencode(".png", labels)[1].tobytes())
