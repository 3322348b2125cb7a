"""Image corruptions, to measure robustness."""

from __future__ import annotations

from collections.abc import Callable

import albumentations as A

from segkd.data.transforms import Augmentation

SEVERITIES = 5

_CORRUPTIONS: dict[str, tuple[Callable[[float], A.BasicTransform], tuple[float, ...]]] = {
    "gaussian_noise": (lambda c: A.GaussNoise(std_range=(c, c), p=1), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "defocus_blur": (lambda c: A.Defocus(radius=(int(c), int(c)), alias_blur=(0.1, 0.1), p=1), (3, 4, 6, 8, 10)),
    "motion_blur": (lambda c: A.MotionBlur(blur_limit=(int(c), int(c)), p=1), (7, 11, 15, 19, 25)),
    "brightness": (lambda c: _make_jitter(brightness=1 + c), (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (lambda c: _make_jitter(contrast=c), (0.4, 0.3, 0.2, 0.1, 0.05)),
    "fog": (lambda c: A.RandomFog(fog_coef_range=(c, c), alpha_coef=0.1, p=1), (0.2, 0.4, 0.6, 0.8, 1.0)),
    "jpeg": (lambda c: A.ImageCompression(quality_range=(int(c), int(c)), p=1), (25, 18, 15, 10, 7)),
}
"""Transform and strengths for severity 1 to 5. Noise, defocus radius, contrast, brightness and JPEG quality are those of
ImageNet-C (Hendrycks & Dietterich, ICLR 2019, arXiv 1903.12261); motion blur and fog have their own scales."""

CORRUPTIONS = tuple(_CORRUPTIONS)


class Corruption(Augmentation):
    """One corruption at one severity. Its randomness depends on the sample's seed alone; labels are unchanged.

    Args:
        name: One of `CORRUPTIONS`.
        severity: 1 to 5.
    """

    def __init__(self, name: str, severity: int) -> None:
        make_transform, strengths = _CORRUPTIONS[name]
        transform = make_transform(strengths[severity - 1])
        self.pipeline, self.seeded_transforms = A.Compose([transform], strict=True), [transform]


def _make_jitter(brightness: float = 1, contrast: float = 1) -> A.BasicTransform:
    return A.ColorJitter((brightness, brightness), (contrast, contrast), (1, 1), (0, 0), p=1)
