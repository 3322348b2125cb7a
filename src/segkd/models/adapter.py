"""Adapter: an `nn.Module` of another library, or your own, as student or teacher.

The wrapped network must take images (B 3 H W) and return logits: a tensor, or a tuple, list or mapping that holds them. The
config gives the rest: how to build the network, how to normalize its images, and which of its modules are features.
"""

from __future__ import annotations

from typing import Any

from segkd.errors import UserError
from segkd.models.base import IMAGENET_MEAN, IMAGENET_STD, Normalization
from segkd.models.third_party import build_third_party_network
from segkd.models.wrapped import WrappedModule


class Adapter(WrappedModule):
    """A third-party network with segkd's interface; see `WrappedModule`.

    Args:
        num_classes: number of classes of the dataset; passed to the constructor as `classes_argument`.
        normalization: that of the dataset; used if `mean` and `std` are null.
        network: dotted path of a class that is an `nn.Module`, or of a function of transformers, timm,
            segmentation_models_pytorch, torchvision or mmseg that returns one. Hugging Face classes that take a config
            object get one made of `arguments`.
        arguments: constructor arguments.
        classes_argument: the constructor's name for the number of classes, such as `num_labels`; `arguments` may set it to
            another number, for a teacher with a `class_map`.
        features: name → dotted path of a module whose output is a map, B C h w. Pairwise and feature losses read `encoder`.
        mean: RGB in 0..255 that is subtracted; null for the dataset's statistics.
        std: RGB in 0..255 that is divided by.
        bgr: whether the network expects BGR.
        align_corners: how its maps are upsampled.

    Raises:
        UserError: there is no such network, its package is missing, it only takes images of one size, its output holds no
            logits, or a feature is no map.
    """

    constructor_loads_weights = True

    def __init__(
        self,
        num_classes: int,
        normalization: Normalization,
        network: str | None = None,
        arguments: dict[str, Any] | None = None,
        classes_argument: str | None = None,
        features: dict[str, str] | None = None,
        mean: tuple[float, float, float] | None = IMAGENET_MEAN,
        std: tuple[float, float, float] | None = IMAGENET_STD,
        bgr: bool = False,
        align_corners: bool = False,
    ) -> None:
        if network is None:
            raise UserError(
                "the adapter wraps a network; say which: network=PACKAGE.CLASS (docs/how-to/custom-network.md)"
            )
        if (mean is None) != (std is None):
            raise UserError("mean and std belong together; give both, or null for both (the dataset's)")
        module_paths, network_arguments = dict(features or {}), dict(arguments or {})
        if classes_argument is not None:
            network_arguments.setdefault(classes_argument, num_classes)
        own = normalization if mean is None or std is None else Normalization(mean, std, bgr)
        module = build_third_party_network(network, network_arguments)
        super().__init__(module, network, own, module_paths, align_corners)
        self.arguments = {
            "network": network,
            "arguments": network_arguments,
            "features": module_paths,
            "mean": None if mean is None else list(mean),
            "std": None if std is None else list(std),
            "bgr": bgr,
            "align_corners": align_corners,
        }
