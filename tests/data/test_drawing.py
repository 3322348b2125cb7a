"""Drawing of predictions as images."""

from __future__ import annotations

import numpy as np

from segkd.data.drawing import colorize, draw_image_grid


def test_colorize_paints_unknown_classes_white() -> None:
    labels = np.array([[0, 1], [255, 1]], np.uint8)
    image = colorize(labels, ((10, 20, 30), (200, 100, 0)))
    assert image.tolist() == [[[10, 20, 30], [200, 100, 0]], [[255, 255, 255], [200, 100, 0]]]


def test_image_grid_puts_each_image_into_its_cell() -> None:
    tones = ((50, 0, 90), (0, 150, 30))
    first, second = (np.full((8, 8, 3), tone, np.uint8) for tone in tones)
    sheet = np.array(draw_image_grid({"a": [first, second], "b": [second, first]}, {"x": (10, 20, 30)}, scale=4))
    left, right = sheet[:, : sheet.shape[1] // 2], sheet[:, sheet.shape[1] // 2 :]
    for side, order in ((left, tones), (right, tones[::-1])):
        masks = [(side == tone).all(2) for tone in order]
        assert [int(mask.sum()) for mask in masks] == [32 * 32, 32 * 32]
        assert masks[0].nonzero()[0].max() < masks[1].nonzero()[0].min()
