"""Wrapped modules: any `nn.Module` that returns logits, with segkd's interface."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from segkd.errors import UserError, get_first_line
from segkd.models.base import IMAGENET_MEAN, IMAGENET_STD, Normalization, SegmentationModel
from segkd.models.layers import divide_up, pad_to_multiple
from segkd.models.third_party import extract_feature, extract_logits
from segkd.types import FeatureInfo

_PROBE_SIZE = 128  # pixels; every usual backbone has an output for it
# Networks of segmentation_models_pytorch require image sides that are multiples of one of these.
_DIVISORS = (1, 8, 16, 32)


def wrap_model(
    module: nn.Module,
    num_classes: int | None = None,
    features: Mapping[str, str] | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    bgr: bool = False,
    align_corners: bool = False,
) -> WrappedModule:
    """Return your own `nn.Module` as a network of segkd: a student, a teacher, or a model to evaluate.

    The module takes images B 3 H W and returns logits B K h w: a tensor, or a tuple, list or mapping that holds them. The
    network takes RGB in 0..255 and normalizes for the module, which then must not. It is run once on an empty image.

    Args:
        module: yours; it is wrapped, not copied.
        num_classes: outputs that it must have; None for those that it has.
        features: name → dotted path of a module whose output is a map, B C h w. Pairwise and feature losses read `encoder`.
        mean: RGB in 0..255 that is subtracted; ImageNet's by default. `(0, 0, 0)` with `std=(255, 255, 255)` gives 0..1.
        std: RGB in 0..255 that is divided by.
        bgr: whether the module expects BGR.
        align_corners: how its maps are upsampled.

    Raises:
        UserError: the module only takes images of one size, its output holds no logits or others than `num_classes`, or a
            feature is no map.
    """
    if isinstance(module, SegmentationModel):
        raise UserError(f"{type(module).__name__} is a network of segkd already; use it as it is")
    if not isinstance(module, nn.Module):
        raise UserError(
            f"wrap_model wraps an nn.Module, and was given a {type(module).__name__}; give the built network"
        )
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != 3:
            raise UserError(f"{name}={tuple(values)} has {len(values)} values; give three, RGB in 0..255")
    network = WrappedModule(module, type(module).__name__, Normalization(mean, std, bgr), features or {}, align_corners)
    if num_classes is not None and network.num_classes != num_classes:
        raise UserError(
            f"{type(module).__name__} has {network.num_classes} outputs, and num_classes={num_classes} is given"
        )
    return network


class WrappedModule(SegmentationModel):
    """A network that another library, or your own code, has built.

    It is run once on an empty image. From then on it returns a `NetworkOutput` of its logits and of the output of each module
    that `features` names. The feature `kd_logits` is its logits, if no module is named for it. If it only accepts images whose
    sides are multiples of 8, 16 or 32, they are padded at the right and the bottom, and its maps are cropped.

    Args:
        module: what is wrapped.
        name: its name, for messages.
        normalization: that of its images.
        features: name → dotted path of a module whose output is a map, B C h w.
        align_corners: how its maps are upsampled.

    Raises:
        UserError: it only takes images of one size, its output holds no logits, or a feature is no map.
    """

    align_corners: bool

    def __init__(
        self,
        module: nn.Module,
        name: str,
        normalization: Normalization,
        features: Mapping[str, str],
        align_corners: bool = False,
    ) -> None:
        super().__init__(0, normalization, {})
        self.align_corners = align_corners
        self.module_paths = dict(features)
        self.network_name = name
        self.network = module
        self.normalization.to(self._make_image(1).device)
        self._check_module_paths()
        self._infer_shapes()

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return logits and the features that `features` names."""
        padded = pad_to_multiple(images, self.divisor)
        with self._capture_features() as captured:
            logits = _crop(extract_logits(self.network(padded), self.network_name), images, padded)
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
                    f"{self.network_name} has no module '{path}' for the feature '{name}'; it has {', '.join(near[:12])}"
                    f"{', …' if len(near) > 12 else ''}"
                )

    def _infer_shapes(self) -> None:
        """Infer the divisor of image sides, the number of classes, and channels and strides from empty images."""
        modes = {module: module.training for module in self.network.modules()}
        self.eval()
        if error := self._try_size(_PROBE_SIZE):
            raise UserError(
                f"{self.network_name} does not take an image of {_PROBE_SIZE}×{_PROBE_SIZE}: {error}; build it for any size"
            )
        self.divisor = next((side for side in _DIVISORS if not self._try_size(_PROBE_SIZE + side)), 1)
        with torch.no_grad():
            logits, features = self.forward_normalized(self._make_image(_PROBE_SIZE))
        self.train(modes[self.network])
        for module, is_training in modes.items():  # some may be in evaluation mode on purpose, such as frozen BatchNorm
            module.training = is_training
        self.num_classes = logits.shape[1]
        for name, maps in features.items():
            self.features[name] = FeatureInfo(maps.shape[1], max(1, round(_PROBE_SIZE / maps.shape[-1])))

    @torch.no_grad()
    def _try_size(self, side: int) -> str | None:
        """Return the error that a square image of this size causes, if any."""
        try:
            self.network(self._make_image(side))
        except (RuntimeError, ValueError, AssertionError) as error:
            return get_first_line(error)
        return None

    def _make_image(self, side: int) -> Tensor:
        """Return an empty square image where the network is."""
        parameter = next(self.network.parameters(), None)
        return torch.zeros(1, 3, side, side, device=None if parameter is None else parameter.device)

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
