"""Anybody's network: an `nn.Module` of another library, or your own, as student or teacher.

What the wrapped network must do is take images (B 3 H W) and answer with class scores: a tensor, or a tuple, list or
mapping that holds them. All else is said beside it: how to build it, how it wants its images, and which of its
modules are features.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from segkd.errors import UserError
from segkd.models.base import IMAGENET_MEAN, IMAGENET_STD, Normalization, SegmentationModel
from segkd.models.layers import pad_to_multiple
from segkd.types import FeatureInfo

EXTRAS = {
    "transformers": "huggingface",
    "timm": "timm",
    "segmentation_models_pytorch": "smp",
    "torchvision": "torchvision",
    "mmseg": None,
}
"""Libraries whose functions may build a network, and the extra of segkd that installs each."""

_ANSWERS = ("logits", "out")  # under which Hugging Face and torchvision put the class scores
_PROBE = 128  # pixels; every usual backbone has an output for it
_STRIDES = (1, 8, 16, 32)  # by which segmentation_models_pytorch's networks want an image's sides to be divisible


class Adapter(SegmentationModel):
    """A foreign network behind our contract.

    It is built, probed once with an empty image, and from then on answers with `Outputs`: its class scores, and the output
    of each module that `features` names. The feature `kd_logits` is its answer, if no module is named for it. Where it refuses images
    whose sides 8, 16 or 32 does not divide, they are filled up at the right and the bottom, and its maps cut again.

    Args:
        num_classes: of the data set; handed to the constructor under the name `classes_argument`.
        normalization: the data set's; used where `mean` and `std` are null.
        network: dotted path of a class that is an `nn.Module`, or of a function of transformers, timm,
            segmentation_models_pytorch, torchvision or mmseg that returns one. Hugging Face classes that take a config
            object are given one made of `arguments`.
        arguments: of the constructor.
        classes_argument: the constructor's name for the number of classes, such as `num_labels`; `arguments` may set it to
            another number, for a teacher with a `class_map`.
        features: name → dotted path of a module whose output is a map, B C h w. Pair-wise and feature losses read `encoder`.
        mean: RGB in 0..255 that is subtracted; null for the data set's statistics.
        std: RGB in 0..255 that is divided by.
        bgr: whether it wants BGR.
        align_corners: how its maps are enlarged.

    Raises:
        UserError: there is no such network, its package is missing, it takes images of one size alone, it answers with
            something else, or a feature is no map.
    """

    align_corners: bool

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
            raise UserError("mean and std belong together; give both, or null for both (the data set's)")
        paths, given = dict(features or {}), dict(arguments or {})
        if classes_argument is not None:
            given.setdefault(classes_argument, num_classes)
        own = normalization if mean is None or std is None else Normalization(mean, std, bgr)
        super().__init__(num_classes, own, {})
        self.arguments = {
            "network": network,
            "arguments": given,
            "features": paths,
            "mean": None if mean is None else list(mean),
            "std": None if std is None else list(std),
            "bgr": bgr,
            "align_corners": align_corners,
        }
        self.align_corners = align_corners
        self.paths = paths
        self.network = _build(network, given)
        self._check_paths()
        self._probe()

    def forward_normalized(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        filled = pad_to_multiple(images, self.multiple)
        with self._listening() as heard:
            logits = _crop(_extract_logits(self.network(filled), self._title()), images, filled)
        features = {
            name: _crop(_extract_feature(heard.get(name), name, path), images, filled)
            for name, path in self.paths.items()
        }
        return logits, {"kd_logits": logits, **features}

    def convert_state_dict(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of the wrapped network under our names."""
        ours = all(key.startswith("network.") for key in state)
        return dict(state) if ours else {f"network.{key}": tensor for key, tensor in state.items()}

    def _title(self) -> str:
        return str(self.arguments["network"])

    def _check_paths(self) -> None:
        modules = dict(self.network.named_modules())
        for name, path in self.paths.items():
            if path not in modules:
                near = [p for p in modules if p and p.count(".") <= path.count(".")]
                raise UserError(
                    f"{self._title()} has no module '{path}' for the feature '{name}'; it has {', '.join(near[:12])}"
                    f"{', …' if len(near) > 12 else ''}"
                )

    def _probe(self) -> None:
        """Learn from empty images which sizes it takes, and its classes, channels and strides."""
        training = self.network.training
        self.eval()
        if refusal := self._refusal(_PROBE):
            raise UserError(
                f"{self._title()} does not take an image of {_PROBE}×{_PROBE}: {refusal}; build it for any size"
            )
        self.multiple = next((side for side in _STRIDES if not self._refusal(_PROBE + side)), 1)
        with torch.no_grad():
            logits, features = self.forward_normalized(torch.zeros(1, 3, _PROBE, _PROBE))
        self.train(training)
        self.num_classes = logits.shape[1]
        for name, maps in features.items():
            self.features[name] = FeatureInfo(maps.shape[1], max(1, round(_PROBE / maps.shape[-1])))

    @torch.no_grad()
    def _refusal(self, side: int) -> str | None:
        """What it says against a square image."""
        try:
            self.network(torch.zeros(1, 3, side, side))
        except (RuntimeError, ValueError, AssertionError) as error:
            return _first_line(error)
        return None

    @contextmanager
    def _listening(self) -> Iterator[dict[str, Any]]:
        """Within it, what the tapped modules say."""
        # Hooks are set for one call: a copy of this network then has none that speak to the original.
        heard: dict[str, Any] = {}

        def hook(name: str) -> Any:
            return lambda _module, _inputs, output: heard.__setitem__(name, output)

        handles = [self.network.get_submodule(path).register_forward_hook(hook(n)) for n, path in self.paths.items()]
        try:
            yield heard
        finally:
            for handle in handles:
                handle.remove()


