"""A batch goes through a network: as a whole, or in parts, for the memory of one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from segkd.models.layers import use_sample_seeds
from segkd.types import Batch, NetworkOutput

Network = Callable[[Tensor], NetworkOutput]


def forward_in_chunks(network: Network, batch: Batch, parts: int) -> NetworkOutput:
    """What a network says of all images, of which it sees one part after the other.

    The losses then read the answer to the whole batch, so that every mean, pair of images and critic is that of the whole, which
    adding up the gradients of parts would not give. The backward pass looks at each part once more and keeps what it needs for that
    part alone (Chen et al., 2016, 1604.06174; for losses over a whole batch Gao et al., 2021, 2101.06983): a forward pass in time.
    BatchNorm alone knows nothing but its part.
    """

    def look(images: Tensor, keys: Tensor) -> NetworkOutput:
        with use_sample_seeds(keys):
            return network(images)

    def looks() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        buffers = list(network.buffers()) if isinstance(network, nn.Module) else []
        return nullcontext(), _RestoreBuffers(buffers)

    if parts == 1:
        return look(batch.images, batch.seeds)
    parts = min(parts, len(batch.images))
    seen = [
        checkpoint(look, *part, use_reentrant=False, context_fn=looks)
        for part in zip(batch.images.tensor_split(parts), batch.seeds.tensor_split(parts), strict=True)
    ]
    return _concatenate(seen)


class _RestoreBuffers(AbstractContextManager[None]):
    """The second look at a part starts from the running statistics that the first had, and leaves them as they are now.

    It is entered for each backward pass anew.
    """

    def __init__(self, buffers: Sequence[Tensor]) -> None:
        self.buffers, self.first = buffers, [buffer.clone() for buffer in buffers]

    def __enter__(self) -> None:
        self.now = [buffer.clone() for buffer in self.buffers]
        self._set(self.first)

    def __exit__(self, *_: object) -> None:
        self._set(self.now)

    def _set(self, values: Sequence[Tensor]) -> None:
        for buffer, value in zip(self.buffers, values, strict=True):
            buffer.data.copy_(value)  # unseen by the backward passes that are still to come


def _concatenate(seen: Sequence[NetworkOutput]) -> NetworkOutput:
    """Along the batch; maps that are one tensor stay one."""
    joined: dict[int, Tensor] = {}

    def whole(maps: Sequence[Tensor]) -> Tensor:
        if id(maps[0]) not in joined:
            joined[id(maps[0])] = torch.cat(list(maps))
        return joined[id(maps[0])]

    features = {name: whole([one.features[name] for one in seen]) for name in seen[0].features}
    return NetworkOutput(whole([one.logits for one in seen]), features, seen[0].align_corners)
