"""Predictions as label files, one per image, in the form that Cityscapes' test server expects."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from segkd.data.base import SegmentationDataset
from segkd.data.own_ids import find_own_ids
from segkd.errors import UserError
from segkd.evaluate.loop import Prediction
from segkd.types import IGNORE_INDEX
from segkd.utils.files import atomic_write, make_dir

_KEY = "submission_dir"


class SubmissionWriter:
    """Writer of 8-bit PNGs that hold the dataset's label ids on disk; predicted void gets the first ignored id.

    Args:
        directory: the folder to write to; must be empty or new.
        dataset: the predicted dataset.

    Raises:
        UserError: the folder is not empty, the labels are colors, or a file cannot be written.
    """

    def __init__(self, directory: Path, dataset: SegmentationDataset) -> None:
        if directory.is_dir() and any(directory.iterdir()):
            raise UserError(
                f"{_KEY}={directory} is not empty, and the server would mix up the files; give a new folder"
            )
        ids = find_own_ids(dataset)
        if ids is None:
            raise UserError(f"the labels of {dataset.display_name} are colors, and {_KEY} writes ids; leave {_KEY} out")
        self.directory, self.dataset = make_dir(directory, _KEY), dataset
        self.label_ids = np.array([*ids.classes, IGNORE_INDEX if ids.ignored is None else ids.ignored], np.uint8)

    def __call__(self, prediction: Prediction) -> None:
        """Write the label file of one image."""
        name = self.dataset.get_name(prediction.index).removesuffix("_leftImg8bit").replace("/", "_")
        labels = self.label_ids[prediction.predicted[0].cpu().numpy()]
        with atomic_write(self.directory / f"{name}_labelIds.png", _KEY) as part:
            part.write_bytes(cv2.imencode(".png", labels)[1].tobytes())
