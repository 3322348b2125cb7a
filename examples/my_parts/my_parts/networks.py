"""A network of one's own."""

from torch import Tensor, nn

from segkd.models.base import Normalization, SegmentationModel
from segkd.types import FeatureInfo


class TinyNet(SegmentationModel):
    """Three convolutions; logits at 1/4 of the image."""

    min_size = 8

    def __init__(self, num_classes: int, normalization: Normalization, width: int = 16) -> None:
        features = {"encoder": FeatureInfo(2 * width, 4), "kd_logits": FeatureInfo(num_classes, 4)}
        super().__init__(num_classes, normalization, features, width=width)
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
        )
        self.classifier = nn.Conv2d(2 * width, num_classes, 1)

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        features = self.encoder(images)
        logits = self.classifier(features)
        return logits, {"encoder": features, "kd_logits": logits}
