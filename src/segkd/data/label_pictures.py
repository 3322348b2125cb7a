"""Pictures of labels drawn over their images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segkd.data.base import FileDataset
from segkd.data.drawing import blend, colorize, draw_image_grid
from segkd.errors import UserError
from segkd.utils.files import atomic_write

_OPACITY = 0.5
_VOID_COLOR = (255, 255, 255)  # as `colorize` paints it


def draw_label_pictures(dataset: FileDataset, indices: Sequence[int], count: int, folder: Path) -> None:
    """Write a PNG of the image, the label over the image, and the label, with a legend, for each sample that can be read.

    Args:
        dataset: The split.
        indices: Samples to choose from, at even distances.
        count: Number of samples.
        folder: An existing folder.

    Raises:
        UserError: A picture cannot be written.
    """
    legend = dict(zip(dataset.classes, dataset.colors, strict=True))
    legend.setdefault("ignored", _VOID_COLOR)
    chosen = np.unique(np.linspace(0, len(indices) - 1, min(count, len(indices))).astype(int)).tolist()
    for index in [indices[i] for i in chosen]:
        try:
            image, label = dataset[index]
        except UserError:  # its palette is not that of the other labels
            continue
        colors = colorize(label, dataset.colors)
        columns = {"image": [image], "label over image": [blend(image, colors, _OPACITY)], "label": [colors]}
        file = folder / f"{dataset.get_name(index).replace('/', '_')}.png"
        with atomic_write(file) as partial_file:
            draw_image_grid(columns, legend, scale=1).save(partial_file, "PNG")
