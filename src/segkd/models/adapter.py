"""Adapter: an `nn.Module` of another library, or your own, as student or teacher.

The wrapped network must take images (B 3 H W) and return logits: a tensor, or a tuple, list or mapping that holds them. The
config gives the rest: how to build the network, how to normalize its images, and which of its modules are features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from segkd.errors import UserError, get_first_line
from segkd.models.base import IMAGENET_MEAN, IMAGENET_STD, Normalization, SegmentationModel
from segkd.models.layers import divide_up, pad_to_multiple
from segkd.models.third_party import build_third_party_network, extract_feature, extract_logits
from segkd.types import FeatureInfo

_PROBE_SIZE = 128  # pixels; every usual backbone has an output for it
# Networks of segmentation_models_pytorch require image sides that are multiples of one of these.
_DIVISORS = (1, 8, 16, 32)


class Adapter(SegmentationModel):
    """A third-party network with segkd's interface.

    It is built and run once on an empty image. From then on it returns a `NetworkOutput` of its logits and of the output of
    each module that `features` names. The feature `kd_logits` is its logits, if no module is named for it. If it only accepts
    images whose sides are multiples of 8, 16 or 32, they are padded at the right and the bottom, and its maps are cropped.

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

    align_corners: bool
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
        super().__init__(num_classes, own, {})
        self.arguments = {
            "network": network,
            "arguments": network_arguments,
            "features": module_paths,
            "mean": None if mean is None else list(mean),
            "std": None if std is None else list(std),
            "bgr": bgr,
            "align_corners": align_corners,
        }
        self.align_corners = align_corners
        self.module_paths = module_paths
        self.network_path = network
        self.network = build_third_party_network(network, network_arguments)
        self._check_module_paths()
        self._infer_shapes()

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return logits and the features that the config names."""
        padded = pad_to_multiple(images, self.divisor)
        with self._capture_features() as captured:
            logits = _crop(extract_logits(self.network(padded), self.network_path), images, padded)
        features = {
            name: _crop(extract_feature(captured.get(name), name, path), images, padded)
            for name, path in self.module_paths.items()
        }
        return logits, {"kd_logits": logits, **features}

    def find_class_keys(self) -> set[str]:
        """Return the keys of the weights whose first dimension is the number of classes: one may be another module's."""
        return {key for key, tensor in self.state_dict().items() if tensor.shape[:1] == (self.num_classes,)}

    def convert_state_dict(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a state dict of the wrapped network under segkd's names."""
        is_converted = all(key.startswith("network.") for key in state)
        return dict(state) if is_converted else {f"network.{key}": tensor for key, tensor in state.items()}

    def _check_module_paths(self) -> None:
        modules = dict(self.network.named_modules())
        for name, path in self.module_paths.items():
            if path not in modules:
                near = [p for p in modules if p and p.count(".") <= path.count(".")]
                raise UserError(
                    f"{self.network_path} has no module '{path}' for the feature '{name}'; it has {', '.join(near[:12])}"
                    f"{', …' if len(near) > 12 else ''}"
                )

    def _infer_shapes(self) -> None:
        """Infer the divisor of image sides, the number of classes, and channels and strides from empty images."""
        training = self.network.training
        self.eval()
        if error := self._try_size(_PROBE_SIZE):
            raise UserError(
                f"{self.network_path} does not take an image of {_PROBE_SIZE}×{_PROBE_SIZE}: {error}; build it for any size"
            )
        self.divisor = next((side for side in _DIVISORS if not self._try_size(_PROBE_SIZE + side)), 1)
        with torch.no_grad():
            logits, features = self.forward_normalized(torch.zeros(1, 3, _PROBE_SIZE, _PROBE_SIZE))
        self.train(training)
        self.num_classes = logits.shape[1]
        for name, maps in features.items():
            self.features[name] = FeatureInfo(maps.shape[1], max(1, round(_PROBE_SIZE / maps.shape[-1])))

    @torch.no_grad()
    def _try_size(self, side: int) -> str | None:
        """Return the error that a square image of this size causes, if any."""
        try:
            self.network(torch.zeros(1, 3, side, side))
        except (RuntimeError, ValueError, AssertionError) as error:
            return get_first_line(error)
        return None

    @contextmanager
    def _capture_features(self) -> Iterator[dict[str, Any]]:
        """Yield a dict that receives the outputs of the feature modules, by feature."""
        # Hooks are set for one call: a copy of this network then has none that write to the original.
        captured: dict[str, Any] = {}

        def make_hook(name: str) -> Any:
            return lambda _module, _inputs, output: captured.__setitem__(name, output)

        handles = [
            self.network.get_submodule(path).register_forward_hook(make_hook(name))
            for name, path in self.module_paths.items()
        ]
        try:
            yield captured
        finally:
            for handle in handles:
                handle.remove()


def _crop(maps: Tensor, images: Tensor, padded: Tensor) -> Tensor:
    """Crop maps of padded images to the part that belongs to the images."""
    height, width = (
        divide_up(side * original, full)
        for side, original, full in zip(maps.shape[-2:], images.shape[-2:], padded.shape[-2:], strict=True)
    )
    return maps[..., :height, :width]
