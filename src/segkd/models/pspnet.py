"""PSPNet on dilated residual networks: the teacher of Liu et al. (2019) and its smaller relatives.

Zhao et al., *Pyramid Scene Parsing Network*, CVPR 2017 (arXiv 1612.01105). Two variants, as in the code of
structure_knowledge_distillation:

- the 7×7 stem with torchvision's keys (`pspnet_resnet18`, `pspnet_resnet18_half`: the paper's students), pyramid without
  activations;
- the deep stem of three 3×3 convolutions (`pspnet_resnet18_deep`, `pspnet_resnet101`: the published code), pyramid and
  auxiliary head with leaky ReLU 0.01.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.errors import UserError
from segkd.models.base import ForeignCheckpoint, Normalization, SegmentationModel, rename_keys
from segkd.models.layers import SampleDropout2d, initialize_convolutions
from segkd.models.resnet import BLOCKS, ResNet
from segkd.types import FeatureInfo, resize

_BINS = (1, 2, 3, 6)


class Pyramid(nn.Module):
    """Pyramid pooling: means over 1, 4, 9 and 36 regions and the map itself, fused by a 3×3 convolution.

    Args:
        channels: of the input.
        out_channels: of the output.
        slope: of the leaky ReLU after each BatchNorm; 1 means none.
    """

    def __init__(self, channels: int, out_channels: int, slope: float) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(bins),
                nn.Conv2d(channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )
            for bins in _BINS
        )
        fused = channels + len(_BINS) * out_channels
        self.bottleneck = nn.Sequential(
            nn.Conv2d(fused, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels)
        )
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """Return B C h w."""
        size = (x.shape[-2], x.shape[-1])
        means = [resize(self._apply_activation(stage(x)), size, align_corners=True) for stage in self.stages]
        return self._apply_activation(self.bottleneck(torch.cat([*means, x], 1)))

    def _apply_activation(self, x: Tensor) -> Tensor:
        return x if self.slope == 1 else F.leaky_relu(x, self.slope)


class PSPNet(SegmentationModel):
    """PSPNet on a dilated residual network; logits at 1/8.

    Args:
        num_classes: K.
        normalization: of the images.
        depth: 18, 50 or 101.
        width: channels of the first stage; 64, or 32 for the paper's ResNet18 (0.5).
        deep_stem: three 3×3 convolutions instead of one 7×7.
        pyramid: channels of the pyramid, which are those of the feature `encoder`.
        slope: leaky ReLU of pyramid and auxiliary head; 1 means none.
        auxiliary: a side head on the third stage, for the supervised loss alone.
        dropout: share of channels dropped before each classifier, per sample.
    """

    min_size = 33
    takes_resnet_weights = True

    def __init__(
        self,
        num_classes: int,
        normalization: Normalization,
        depth: int = 18,
        width: int = 64,
        deep_stem: bool = False,
        pyramid: int = 256,
        slope: float = 1.0,
        auxiliary: bool = False,
        dropout: float = 0.1,
    ) -> None:
        if depth not in BLOCKS:
            raise UserError(f"depth must be one of {', '.join(map(str, BLOCKS))}, not {depth}")
        features = {"encoder": FeatureInfo(pyramid, 8), "kd_logits": FeatureInfo(num_classes, 8)}
        if auxiliary:
            features["auxiliary"] = FeatureInfo(num_classes, 8)
        super().__init__(
            num_classes,
            normalization,
            features,
            depth=depth,
            width=width,
            deep_stem=deep_stem,
            pyramid=pyramid,
            slope=slope,
            auxiliary=auxiliary,
            dropout=dropout,
        )
        self.backbone = ResNet(depth, width, deep_stem)
        deep = self.backbone.channels
        self.features["backbone"] = FeatureInfo(deep, 8)
        self.pyramid = Pyramid(deep, pyramid, slope)
        self.dropout = SampleDropout2d(dropout)
        self.classifier = nn.Conv2d(pyramid, num_classes, 1)
        self.auxiliary = _build_auxiliary_head(deep // 2, pyramid, num_classes, slope, dropout) if auxiliary else None
        initialize_convolutions(self)

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return logits B K H/8 W/8 and the features of normalized images.

        Raises:
            UserError: it is trained on one image at a time.
        """
        if self.training and len(images) == 1:
            raise UserError(
                "PSPNet's pyramid normalizes one value per image and needs 2 images at once to train; "
                "raise data.batch_size, or lower trainer.micro_batches"
            )
        third, deepest = self.backbone(images)
        pooled = self.pyramid(deepest)
        logits = self.classifier(self.dropout(pooled))
        features = {"backbone": deepest, "encoder": pooled, "kd_logits": logits}
        if self.auxiliary is not None:
            features["auxiliary"] = self.auxiliary(third)
        return logits, features

    @classmethod
    def match_checkpoint(cls, state: Mapping[str, Tensor]) -> ForeignCheckpoint | None:
        """Return the checkpoint if Liu et al. (2019) wrote it."""
        head, conv1 = state.get("head.weight"), state.get("layer1.0.conv1.weight")
        if head is None or conv1 is None or not {"pspmodule.bottleneck.0.weight", "conv3.weight"} <= state.keys():
            return None
        blocks = [_count_blocks(state, f"layer{i}.") for i in range(1, 5)]
        depth = next((depth for depth, counts in BLOCKS.items() if list(counts) == blocks), None)
        if depth is None:
            return None
        arguments = {
            "num_classes": head.shape[0],
            "depth": depth,
            "width": conv1.shape[0],
            "deep_stem": True,
            "pyramid": head.shape[1],
            "slope": 0.01,
            "auxiliary": "dsn.0.weight" in state,
        }
        keys = {"pspmodule.": "pyramid.", "head.": "classifier.", "dsn.3.": "auxiliary.4.", "dsn.": "auxiliary."}
        stem = {f"{name}.": f"backbone.{name}." for name in ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3")}
        stages = {f"layer{i}.": f"backbone.layer{i}." for i in range(1, 5)}
        renamed = rename_keys(state, {**keys, **stem, **stages})
        # Caffe's statistics, without a scale: BGR minus mean in 0..255 (utils/train_options.py of the reference).
        normalization = Normalization((122.67891434, 116.66876762, 104.00698793), (1.0, 1.0, 1.0), bgr=True)
        return ForeignCheckpoint("Liu et al., 2019", arguments, normalization, _convert_inplace_abn(renamed))


def _build_auxiliary_head(
    channels: int, hidden_channels: int, num_classes: int, slope: float, dropout: float
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, hidden_channels, 3, padding=1),
        nn.BatchNorm2d(hidden_channels),
        nn.LeakyReLU(slope) if slope != 1 else nn.Identity(),
        SampleDropout2d(dropout, salt=1),
        nn.Conv2d(hidden_channels, num_classes, 1),
    )


def _count_blocks(state: Mapping[str, Tensor], stage: str) -> int:
    return len({key.split(".")[1] for key in state if key.startswith(stage)})


def _convert_inplace_abn(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert weights of in-place ABN, which multiplies by |γ| + ε; the reference uses no other BatchNorm (libs/src/bn.cu)."""

    def is_gamma(key: str) -> bool:
        return key.endswith(".weight") and key.removesuffix("weight") + "running_var" in state

    return {key: value.abs() + 1e-5 if is_gamma(key) else value for key, value in state.items()}
