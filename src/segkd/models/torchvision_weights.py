"""ImageNet weights for the backbone of a PSPNet, in the format of torchvision's ResNets."""

from __future__ import annotations

from functools import partial
from http.client import HTTPException
from pathlib import Path

import torch

from segkd.errors import UserError
from segkd.models.base import IMAGENET_MEAN, IMAGENET_STD, Normalization, SegmentationModel, add_num_batches_tracked
from segkd.models.checkpoint_io import describe_zeroed, flush_denormals, load_state_dict_strict, read_state_dict
from segkd.models.prefixes import has_all_keys, select_network

IMAGENET = "imagenet"
"""The value of `init_from` that selects torchvision's own weights."""

URLS = {  # by depth: IMAGENET1K_V1; the name holds the first digits of the file's SHA-256
    18: "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    50: "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    101: "https://download.pytorch.org/models/resnet101-63fe2227.pth",
}


def load_backbone(network: SegmentationModel, source: str) -> str:
    """Load the backbone alone, strictly, and normalize as on ImageNet; return one line that describes the weights.

    ImageNet's classifier (`fc`) is left out.

    Args:
        network: a PSPNet with torchvision's ResNet.
        source: a file, or `imagenet` for torchvision's own weights, which are downloaded once into PyTorch's cache.

    Raises:
        UserError: the network has another backbone, the file holds something else, or the download fails.
    """
    if not _has_torchvision_backbone(network):
        raise UserError(
            f"init_from={source} needs a PSPNet with torchvision's ResNet in it (deep_stem=false, width=64), and this is "
            f"a {_describe(network)}; choose pspnet_resnet18 or pspnet_resnet50, or leave it out"
        )
    depth: int = network.arguments["depth"]
    path = _download(URLS[depth]) if source == IMAGENET else Path(source)
    backbone = network.get_submodule("backbone")
    selected = select_network(read_state_dict(path), partial(has_all_keys, backbone), path)
    state = {key: value for key, value in selected.items() if not key.startswith("fc.")}
    zeroed = flush_denormals(state)
    network.normalization = Normalization(IMAGENET_MEAN, IMAGENET_STD)  # torchvision's weights were trained with it
    load_state_dict_strict(backbone, add_num_batches_tracked(state), path, name=f"ResNet{depth}")
    return f"{path.name}: the ResNet{depth} of a PSPNet{describe_zeroed(zeroed)}; normalizing as on ImageNet"


def _has_torchvision_backbone(network: SegmentationModel) -> bool:
    arguments = network.arguments
    return network.takes_resnet_weights and not arguments["deep_stem"] and arguments["width"] == 64


def _describe(network: SegmentationModel) -> str:
    name = type(network).__name__
    if not network.takes_resnet_weights:
        return name
    return f"{name} with deep_stem={str(network.arguments['deep_stem']).lower()}, width={network.arguments['width']}"


def _download(url: str) -> Path:
    """Return the file of a URL in PyTorch's cache, which torchvision uses too."""
    name = url.rsplit("/", 1)[-1]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rsplit("-", 1)[-1])
    except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: another hash
        raise UserError(
            f"cannot fetch {url} ({getattr(error, 'reason', error)}); check the connection, or get {name} elsewhere and give "
            "init_from=FILE"
        ) from None
    return path
