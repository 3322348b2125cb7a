"""Streets: drawn scenes with CamVid's 11 classes, made in memory, for the demo, the tests and first steps.

Scene (seed, index) is always the same picture. Colours overlap between classes, light and weather vary, objects shrink
with distance and hide each other, so that a small network must use shape and context, and does not reach full marks.
The figures on it say something about the code, nothing about streets.
"""

from __future__ import annotations

import cv2
import numpy as np

from segkd.data.base import Sample, SegmentationDataset
from segkd.data.camvid import CLASSES, COLORS
from segkd.data.image_io import Array
from segkd.types import IGNORE_INDEX

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)

_FIRST_SCENE = {"train": 0, "val": 100_000, "test": 200_000}  # apart, so that no scene is in two splits

Color = tuple[int, int, int]

_BLUE, _WARM = (-18, 0, 18), (15, 0, -12)  # what the light leaves of the materials' own colours


class Streets(SegmentationDataset):
    """Generated street scenes of 128×192.

    Args:
        split: train, val or test; different scenes.
        images: how many scenes the training split has; the other splits have a quarter of it, 64 at least.
        scene_seed: another seed is another world of scenes.
    """

    classes = CLASSES
    colors = COLORS
    ids = {**{i: i for i in range(len(CLASSES))}, IGNORE_INDEX: IGNORE_INDEX}
    mean = (122.0, 125.0, 125.0)
    std = (51.5, 48.5, 50.5)
    splits = ("train", "val", "test")
    size = (128, 192)

    def __init__(self, split: str, images: int = 256, scene_seed: int = 0) -> None:
        super().__init__(split)
        self.images = images if split == "train" else max(64, images // 4)
        self.scene_seed = scene_seed
        self._drawn: dict[int, Sample] = {}

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.images:
            raise IndexError(index)
        if index not in self._drawn:
            self._drawn[index] = _Scene(self.size, self.scene_seed, _FIRST_SCENE[self.split] + index).sample()
        return self._drawn[index]

    def name(self, index: int) -> str:
        return f"{self.split}_{index:05d}"


class _Scene:
    """One picture, painted from back to front on an image and a label at once."""

    def __init__(self, size: tuple[int, int], seed: int, number: int) -> None:
        self.height, self.width = size
        self.rng = np.random.default_rng([seed, number])
        self.image = np.zeros((*size, 3), np.uint8)
        self.label = np.full(size, SKY, np.uint8)
        self.horizon = int(self.height * self.rng.uniform(0.36, 0.52))
        self.vanishing = int(self.width * self.rng.uniform(0.3, 0.7))
        self._paint()

    def sample(self) -> Sample:
        return Sample(self._seen_through_a_camera(), self.label)

    # The parts of a scene, from back to front

    def _paint(self) -> None:
        self._sky()
        self._skyline()
        self._ground()
        for _ in range(self.rng.integers(1, 5)):
            self._tree()
        if self.rng.random() < 0.8:
            self._fence()
        things = [self._car] * self.rng.integers(1, 4) + [self._pedestrian] * self.rng.integers(1, 5)
        things += [self._bicyclist] * self.rng.integers(1, 4) + [self._pole] * self.rng.integers(1, 5)
        depths = np.sort(self.rng.uniform(0.2, 1.0, len(things)))
        self.rng.shuffle(things)
        for thing, depth in zip(things, depths, strict=True):
            thing(float(depth))
        if self.rng.random() < 0.4:
            self._unlabelled()

    def _sky(self) -> None:
        top, bottom = self._tone(140, 225, 20, _BLUE), self._tone(170, 235, 15, _BLUE)
        mix = np.linspace(0, 1, self.height)[:, None, None]
        self.image[:] = (np.array(top) * (1 - mix) + np.array(bottom) * mix).astype(np.uint8)
        for _ in range(self.rng.integers(0, 4)):
            self._ellipse(
                SKY,
                self._at(0, self.width),
                self._at(0, self.horizon),
                self._at(12, 40),
                self._at(3, 9),
                self._tone(200, 250, 8),
            )

    def _skyline(self) -> None:
        x = -5
        while x < self.width:
            wide, high = self._at(16, 52), self._at(10, self.horizon + 8)
            if self.rng.random() < 0.85:
                self._building(x, self.horizon - high, wide, high + 6)
            x += wide

    def _building(self, x: int, y: int, wide: int, high: int) -> None:
        wall = self._tone(60, 200, 25, _WARM)
        self._rectangle(BUILDING, x, y, wide, high, wall)
        step, pane = self._at(6, 11), self._tone(30, 240, 30)
        for wy in range(y + 3, y + high - 4, step):
            for wx in range(x + 3, x + wide - 3, step):
                if self.rng.random() < 0.85:
                    self._rectangle(BUILDING, wx, wy, step // 2, step // 2, pane)

    def _ground(self) -> None:
        bottom = self.height
        half = self.width * self.rng.uniform(0.3, 0.6)
        left, right = int(self.vanishing - half), int(self.vanishing + half)
        kerb = int(self.width * self.rng.uniform(0.12, 0.4))
        self._polygon(
            PAVEMENT,
            [(0, self.horizon), (self.width, self.horizon), (self.width, bottom), (0, bottom)],
            self._tone(110, 185, 10, _WARM),
        )
        slabs = self._tone(90, 170, 10)
        for i in range(self.rng.integers(3, 8)):
            y = int(self.horizon + (bottom - self.horizon) * (i / 8) ** 1.6)
            cv2.line(self.image, (0, y), (self.width, y), slabs, 1)
        self._polygon(
            ROAD,
            [
                (self.vanishing - 3, self.horizon),
                (self.vanishing + 3, self.horizon),
                (right + kerb // 3, bottom),
                (left - kerb // 3, bottom),
            ],
            self._tone(60, 125, 8, _BLUE),
        )
        for share in (0.33, 0.66):
            x = int(left + (right - left) * share)
            if self.rng.random() < 0.7:
                cv2.line(self.image, (self.vanishing, self.horizon + 4), (x, bottom), self._tone(170, 240, 10), 1)
        if self.rng.random() < 0.6:
            self._shadow()

    def _shadow(self) -> None:
        corners = np.array([[self._at(0, self.width), self._at(self.horizon, self.height)] for _ in range(4)])
        mask = np.zeros(self.label.shape, np.uint8)
        cv2.fillConvexPoly(mask, cv2.convexHull(corners), 1)
        self.image[mask == 1] = (self.image[mask == 1] * self.rng.uniform(0.45, 0.75)).astype(np.uint8)

    def _tree(self) -> None:
        x, base = self._at(0, self.width), self.horizon + self._at(0, 12)
        high, wide = self._at(18, 60), self._at(8, 26)
        leaf = self._leafy()
        self._rectangle(
            TREE, x - 1, base - high // 2, self._at(2, 5), high // 2 + self._at(0, 8), self._tone(40, 110, 15)
        )
        for _ in range(self.rng.integers(4, 12)):
            dx, dy = self._at(-wide, wide), self._at(-high // 3, high // 4)
            shade = self.rng.uniform(0.6, 1.3)
            tone = tuple(int(np.clip(c * shade, 0, 255)) for c in leaf)
            self._ellipse(TREE, x + dx, base - high + dy + 8, self._at(4, 13), self._at(4, 12), tone)  # type: ignore[arg-type]

    def _fence(self) -> None:
        y, x = self.horizon + self._at(2, 10), self._at(0, self.width // 2)
        long, high, tone = self._at(60, 150), self._at(12, 24), self._tone(60, 190, 30)
        for bar in range(x, x + long, self._at(3, 6)):
            self._rectangle(FENCE, bar, y - high // 2, 2, high, tone)
        for rail in (y - high // 2, y + high // 3):
            self._rectangle(FENCE, x, rail, long, 2, tone)
        # Annotators outline a fence as a whole.
        self.label[max(0, y - high // 2) : y + high // 2, x : x + long] = FENCE

    def _car(self, depth: float) -> None:
        x, y, s = self._stand(depth, 0.5)
        long, high, paint = int(44 * s) + 4, int(15 * s) + 2, self._tone(20, 245, 80)
        self._ellipse(CAR, x, y - high, long // 3, int(high * 0.8), self._tone(30, 150, 20))
        self._rectangle(CAR, x - long // 2, y - high, long, high, paint)
        for wheel in (x - long // 3, x + long // 3):
            self._ellipse(CAR, wheel, y, max(1, int(4 * s)), max(1, int(4 * s)), self._tone(15, 60, 5))

    def _pedestrian(self, depth: float, label: int = PEDESTRIAN, raised: int = 0) -> None:
        x, y, s = self._stand(depth, 0.9)
        self._person(x, y, s, label, raised)

    def _person(self, x: int, y: int, s: float, label: int, raised: int) -> None:
        high, wide = int(38 * s) + 8, int(12 * s) + 4
        y -= raised
        self._rectangle(label, x - wide // 2, y - high, wide, high * 3 // 5, self._tone(20, 235, 70))
        self._rectangle(
            label, x - wide // 3, y - high * 2 // 5, max(1, wide * 2 // 3), high * 2 // 5, self._tone(15, 140, 30)
        )
        self._ellipse(
            label, x, y - high - int(2 * s), max(1, int(3.5 * s)), max(1, int(4.5 * s)), self._tone(90, 220, 30)
        )

    def _bicyclist(self, depth: float) -> None:
        x, y, s = self._stand(depth, 0.7)
        wheel, frame = max(4, int(12 * s)), self._tone(15, 90, 15)
        for wx in (x - wheel, x + wheel):
            cv2.circle(self.image, (wx, y - wheel), wheel, frame, max(2, int(2.5 * s)))
            cv2.circle(self.label, (wx, y - wheel), wheel, BICYCLIST, -1)
        self._person(x, y, s * 0.8, BICYCLIST, raised=wheel)

    def _pole(self, depth: float) -> None:
        x, y, s = self._stand(depth, 1.0)
        high, wide, tone = int(70 * s) + 8, max(3, int(6 * s)), self._tone(40, 110, 10)
        self._rectangle(POLE, x, y - high, wide, high, tone)
        if self.rng.random() < 0.6:
            side = int(18 * s) + 6
            if self.rng.random() < 0.5:
                self._ellipse(SIGN, x, y - high, side // 2 + 1, side // 2 + 1, self._tone(60, 250, 90))
            else:
                self._rectangle(SIGN, x - side // 2, y - high, side, side * 2 // 3 + 1, self._tone(60, 250, 90))

    def _unlabelled(self) -> None:
        x, y = self._at(0, self.width), self._at(self.horizon, self.height)
        self._ellipse(IGNORE_INDEX, x, y, self._at(5, 18), self._at(3, 10), self._tone(20, 220, 60))

    # Light and lens

    def _seen_through_a_camera(self) -> Array:
        scene = self.image.astype(np.float32)
        grain = self.rng.normal(0, 1, (self.height // 2, self.width // 2, 1)).astype(np.float32)
        scene += cv2.resize(grain, (self.width, self.height))[..., None] * self.rng.uniform(3, 9)
        fog = self.rng.uniform(0, 0.35) * np.linspace(1, 0.1, self.height, dtype=np.float32)[:, None, None]
        scene = scene * (1 - fog) + 190 * fog
        scene = 255 * np.clip(scene / 255, 0, 1) ** self.rng.uniform(0.75, 1.35)
        scene *= self.rng.uniform(0.85, 1.12, 3).astype(np.float32)
        scene = cv2.GaussianBlur(scene, (3, 3), float(self.rng.uniform(0.3, 0.9)))
        scene += self.rng.normal(0, self.rng.uniform(2, 7), scene.shape).astype(np.float32)
        exposed: Array = np.clip(scene, 0, 255).astype(np.uint8)
        return exposed

    # Brushes

    def _stand(self, depth: float, spread: float) -> tuple[int, int, float]:
        """Where something at this depth (0 far, 1 near) stands, and its scale."""
        y = int(self.horizon + (self.height - self.horizon) * depth**1.3)
        reach = self.width * spread * (0.25 + 0.75 * depth)
        return int(self.vanishing + self.rng.uniform(-reach, reach)), y, 0.25 + 0.95 * depth

    def _at(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, max(high, low + 1)))

    def _tone(self, low: int, high: int, spread: int, tint: tuple[int, int, int] = (0, 0, 0)) -> Color:
        grey = self.rng.uniform(low, high)
        mixed = grey + self.rng.uniform(-spread, spread, 3) + np.array(tint)
        red, green, blue = np.clip(mixed, 0, 255).astype(int).tolist()
        return red, green, blue

    def _leafy(self) -> Color:
        green = self.rng.uniform(50, 150)
        red, blue = green * self.rng.uniform(0.55, 1.15), green * self.rng.uniform(0.3, 0.9)
        return int(red), int(green), int(blue)

    def _rectangle(self, label: int, x: int, y: int, wide: int, high: int, tone: Color) -> None:
        corner = (x + max(wide, 1) - 1, y + max(high, 1) - 1)
        cv2.rectangle(self.image, (x, y), corner, tone, -1)
        cv2.rectangle(self.label, (x, y), corner, label, -1)

    def _ellipse(self, label: int, x: int, y: int, rx: int, ry: int, tone: Color) -> None:
        cv2.ellipse(self.image, (x, y), (rx, ry), 0, 0, 360, tone, -1)
        cv2.ellipse(self.label, (x, y), (rx, ry), 0, 0, 360, label, -1)

    def _polygon(self, label: int, corners: list[tuple[int, int]], tone: Color) -> None:
        points = np.array(corners, np.int32)
        cv2.fillPoly(self.image, [points], tone)
        cv2.fillPoly(self.label, [points], label)
