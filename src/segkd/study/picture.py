"""Draw a picture of a study: images, ground truth, and one column with the predictions of each method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segkd.data.base import SegmentationDataset
from segkd.data.drawing import colorize, draw_image_grid
from segkd.predict.labeling import Labeling
from segkd.predict.pipeline import make_batches, predict_frames
from segkd.predict.sources import Frame
from segkd.runs.load import load_chosen_network
from segkd.study.plan import Job, is_finished
from segkd.utils.files import atomic_write, make_dir


def draw_picture(jobs: Sequence[Job], dataset: SegmentationDataset, count: int, file: Path) -> bool:
    """Draw the first images of a dataset, with the predictions of each method's first student.

    Nothing is drawn if no training has finished.

    Args:
        jobs: trainings of the study; those that have not finished are left out.
        dataset: the split to show.
        count: of images.
        file: the PNG to write.

    Returns:
        Whether there was something to draw.

    Raises:
        UserError: if the file cannot be written.
    """
    folders: dict[str, Path] = {}
    for job in jobs:
        if is_finished(job.directory):
            folders.setdefault(job.method, job.directory)
    if not folders:
        return False
    networks = {name: load_chosen_network(folder, None, None, dataset)[0] for name, folder in folders.items()}
    samples = [dataset[i] for i in range(min(count, len(dataset)))]
    frames = [Frame(dataset.get_name(i), sample.image) for i, sample in enumerate(samples)]
    batches = predict_frames(networks, make_batches(frames, len(frames)), Labeling(len(dataset.classes)))
    predictions = [prediction for batch in batches for prediction in batch]
    columns = {
        "image": [sample.image for sample in samples],
        "ground truth": [colorize(sample.label, dataset.colors) for sample in samples],
    }
    for name in networks:
        columns[name] = [colorize(prediction.labels[name], dataset.colors) for prediction in predictions]
    make_dir(file.parent, "picture")
    with atomic_write(file, "picture") as part:
        draw_image_grid(columns, dict(zip(dataset.classes, dataset.colors, strict=True))).save(part, "PNG")
    return True
