"""SegNet: VGG16 without its classifier, mirrored; maxima go back to where they stood.

Badrinarayanan et al., *SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation*, IEEE
Transactions on Pattern Analysis and Machine Intelligence 39(12), 2017 (arXiv 1511.00561).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from segkd.models.base import Normalization, SegmentationModel
from segkd.models.layers import pad_to_multiple
from segkd.types import FeatureInfo

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of VGG16's convolutions, between its five poolings."""
_STRIDE = 2 ** len(_STAGES)


def _stage(channels: int, widths: tuple[int, ...]) -> nn.Sequential:
    """3×3 convolutions, each with BatchNorm and ReLU."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers)


class SegNet(SegmentationModel):
    """SegNet; class scores at full size.

    It has no classifier before its end, so the feature `kd_logits` is its answer, B K H W. The feature `encoder` is the map after
    the last pooling, B 512 H/32 W/32. Images are filled up with zeros to multiples of 32.
    """

    min_size = 33  # at 32 the deepest map has one value per image, too few for BatchNorm to train on one image

    def __init__(self, num_classes: int, normalization: Normalization) -> None:
        features = {"encoder": FeatureInfo(_STAGES[-1][-1], _STRIDE), "kd_logits": FeatureInfo(num_classes, 1)}
        super().__init__(num_classes, normalization, features)
        pairs = [*zip((3, *(widths[-1] for widths in _STAGES[:-1])), _STAGES, strict=True)]
        self.encoder = nn.ModuleList(_stage(channels, widths) for channels, widths in pairs)
        # A stage gives back the channels that its mirror took, but for the first, which took the image's.
        back = [_STAGES[0][1:], *((*widths[1:], channels) for channels, widths in pairs[1:])]
        self.decoder = nn.ModuleList(_stage(_STAGES[i][-1], back[i]) for i in reversed(range(len(back))))
        self.classifier = nn.Conv2d(back[0][-1], num_classes, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        height, width = images.shape[-2:]
        x, stood = pad_to_multiple(images, _STRIDE), []
        for stage in self.encoder:
            x, indices = F.max_pool2d(stage(x), 2, return_indices=True)
            stood.append(indices)
        features = x
        for stage in self.decoder:
            x = stage(F.max_unpool2d(x, stood.pop(), (2, 2)))
        logits = self.classifier(x)[..., :height, :width]
        return logits, {"encoder": features, "kd_logits": logits}
