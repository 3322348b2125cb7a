"""Painting of one synthetic street scene."""

from __future__ import annotations

import cv2
import numpy as np

from segkd.data.base import Sample
from segkd.data.image_io import Array, Color
from segkd.types import IGNORE_INDEX

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)

_BLUE, _WARM = (-18, 0, 18), (15, 0, -12)  # tints of light on a material's own color


class StreetScene:
    """One scene, painted from back to front on image and label at once.

    Args:
        size: Height and width.
        seed: Seed of the scene's world; see `Streets`.
        number: Number of the scene.
    """

    def __init__(self, size: tuple[int, int], seed: int, number: int) -> None:
        self.height, self.width = size
        self.rng = np.random.default_rng([seed, number])
        self.image = np.zeros((*size, 3), np.uint8)
        self.label = np.full(size, SKY, np.uint8)
        self.horizon = int(self.height * self.rng.uniform(0.36, 0.52))
        self.vanishing = int(self.width * self.rng.uniform(0.3, 0.7))
        self._paint()

    def to_sample(self) -> Sample:
        """Return the scene as a camera records it, with its label; call this once, since it uses random numbers."""
        return Sample(self._apply_camera_effects(), self.label)

    def _paint(self) -> None:
        self._paint_sky()
        self._paint_skyline()
        self._paint_ground()
        for _ in range(self.rng.integers(1, 5)):
            self._paint_tree()
        if self.rng.random() < 0.8:
            self._paint_fence()
        objects = [self._paint_car] * self.rng.integers(1, 4) + [self._paint_pedestrian] * self.rng.integers(1, 5)
        objects += [self._paint_bicyclist] * self.rng.integers(1, 4) + [self._paint_pole] * self.rng.integers(1, 5)
        depths = np.sort(self.rng.uniform(0.2, 1.0, len(objects)))
        self.rng.shuffle(objects)
        for paint_object, depth in zip(objects, depths, strict=True):
            paint_object(float(depth))
        if self.rng.random() < 0.4:
            self._paint_unlabeled_blob()

    def _paint_sky(self) -> None:
        top, bottom = self._mix(140, 225, 20, _BLUE), self._mix(170, 235, 15, _BLUE)
        mix = np.linspace(0, 1, self.height)[:, None, None]
        self.image[:] = (np.array(top) * (1 - mix) + np.array(bottom) * mix).astype(np.uint8)
        for _ in range(self.rng.integers(0, 4)):
            self._fill_ellipse(
                SKY,
                self._pick(0, self.width),
                self._pick(0, self.horizon),
                self._pick(12, 40),
                self._pick(3, 9),
                self._mix(200, 250, 8),
            )

    def _paint_skyline(self) -> None:
        x = -5
        while x < self.width:
            width, height = self._pick(16, 52), self._pick(10, self.horizon + 8)
            if self.rng.random() < 0.85:
                self._paint_building(x, self.horizon - height, width, height + 6)
            x += width

    def _paint_building(self, x: int, y: int, width: int, height: int) -> None:
        wall = self._mix(60, 200, 25, _WARM)
        self._fill_rectangle(BUILDING, x, y, width, height, wall)
        step, pane = self._pick(6, 11), self._mix(30, 240, 30)
        for wy in range(y + 3, y + height - 4, step):
            for wx in range(x + 3, x + width - 3, step):
                if self.rng.random() < 0.85:
                    self._fill_rectangle(BUILDING, wx, wy, step // 2, step // 2, pane)

    def _paint_ground(self) -> None:
        bottom = self.height
        half = self.width * self.rng.uniform(0.3, 0.6)
        left, right = int(self.vanishing - half), int(self.vanishing + half)
        kerb = int(self.width * self.rng.uniform(0.12, 0.4))
        self._fill_polygon(
            PAVEMENT,
            [(0, self.horizon), (self.width, self.horizon), (self.width, bottom), (0, bottom)],
            self._mix(110, 185, 10, _WARM),
        )
        slabs = self._mix(90, 170, 10)
        for i in range(self.rng.integers(3, 8)):
            y = int(self.horizon + (bottom - self.horizon) * (i / 8) ** 1.6)
            cv2.line(self.image, (0, y), (self.width, y), slabs, 1)
        self._fill_polygon(
            ROAD,
            [
                (self.vanishing - 3, self.horizon),
                (self.vanishing + 3, self.horizon),
                (right + kerb // 3, bottom),
                (left - kerb // 3, bottom),
            ],
            self._mix(60, 125, 8, _BLUE),
        )
        for share in (0.33, 0.66):
            x = int(left + (right - left) * share)
            if self.rng.random() < 0.7:
                cv2.line(self.image, (self.vanishing, self.horizon + 4), (x, bottom), self._mix(170, 240, 10), 1)
        if self.rng.random() < 0.6:
            self._paint_shadow()

    def _paint_shadow(self) -> None:
        corners = np.array([[self._pick(0, self.width), self._pick(self.horizon, self.height)] for _ in range(4)])
        mask = np.zeros(self.label.shape, np.uint8)
        cv2.fillConvexPoly(mask, cv2.convexHull(corners), 1)
        self.image[mask == 1] = (self.image[mask == 1] * self.rng.uniform(0.45, 0.75)).astype(np.uint8)

    def _paint_tree(self) -> None:
        x, base = self._pick(0, self.width), self.horizon + self._pick(0, 12)
        height, width = self._pick(18, 60), self._pick(8, 26)
        leaf = self._mix_leaf_color()
        self._fill_rectangle(
            TREE, x - 1, base - height // 2, self._pick(2, 5), height // 2 + self._pick(0, 8), self._mix(40, 110, 15)
        )
        for _ in range(self.rng.integers(4, 12)):
            dx, dy = self._pick(-width, width), self._pick(-height // 3, height // 4)
            shade = self.rng.uniform(0.6, 1.3)
            red, green, blue = (int(np.clip(c * shade, 0, 255)) for c in leaf)
            rx, ry = self._pick(4, 13), self._pick(4, 12)
            self._fill_ellipse(TREE, x + dx, base - height + dy + 8, rx, ry, (red, green, blue))

    def _paint_fence(self) -> None:
        y, x = self.horizon + self._pick(2, 10), self._pick(0, self.width // 2)
        length, height, color = self._pick(60, 150), self._pick(12, 24), self._mix(60, 190, 30)
        for bar in range(x, x + length, self._pick(3, 6)):
            self._fill_rectangle(FENCE, bar, y - height // 2, 2, height, color)
        for rail in (y - height // 2, y + height // 3):
            self._fill_rectangle(FENCE, x, rail, length, 2, color)
        # Annotators label a fence without the gaps between its bars.
        self.label[max(0, y - height // 2) : y + height // 2, x : x + length] = FENCE

    def _paint_car(self, depth: float) -> None:
        x, y, scale = self._sample_position(depth, 0.5)
        length, height, paint = int(44 * scale) + 4, int(15 * scale) + 2, self._mix(20, 245, 80)
        self._fill_ellipse(CAR, x, y - height, length // 3, int(height * 0.8), self._mix(30, 150, 20))
        self._fill_rectangle(CAR, x - length // 2, y - height, length, height, paint)
        for wheel in (x - length // 3, x + length // 3):
            self._fill_ellipse(CAR, wheel, y, max(1, int(4 * scale)), max(1, int(4 * scale)), self._mix(15, 60, 5))

    def _paint_pedestrian(self, depth: float) -> None:
        self._paint_person(*self._sample_position(depth, 0.9), PEDESTRIAN, raised=0)

    def _paint_person(self, x: int, y: int, scale: float, label: int, raised: int) -> None:
        height, width = int(38 * scale) + 8, int(12 * scale) + 4
        y -= raised
        self._fill_rectangle(label, x - width // 2, y - height, width, height * 3 // 5, self._mix(20, 235, 70))
        self._fill_rectangle(
            label, x - width // 3, y - height * 2 // 5, max(1, width * 2 // 3), height * 2 // 5, self._mix(15, 140, 30)
        )
        self._fill_ellipse(
            label,
            x,
            y - height - int(2 * scale),
            max(1, int(3.5 * scale)),
            max(1, int(4.5 * scale)),
            self._mix(90, 220, 30),
        )

    def _paint_bicyclist(self, depth: float) -> None:
        x, y, scale = self._sample_position(depth, 0.7)
        wheel, frame = max(4, int(12 * scale)), self._mix(15, 90, 15)
        for wx in (x - wheel, x + wheel):
            cv2.circle(self.image, (wx, y - wheel), wheel, frame, max(2, int(2.5 * scale)))
            cv2.circle(self.label, (wx, y - wheel), wheel, BICYCLIST, -1)
        self._paint_person(x, y, scale * 0.8, BICYCLIST, raised=wheel)

    def _paint_pole(self, depth: float) -> None:
        x, y, scale = self._sample_position(depth, 1.0)
        height, width, color = int(70 * scale) + 8, max(3, int(6 * scale)), self._mix(40, 110, 10)
        self._fill_rectangle(POLE, x, y - height, width, height, color)
        if self.rng.random() < 0.6:
            side = int(18 * scale) + 6
            if self.rng.random() < 0.5:
                self._fill_ellipse(SIGN, x, y - height, side // 2 + 1, side // 2 + 1, self._mix(60, 250, 90))
            else:
                self._fill_rectangle(SIGN, x - side // 2, y - height, side, side * 2 // 3 + 1, self._mix(60, 250, 90))

    def _paint_unlabeled_blob(self) -> None:
        x, y = self._pick(0, self.width), self._pick(self.horizon, self.height)
        self._fill_ellipse(IGNORE_INDEX, x, y, self._pick(5, 18), self._pick(3, 10), self._mix(20, 220, 60))

    def _apply_camera_effects(self) -> Array:
        scene = self.image.astype(np.float32)
        grain = self.rng.normal(0, 1, (self.height // 2, self.width // 2, 1)).astype(np.float32)
        scene += cv2.resize(grain, (self.width, self.height))[..., None] * self.rng.uniform(3, 9)
        fog = self.rng.uniform(0, 0.35) * np.linspace(1, 0.1, self.height, dtype=np.float32)[:, None, None]
        scene = scene * (1 - fog) + 190 * fog
        scene = 255 * np.clip(scene / 255, 0, 1) ** self.rng.uniform(0.75, 1.35)
        scene *= self.rng.uniform(0.85, 1.12, 3).astype(np.float32)
        scene = cv2.GaussianBlur(scene, (3, 3), float(self.rng.uniform(0.3, 0.9)))
        scene += self.rng.normal(0, self.rng.uniform(2, 7), scene.shape).astype(np.float32)
        recorded: Array = np.clip(scene, 0, 255).astype(np.uint8)
        return recorded

    def _sample_position(self, depth: float, spread: float) -> tuple[int, int, float]:
        """Sample x, y and scale of an object at a depth of 0 (far) to 1 (near)."""
        y = int(self.horizon + (self.height - self.horizon) * depth**1.3)
        reach = self.width * spread * (0.25 + 0.75 * depth)
        return int(self.vanishing + self.rng.uniform(-reach, reach)), y, 0.25 + 0.95 * depth

    def _pick(self, low: int, high: int) -> int:
        """Sample an integer; `high` is excluded."""
        return int(self.rng.integers(low, max(high, low + 1)))

    def _mix(self, low: int, high: int, spread: int, tint: tuple[int, int, int] = (0, 0, 0)) -> Color:
        """Sample a color: a gray value in low..high, then each channel up to `spread` away from it."""
        gray = self.rng.uniform(low, high)
        mixed = gray + self.rng.uniform(-spread, spread, 3) + np.array(tint)
        red, green, blue = np.clip(mixed, 0, 255).astype(int).tolist()
        return red, green, blue

    def _mix_leaf_color(self) -> Color:
        green = self.rng.uniform(50, 150)
        red, blue = green * self.rng.uniform(0.55, 1.15), green * self.rng.uniform(0.3, 0.9)
        return int(red), int(green), int(blue)

    def _fill_rectangle(self, label: int, x: int, y: int, width: int, height: int, color: Color) -> None:
        corner = (x + max(width, 1) - 1, y + max(height, 1) - 1)
        cv2.rectangle(self.image, (x, y), corner, color, -1)
        cv2.rectangle(self.label, (x, y), corner, label, -1)

    def _fill_ellipse(self, label: int, x: int, y: int, rx: int, ry: int, color: Color) -> None:
        cv2.ellipse(self.image, (x, y), (rx, ry), 0, 0, 360, color, -1)
        cv2.ellipse(self.label, (x, y), (rx, ry), 0, 0, 360, label, -1)

    def _fill_polygon(self, label: int, corners: list[tuple[int, int]], color: Color) -> None:
        points = np.array(corners, np.int32)
        cv2.fillPoly(self.image, [points], color)
        cv2.fillPoly(self.label, [points], label)
