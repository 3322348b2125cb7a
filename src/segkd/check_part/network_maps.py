"""Lines of a network's contract about the maps that it returns."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from segkd.check_part.findings import ContractFault, describe_crash, require
from segkd.errors import UserError
from segkd.models.base import SegmentationModel
from segkd.types import FeatureInfos, NetworkOutput

_COUNT = 2
_ODD, _EVEN = (75, 91), (96, 128)
"""Sizes of images: one that no stride divides, and one that most do."""
_TOLERANCE, _UNPOOLING_TOLERANCE = 0.2, 0.5
"""Of bfloat16, relative: 8 bits of mantissa, through up to a hundred layers; and a maximum that rounding moves is unpooled to
another position."""


def make_images(height: int, width: int, count: int = _COUNT) -> Tensor:
    """Return images of random numbers, B 3 H W uint8."""
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)


def odd_size(network: SegmentationModel) -> tuple[int, int]:
    """Return a height and a width that no stride divides, large enough for the network."""
    least = network.min_size
    return _ODD if least <= min(_ODD) else (least + least % 2 + 11, least + least % 2 + 27)


def run_in_training(network: SegmentationModel, size: tuple[int, int]) -> NetworkOutput:
    """Return the output for random images in training mode.

    Raises:
        ContractFault: it is no logits and features.
    """
    output: object = network.train()(make_images(*size))
    if not isinstance(output, NetworkOutput):
        raise ContractFault(
            f"the network returned an object of type {type(output).__name__}; implement forward_normalized and leave forward as it is"
        )
    if not isinstance(output.logits, Tensor) or not isinstance(output.features, dict):
        kinds = f"{type(output.logits).__name__} and {type(output.features).__name__}"
        raise ContractFault(f"forward_normalized returned {kinds}; return logits, B K h w, and a dict of feature maps")
    return output


def check_features_as_declared(network: SegmentationModel) -> None:
    """Logits and features have the declared channels and strides, at any size of image."""
    _check_declaration(network)
    even, size = _larger(network, _EVEN), odd_size(network)
    require_features(network, run_in_training(network, even), None)
    try:
        output = run_in_training(network, size)
    except Exception as error:
        raise ContractFault(
            f"images of {even[0]}×{even[1]} pass and those of {size[0]}×{size[1]} fail: {describe_crash(error)}; where sides must "
            "be divisible, pad images with segkd.models.layers.pad_to_multiple, and crop the logits again"
        ) from error
    require_features(network, output, size)
    shape = tuple(output.logits_at(size).shape)
    expected = (_COUNT, network.num_classes, *size)
    require(shape == expected, f"the logits have the shape {shape} instead of {expected} at the size of the images")


def _check_declaration(network: SegmentationModel) -> None:
    require(isinstance(network.features, dict), "features is no dict; pass them to super().__init__")
    if missing := {"encoder", "kd_logits"} - network.features.keys():
        raise ContractFault(
            f"it declares no feature {' and no '.join(sorted(missing))}; every network has encoder and kd_logits"
        )
    for name, info in network.features.items():
        is_info = isinstance(info, tuple) and len(info) == 2
        require(is_info, f"feature '{name}' is declared as {info!r}; declare segkd.types.FeatureInfo(channels, stride)")
    channels, classes = network.features["kd_logits"].channels, network.num_classes
    require(channels == classes, f"it declares {channels} channels of kd_logits for {classes} classes")


def require_features(network: SegmentationModel, output: NetworkOutput, size: tuple[int, int] | None) -> None:
    """Check the features of an output.

    Args:
        network: which declares them.
        output: of two images.
        size: height and width of the images; None to leave the strides.

    Raises:
        ContractFault: they are not as declared.
    """
    declared: FeatureInfos = network.features
    if declared.keys() != output.features.keys():
        raise ContractFault(f"it declares the features {', '.join(declared)} and returns {', '.join(output.features)}")
    require(bool(output.logits.isfinite().all()), "the logits are NaN or infinite on images of random numbers")
    for name, (channels, stride) in declared.items():
        maps = output.features[name]
        require(bool(maps.isfinite().all()), f"feature '{name}' is NaN or infinite on images of random numbers")
        require(maps.ndim == 4, f"feature '{name}' has {maps.ndim} dimensions; a feature has four, B C h w")
        require(maps.shape[0] == _COUNT, f"feature '{name}' holds {maps.shape[0]} images of {_COUNT}")
        require(maps.shape[1] == channels, f"feature '{name}' has {maps.shape[1]} channels and declares {channels}")
        for side, full in zip(maps.shape[-2:], size or (), strict=False):
            require(
                abs(side - full / stride) <= 1,
                f"feature '{name}' has {side} positions for {full} pixels, which is no stride of {stride}",
            )


@torch.no_grad()
def check_same_features_in_evaluation(network: SegmentationModel) -> None:
    """Losses are also computed in validation, so evaluation mode has all features."""
    size = odd_size(network)
    try:
        require_features(network, network.eval()(make_images(*size)), size)
    except ContractFault as fault:
        raise ContractFault(f"in evaluation mode {fault}") from None


def check_min_size(network: SegmentationModel) -> None:
    """An image of `min_size` is trained on, and a smaller one refused in a sentence."""
    side = network.min_size
    with torch.no_grad():
        try:
            logits = network.train()(make_images(side, side)).logits
        except Exception as error:
            cure = "raise min_size"
            raise ContractFault(
                f"min_size is {side}, and images of {side}×{side} fail: {describe_crash(error)}; {cure}"
            ) from error
        require(
            bool(logits.isfinite().all()),
            f"images of {side}×{side}, the declared min_size, give NaN or Inf; raise min_size",
        )
        try:
            network(make_images(side, side - 1))
        except UserError:
            return
    raise ContractFault(
        f"min_size is {side}, and images of {side}×{side - 1} are not refused; leave forward to SegmentationModel"
    )


def check_every_parameter_gets_a_gradient(network: SegmentationModel) -> None:
    """Logits, and the auxiliary head, train every parameter."""
    outputs = run_in_training(network, odd_size(network))
    auxiliary = outputs.features.get("auxiliary", outputs.logits)
    network.zero_grad()
    (outputs.logits.square().mean() + auxiliary.square().mean()).backward()  # type: ignore[no-untyped-call]
    idle = [
        name
        for name, p in network.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.isfinite().all() or (p.ndim > 1 and not p.grad.any()))
    ]
    network.zero_grad()
    require(
        not idle,
        f"{len(idle)} parameters get no gradient, or NaN, from the logits and a feature 'auxiliary', first {', '.join(idle[:3])}; "
        "use them, remove them, or make their logits the feature 'auxiliary'",
    )


@torch.no_grad()
def check_batch_independence(network: SegmentationModel) -> None:
    """In evaluation mode an image has the same logits alone and beside others."""
    images = make_images(*odd_size(network))
    together, alone = network.eval()(images).logits, torch.cat([network(image[None]).logits for image in images])
    difference = float((together - alone).norm() / together.norm().clamp(min=1e-12))
    require(
        difference < (1e-2 if network.unpools else 1e-4),
        f"in evaluation mode the logits of an image differ by {100 * difference:.3g} % between a batch of one and of two",
    )


@torch.no_grad()
def check_repeatable_evaluation(network: SegmentationModel) -> None:
    """In evaluation mode the same images give the same logits, and the network stays as it is."""
    images = make_images(*odd_size(network))
    before = {key: tensor.clone() for key, tensor in network.eval().state_dict().items()}
    first, second = network(images).logits, network(images).logits
    difference = float((first - second).abs().max())
    require(difference == 0, f"in evaluation mode the same images give logits that differ by up to {difference:.3g}")
    changed = [key for key, tensor in network.state_dict().items() if not torch.equal(tensor, before[key])]
    require(not changed, f"in evaluation mode forward changes {', '.join(changed[:3])}")


@torch.no_grad()
def check_bfloat16(network: SegmentationModel) -> None:
    """Under autocast the logits are in bfloat16 and close to those in float32."""
    images = make_images(network.min_size, network.min_size)[:1]
    exact = network.eval()(images).logits
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network(images).logits
    require(
        rounded.dtype == torch.bfloat16, f"under autocast the logits are {rounded.dtype}; do not switch autocast off"
    )
    tolerance = _UNPOOLING_TOLERANCE if network.unpools else _TOLERANCE
    difference = float((rounded.float() - exact).norm() / exact.norm())
    require(difference < tolerance, f"the logits in bfloat16 differ by {100 * difference:.3g} % from those in float32")


@torch.no_grad()
def check_compiles(network: SegmentationModel) -> None:
    """Compile the network as one graph (trainer.compile)."""
    torch.compiler.reset()
    images = make_images(*_larger(network, _EVEN))
    compiled: Any = torch.compile(network.eval(), backend="aot_eager", fullgraph=True)
    _require_equal_logits(compiled(images).logits, network(images).logits, "the compiled network's")


@torch.no_grad()
def check_traces(network: SegmentationModel) -> None:
    """A recorded graph, as ONNX and TorchScript files hold it, is right at other sizes too."""
    logits = _LogitsOf(network.eval())
    images, others = make_images(*_larger(network, _EVEN)), make_images(*odd_size(network), count=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of each branch; what matters is the comparison
        traced: Any = torch.jit.trace(logits, images, check_trace=False)  # type: ignore[no-untyped-call]
    _require_equal_logits(traced(images), logits(images), "the recorded network's")
    sizes = f"recorded at {_format_size(images)}, at {_format_size(others)}"
    try:
        recorded = traced(others)
    except RuntimeError as error:
        last = str(error).strip().splitlines()[-1]
        raise ContractFault(f"{sizes} the network fails: {last}; keep Python numbers out of forward") from error
    _require_equal_logits(recorded, logits(others), f"{sizes} the network's")


class _LogitsOf(nn.Module):
    """A network that returns its logits alone."""

    def __init__(self, network: SegmentationModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, B K h w."""
        logits: Tensor = self.network(images).logits
        return logits


def _require_equal_logits(logits: Tensor, expected: Tensor, whose: str) -> None:
    same_shape = logits.shape == expected.shape
    require(same_shape, f"{whose} logits have the shape {tuple(logits.shape)} instead of {tuple(expected.shape)}")
    difference = float((logits - expected).norm() / expected.norm().clamp(min=1e-12))
    require(difference < 1e-3, f"{whose} logits differ by {100 * difference:.3g} %")


def _larger(network: SegmentationModel, size: tuple[int, int]) -> tuple[int, int]:
    """Return the size, or a multiple of it that the network takes."""
    factor = -(-network.min_size // min(size))
    return size[0] * factor, size[1] * factor


def _format_size(images: Tensor) -> str:
    return f"{images.shape[-2]}×{images.shape[-1]}"
