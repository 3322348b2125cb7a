"""The discriminator: scores how well a map of class probabilities fits an image."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from segkd.types import resize

_LAST_KERNEL = 4


class SelfAttention(nn.Module):
    """Self-attention over all positions; the identity at initialization.

    Zhang et al., *Self-Attention Generative Adversarial Networks*, 2019 (arXiv 1805.08318). B C h w to the same shape.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended map, B C h w."""
        query, key, value = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        attention = torch.softmax(query.mT @ key, -1)  # B n n, rows sum to one
        attended: Tensor = (value @ attention.mT).view_as(x)
        return x + self.gamma * attended


class Discriminator(nn.Module):
    """Score pairs of an image and a map of class probabilities.

    Liu et al., 2019, section 3.3: five convolutions, the first four spectrally normalized, self-attention after the third
    and the fourth, image and map concatenated. Unlike the published code it uses the image, has no BatchNorm (whose
    statistics couple the samples that the gradient penalty must keep apart), and accepts maps from 16×16 up.

    Args:
        num_classes: K of the maps.
        width: channels of the first convolution, doubled by each of the next three.
        image_channels: 3, or 0 for the unconditional discriminator of the published code.
    """

    min_size = 16
    """The smallest height and width of a map: four halvings leave one pixel."""

    def __init__(self, num_classes: int, width: int = 64, image_channels: int = 3) -> None:
        super().__init__()
        self.image_channels = image_channels
        channels = (num_classes + image_channels, width, 2 * width, 4 * width, 8 * width)
        self.convolutions = nn.ModuleList(
            spectral_norm(nn.Conv2d(a, b, 4, stride=2, padding=1)) for a, b in pairwise(channels)
        )
        self.attentions = nn.ModuleDict({"2": SelfAttention(channels[3]), "3": SelfAttention(channels[4])})
        self.last = nn.Conv2d(channels[4], 1, _LAST_KERNEL)

    def forward(self, maps: Tensor, images: Tensor) -> Tensor:
        """Return one score per pair, B, of maps B K h w and RGB images B 3 H W in 0..255."""
        x = maps
        if self.image_channels:
            scaled = resize(images.to(maps.dtype) / 127.5 - 1, (maps.shape[-2], maps.shape[-1]), align_corners=True)
            x = torch.cat([scaled, maps], 1)
        for i, convolution in enumerate(self.convolutions):
            x = F.leaky_relu(convolution(x), 0.1)
            if str(i) in self.attentions:
                x = self.attentions[str(i)](x)
        missing_height, missing_width = (max(0, _LAST_KERNEL - side) for side in x.shape[-2:])
        padding = (
            missing_width // 2,
            missing_width - missing_width // 2,
            missing_height // 2,
            missing_height - missing_height // 2,
        )
        scores: Tensor = self.last(F.pad(x, padding)).mean((1, 2, 3))
        return scores
