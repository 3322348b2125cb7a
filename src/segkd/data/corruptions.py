"""Damaged images, to see what a network stands."""

from __future__ import annotations

from collections.abc import Callable

import albumentations as A

from segkd.data.transforms import Augmentation

SEVERITIES = 5

_CORRUPTIONS: dict[str, tuple[Callable[[float], A.BasicTransform], tuple[float, ...]]] = {
    "gaussian_noise": (lambda c: A.GaussNoise(std_range=(c, c), p=1), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "defocus_blur": (lambda c: A.Defocus(radius=(int(c), int(c)), alias_blur=(0.1, 0.1), p=1), (3, 4, 6, 8, 10)),
    "motion_blur": (lambda c: A.MotionBlur(blur_limit=(int(c), int(c)), p=1), (7, 11, 15, 19, 25)),
    "brightness": (lambda c: _jitter(brightness=1 + c), (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (lambda c: _jitter(contrast=c), (0.4, 0.3, 0.2, 0.1, 0.05)),
    "fog": (lambda c: A.RandomFog(fog_coef_range=(c, c), alpha_coef=0.1, p=1), (0.2, 0.4, 0.6, 0.8, 1.0)),
    "jpeg": (lambda c: A.ImageCompression(quality_range=(int(c), int(c)), p=1), (25, 18, 15, 10, 7)),
}
"""How each is made, and its strength from severity 1 to 5. Noise, defocus radius, contrast, brightness and JPEG quality are
ImageNet-C's (Hendrycks & Dietterich, ICLR 2019, arXiv 1903.12261); motion blur and fog have scales of their own."""

CORRUPTIONS = tuple(_CORRUPTIONS)


class Corruption(Augmentation):
    """One kind of damage at one severity; what is random in it follows from the sample's key. Labels stay.

    Args:
        name: one of `CORRUPTIONS`.
        severity: 1 to 5.
    """

    def __init__(self, name: str, severity: int) -> None:
        make, strengths = _CORRUPTIONS[name]
        damage = make(strengths[severity - 1])
        self.pipeline, self.drawn = A.Compose([damage], strict=True), [damage]


def _jitter(brightness: float = 1, contrast: float = 1) -> A.BasicTransform:
    return A.ColorJitter((brightness, brightness), (contrast, contrast), (1, 1), (0, 0), p=1)
