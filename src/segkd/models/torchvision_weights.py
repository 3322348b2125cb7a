"""ImageNet weights for the backbone of a PSPNet, in the format of torchvision's ResNets."""

from __future__ import annotations

from http.client import HTTPException
from pathlib import Path

import torch

from segkd.errors import UserError
from segkd.models.base import IMAGENET_MEAN, IMAGENET_STD, Normalization, SegmentationModel, add_num_batches_tracked
from segkd.models.checkpoint_io import flush_denormals, load_state_dict_strict, read_state_dict
from segkd.models.pspnet import PSPNet

IMAGENET = "imagenet"
"""What `init_from` says for torchvision's own weights."""

ADDRESSES = {  # by depth: IMAGENET1K_V1; the name holds the first digits of the file's SHA-256
    18: "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    50: "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    101: "https://download.pytorch.org/models/resnet101-63fe2227.pth",
}


def load_backbone(network: SegmentationModel, source: str) -> str:
    """Load the backbone alone, strictly, and normalise as on ImageNet; one line on it. ImageNet's classifier (`fc`) is left out.

    Args:
        source: a file, or `imagenet` for torchvision's own, which is fetched once into PyTorch's cache.

    Raises:
        UserError: a network without torchvision's ResNet in it, a file of something else, or an address out of reach.
    """
    if not isinstance(network, PSPNet) or network.arguments["deep_stem"] or network.arguments["width"] != 64:
        raise UserError(
            f"init_from={source} needs a PSPNet with torchvision's ResNet in it (deep_stem=false, width=64), and this is "
            f"a {type(network).__name__}{_shape(network)}; choose pspnet_resnet18 or pspnet_resnet50, or leave it out"
        )
    depth: int = network.arguments["depth"]
    path = _fetched(ADDRESSES[depth]) if source == IMAGENET else Path(source)
    state = {key: value for key, value in read_state_dict(path).items() if not key.startswith("fc.")}
    zeroed = flush_denormals(state)
    network.normalization = Normalization(IMAGENET_MEAN, IMAGENET_STD)  # what torchvision's weights were trained on
    load_state_dict_strict(network.backbone, add_num_batches_tracked(state), path, called=f"ResNet{depth}")
    return f"{path.name}: the ResNet{depth} of a PSPNet, {zeroed} denormal weights zeroed; normalising as on ImageNet"


def _shape(network: SegmentationModel) -> str:
    if not isinstance(network, PSPNet):
        return ""
    return f" with deep_stem={str(network.arguments['deep_stem']).lower()}, width={network.arguments['width']}"


def _fetched(address: str) -> Path:
    """The file of an address in PyTorch's cache, where torchvision looks too."""
    name = address.rsplit("/", 1)[-1]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(address, str(path), hash_prefix=path.stem.rsplit("-", 1)[-1])
    except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: another hash
        raise UserError(
            f"cannot fetch {address} ({getattr(error, 'reason', error)}); check the connection, or get {name} elsewhere and give "
            "init_from=FILE"
        ) from None
    return path
