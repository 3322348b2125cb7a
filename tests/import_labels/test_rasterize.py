"""Outlines and masks as pixels: hand-drawn cases, pycocotools' own masks, and what is cut off or left out."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco

from segkd.data.image_io import Array
from segkd.import_labels.annotations import IGNORED, Bitmap, Notes, Outline, Polygon, Region
from segkd.import_labels.rasterize import Drawing, draw_regions
from tests.helpers.exports import paint

DRAWING = Drawing({"a": 1, "b": 2}, unlabeled=0)
VALUES = {".": 0, "a": 1, "b": 2, "-": IGNORED}


def make_polygon(*rings: list[float], outline: Outline = "edges", is_relative: bool = False) -> Polygon:
    points = tuple(np.array(ring, np.float64).reshape(-1, 2) for ring in rings)
    return Polygon(points, is_relative, outline)


def draw(
    *regions: Region, size: tuple[int, int] = (4, 6), drawing: Drawing = DRAWING, notes: Notes | None = None
) -> Array:
    return draw_regions(regions, size, drawing, notes or Notes(), "x.jpg")


SQUARE = make_polygon([1, 1, 4, 1, 4, 3, 1, 3])


@pytest.mark.parametrize(
    ("parts", "picture"),
    [
        ([SQUARE], "...... .aaa.. .aaa.. ......"),
        (
            [make_polygon([1.2, 1.2, 3.8, 1.2, 3.8, 2.8, 1.2, 2.8])],
            "...... .aaa.. .aaa.. ......",
        ),  # holds the same centers
        ([make_polygon([1.8, 1, 4, 1, 4, 3, 1.8, 3])], "...... ..aa.. ..aa.. ......"),
        ([make_polygon([0, 0, 0, 4, 4, 4])], "a..... aa.... aaa... aaaa.."),
        ([make_polygon([0, 0, 6, 0, 6, 4, 0, 4], [2, 1, 4, 1, 4, 3, 2, 3])], "aaaaaa aa..aa aa..aa aaaaaa"),
        (
            [make_polygon([0, 0, 2, 0, 2, 2, 0, 2]), make_polygon([1, 1, 3, 1, 3, 3, 1, 3])],
            "aa.... aaa... .aa... ......",
        ),
        ([make_polygon([0, 0, 4, 0, 4, 2, 0, 2], [2, 0, 6, 0, 6, 2, 2, 2])], "aa..aa aa..aa ...... ......"),
        ([make_polygon([1, 1, 3, 1, 3, 2, 1, 2], outline="centers")], "...... .aaa.. .aaa.. ......"),
        ([make_polygon([2, 2], outline="centers")], "...... ...... ..a... ......"),
        ([make_polygon([0.5, 0.25, 1, 0.25, 1, 1, 0.5, 1], is_relative=True)], "...... ...aaa ...aaa ...aaa"),
        ([Bitmap(lambda: np.array([[1, 0], [1, 1]], bool), top=1, left=3)], "...... ...a.. ...aa. ......"),
    ],
    ids=[
        "edges",
        "centers inside",
        "center outside",
        "diagonal",
        "hole",
        "parts",
        "overlapping rings",
        "indices",
        "point",
        "relative",
        "bitmap",
    ],
)
def test_pixels_of_a_region(parts: list[Polygon | Bitmap], picture: str) -> None:
    np.testing.assert_array_equal(draw(Region("a", tuple(parts))), paint(picture, VALUES))


@pytest.mark.parametrize("seed", range(20))
def test_polygons_are_those_of_pycocotools(seed: int) -> None:
    # Drawn within a window of the image; some leave it.
    generator = np.random.default_rng(seed)
    points = generator.uniform((-6, -6), (46, 36), (int(generator.integers(3, 9)), 2))
    if seed % 2:
        points = np.rint(points)
    expected = coco.decode(coco.frPyObjects([points.ravel().tolist()], 30, 40))[..., 0]
    drawn = draw(Region("a", (Polygon((points,)),)), size=(30, 40))
    np.testing.assert_array_equal(drawn, expected)


def test_neighbors_that_share_an_edge_neither_overlap_nor_gap() -> None:
    left, right = ([0, 0, 7.3, 0, 2.9, 9, 0, 9], [7.3, 0, 12, 0, 12, 9, 2.9, 9])
    masks = [draw(Region("a", (make_polygon(ring),)), size=(9, 12)) for ring in (left, right)]
    np.testing.assert_array_equal(masks[0] + masks[1], np.ones((9, 12)))


@pytest.mark.parametrize("seed", range(5))
def test_contours_of_opencv_come_back(seed: int) -> None:
    noise = cv2.GaussianBlur(np.random.default_rng(seed).random((40, 50)), (0, 0), 2)
    mask = (noise > np.median(noise)).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    filled = np.zeros_like(mask)
    cv2.drawContours(filled, contours, -1, 1, cv2.FILLED)
    regions = [
        Region("a", (Polygon((contour.reshape(-1, 2).astype(float),), outline="centers"),)) for contour in contours
    ]
    np.testing.assert_array_equal(draw(*regions, size=(40, 50)), filled)
    as_edges = [Region("a", tuple(part._replace(outline="edges") for part in region.parts)) for region in regions]  # type: ignore[union-attr,call-arg]
    assert (draw(*as_edges, size=(40, 50)) != filled).mean() > 0.02  # so the choice matters


def test_smaller_regions_lie_on_larger_ones() -> None:
    small, large = Region("b", (make_polygon([2, 1, 4, 1, 4, 2, 2, 2]),)), Region("a", (SQUARE,))
    expected = paint("...... .abb.. .aaa.. ......", VALUES)
    np.testing.assert_array_equal(draw(small, large), expected)
    np.testing.assert_array_equal(draw(large, small), expected)


def test_the_order_of_an_export_is_kept() -> None:
    small, large = Region("b", (make_polygon([2, 1, 4, 1, 4, 2, 2, 2]),)), Region("a", (SQUARE,))
    ordered = DRAWING._replace(is_ordered=True)
    np.testing.assert_array_equal(draw(small, large, drawing=ordered), draw(large))
    np.testing.assert_array_equal(draw(large, small, drawing=ordered), paint("...... .abb.. .aaa.. ......", VALUES))


def test_unlabeled_ignored_and_other_classes() -> None:
    regions = (
        Region(None, (SQUARE,)),
        Region("b", (make_polygon([2, 1, 3, 1, 3, 2, 2, 2]),)),
        Region("other", (SQUARE,)),
    )
    drawn = draw(*regions, drawing=Drawing({"b": 2}, unlabeled=7))
    np.testing.assert_array_equal(drawn, paint("777777 7-b-77 7---77 777777", {**VALUES, "7": 7}))


@pytest.mark.parametrize("far", [40.0, 1e5, 1e12])
def test_an_outline_that_reaches_far_out_is_cut_off(far: float) -> None:
    notes = Notes()
    drawn = draw(Region("a", (make_polygon([2, 2, far, 2, far, far, 2, far]),)), notes=notes)
    np.testing.assert_array_equal(drawn, paint("...... ...... ..aaaa ..aaaa", VALUES))
    assert notes.list_lines() == [
        "outlines leave their image by more than a pixel and are cut off: 1, the first is a in x.jpg"
    ]


def test_an_outline_around_the_image_fills_it() -> None:
    far = 1e7
    assert draw(Region("a", (make_polygon([-far, -far, far, -far, far, far, -far, far]),))).all()
    assert not draw(Region("a", (make_polygon([-far, -far, -8, -far, -8, -8, -far, -8]),))).any()


@pytest.mark.parametrize(
    ("part", "kinds"),
    [
        (make_polygon([1, 1, 4, 3]), ["outlines of fewer than three points are left out", "regions cover no pixel"]),
        (
            make_polygon([1, 1, 4, 1, 4, np.nan]),
            ["outlines with coordinates that are no numbers are left out", "regions cover no pixel"],
        ),
        (make_polygon([1.1, 1.1, 1.2, 1.1, 1.2, 1.2]), ["regions cover no pixel"]),
        (make_polygon([5, 1, 6.9, 1, 6.9, 2, 5, 2]), []),
        (Bitmap(lambda: np.ones((2, 2), bool), top=3, left=5), ["masks leave their image and are cut off"]),
        (Bitmap(lambda: np.ones((2, 2), bool), top=-1, left=-1), ["masks leave their image and are cut off"]),
        (
            Bitmap(lambda: np.ones((2, 2), bool), top=9, left=9),
            ["masks leave their image and are cut off", "regions cover no pixel"],
        ),
    ],
    ids=["two points", "NaN", "too small", "nearly inside", "mask", "mask before", "mask beside"],
)
def test_what_is_left_out_is_noted(part: Polygon | Bitmap, kinds: list[str]) -> None:
    notes = Notes()
    drawn = draw(Region("a", (part,)), notes=notes)
    assert [line.partition(":")[0] for line in notes.list_lines()] == kinds
    assert drawn.any() == ("regions cover no pixel" not in kinds)
