"""Random Cityscapes label maps, and the official scorer's results for predictions on them.

`python -m tests.helpers.official_scorer` writes official_scorer.json again; it needs `pip install cityscapesscripts`. The
tests only read the file.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from segkd.data.cityscapes import CLASSES, Cityscapes
from segkd.evaluate.loop import compute_confusion_matrices
from segkd.evaluate.submission import SubmissionWriter
from segkd.models.base import Normalization, SegmentationModel
from segkd.types import FeatureInfo

OFFICIAL_SCORES = Path(__file__).with_suffix(".json")
IMAGES, COARSE, BLOCK = 20, (8, 16), 8
VOID = len(CLASSES)
TO_CLASS = np.array([Cityscapes.label_map[i] if Cityscapes.label_map[i] < VOID else VOID for i in range(34)])
TRAIN, WALL = 31, 12  # label ids without labels: the first without predictions too, the second with predictions


class RedChannelModel(SegmentationModel):
    """A network that predicts the red value as the class; 19 is void."""

    def __init__(self) -> None:
        super().__init__(VOID + 1, Normalization((0, 0, 0), (1, 1, 1)), {"kd_logits": FeatureInfo(VOID + 1, 1)})
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.weight * one_hot(images[:, 0].round().long(), VOID + 1).movedim(-1, 1)
        return logits, {"kd_logits": logits}


def write_random_cityscapes(root: Path) -> None:
    """Write images whose red channel is a prediction, `labelIds` with void and unevaluated ids, and `instanceIds`."""
    rng = np.random.default_rng(7)
    ids = np.array([i for i in range(34) if i not in (TRAIN, WALL)])
    for number in range(IMAGES):
        image_ids = rng.choice(ids, 12, replace=False)
        label = _enlarge(rng.choice(image_ids, COARSE))
        # As in Cityscapes, instances are numbered, except for groups of objects.
        count = _enlarge(rng.integers(0, 4, COARSE))
        instances = np.where((label >= 24) & (count > 0), label * 1000 + count, label)
        wrong = rng.choice([i for i in range(VOID + 1) if i != TO_CLASS[TRAIN]], label.shape)
        predicted = np.where(rng.random(label.shape) < 0.6, TO_CLASS[label], wrong)
        image = np.stack([0 * label, 0 * label, predicted], -1)  # BGR
        stem = f"{'frankfurt' if number % 2 else 'lindau'}_{number:06d}_000019"
        for folder, kind, content in (
            ("leftImg8bit", "leftImg8bit", image.astype(np.uint8)),
            ("gtFine", "gtFine_labelIds", label.astype(np.uint8)),
            ("gtFine", "gtFine_instanceIds", instances.astype(np.uint16)),
        ):
            path = root / folder / "val" / stem.partition("_")[0] / f"{stem}_{kind}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), content)


def _enlarge(coarse: np.ndarray) -> np.ndarray:
    return coarse.astype(np.int64).repeat(BLOCK, 0).repeat(BLOCK, 1)


def run_official_scorer(root: Path, void_competes: bool) -> dict[str, Any]:
    """Return the official scorer's results for the label files that segkd writes."""
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official

    if not hasattr(np, "in1d"):  # the scorer calls in1d, which NumPy 2.4 removed
        np.in1d = np.isin  # type: ignore[attr-defined]  # noqa: NPY201
    predicted = root / f"predicted_{void_competes}"
    dataset = Cityscapes(root, "val")
    compute_confusion_matrices(
        RedChannelModel(), dataset, count_void=void_competes, callbacks=[SubmissionWriter(predicted, dataset)]
    )
    labels = sorted((root / "gtFine/val").glob("*/*_labelIds.png"))
    files = [predicted / label.name.replace("_gtFine", "") for label in labels]
    official.args.quiet, official.args.JSONOutput = True, False
    results = official.evaluateImgLists([str(f) for f in files], [str(f) for f in labels], official.args)
    kinds = ("classScores", "classInstScores", "categoryScores", "categoryInstScores")
    scores = {kind: {name: v for name, v in results[kind].items() if v == v} for kind in kinds}
    return {**scores, **{key: value for key, value in results.items() if key.startswith("averageScore")}}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_random_cityscapes(Path(folder))
        scores = {str(void): run_official_scorer(Path(folder), void) for void in (False, True)}
    OFFICIAL_SCORES.write_text(json.dumps(scores, indent=1) + "\n")
    sys.exit(0)