def _build(path: str, arguments: dict[str, Any]) -> nn.Module:
    constructor = _constructor(path)
    configured = getattr(constructor, "config_class", None)
    try:
        made = constructor(configured(**arguments)) if inspect.isclass(configured) else constructor(**arguments)
    except (TypeError, ValueError, OSError, RuntimeError, ImportError) as error:
        raise UserError(f"{path} cannot be built with {arguments}: {_first_line(error)}") from None
    if not isinstance(made, nn.Module):
        raise UserError(f"{path} gives a {type(made).__name__}, not an nn.Module; name what builds the network")
    return made


def _constructor(path: str) -> Any:
    """The class or function of a dotted path; a function only of the libraries that we know."""
    parts = path.split(".")
    package = parts[0]
    found, depth = None, len(parts) - 1
    while found is None and depth > 0:
        try:
            found = importlib.import_module(".".join(parts[:depth]))
        except ModuleNotFoundError as error:
            if error.name is not None and not path.startswith(error.name):
                raise UserError(f"{path} needs the package '{error.name}', which is not installed") from None
            depth -= 1
    if found is None:
        extra = EXTRAS.get(package)
        cure = f"pip install 'segkd[{extra}]'" if extra else f"install it, or run where '{package}' can be imported"
        raise UserError(f"the package '{package}' is not installed, and {path} is of it; {cure}")
    for part in parts[depth:]:
        found = None if part.startswith("_") else getattr(found, part, None)
    if inspect.isclass(found) and issubclass(found, nn.Module):
        return found
    if callable(found) and not inspect.isclass(found) and package in EXTRAS:
        return found
    raise UserError(
        f"{path} is not a class of networks (nn.Module), nor a function of {', '.join(EXTRAS)}"
        if found is not None
        else f"'{package}' has no {path}"
    )


def _extract_logits(answer: Any, whose: str) -> Tensor:
    """The class scores in whatever a network answers with, B K h w."""
    found = answer
    if isinstance(found, Mapping):
        found = next((found[key] for key in _ANSWERS if key in found), None)
        if found is None:
            raise UserError(
                f"{whose} answers with {', '.join(map(str, answer))}; class scores are {' or '.join(_ANSWERS)}"
            )
    elif isinstance(found, Sequence) and len(found):
        found = found[0]
    if not isinstance(found, Tensor) or found.ndim != 4:
        raise UserError(
            f"{whose} answers with {_shape(found)}; class scores are one tensor B K h w, or the first of several"
        )
    return found


def _extract_feature(output: Any, feature: str, path: str) -> Tensor:
    """The map in what a tapped module says."""
    if output is None:
        raise UserError(f"the feature '{feature}': module '{path}' took no part in the forward pass; choose another")
    several = list(output) if isinstance(output, tuple | list) else [output]
    if sum(isinstance(one, Tensor) and one.ndim == 4 for one in several) > 1:
        shapes = ", ".join(_shape(one) for one in several)
        raise UserError(
            f"the feature '{feature}': module '{path}' gives several maps ({shapes}); choose a module that gives one"
        )
    found = several[0] if several else output
    if not isinstance(found, Tensor) or found.ndim != 4:
        raise UserError(
            f"the feature '{feature}': module '{path}' gives {_shape(found)}, not a map B C h w; choose another"
        )
    return found


def _crop(maps: Tensor, images: Tensor, filled: Tensor) -> Tensor:
    """The part of the maps that the images take of what they were filled up to."""
    height, width = (
        -(-side * whole // full)
        for side, whole, full in zip(maps.shape[-2:], images.shape[-2:], filled.shape[-2:], strict=True)
    )
    return maps[..., :height, :width]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _shape(thing: Any) -> str:
    return f"a tensor {'×'.join(map(str, thing.shape))}" if isinstance(thing, Tensor) else f"a {type(thing).__name__}"
