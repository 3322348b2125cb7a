"""Forward passes in chunks, which need the memory of one chunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from segkd.models.layers import use_sample_seeds
from segkd.types import Batch, NetworkOutput

Network = Callable[[Tensor], NetworkOutput]


def forward_in_chunks(network: Network, batch: Batch, num_chunks: int) -> NetworkOutput:
    """Return the network's output for the batch, computed chunk by chunk.

    The losses see the output for the whole batch, so every mean, pair of images and discriminator score is that of the
    whole batch, which accumulating the gradients of chunks would not give. The backward pass recomputes each chunk and
    stores activations for that chunk only (Chen et al., 2016, 1604.06174; for losses over a whole batch Gao et al., 2021,
    2101.06983), which costs one more forward pass. Only BatchNorm is restricted to its chunk.

    Args:
        network: maps images B 3 H W to its output.
        batch: images and seeds.
        num_chunks: 1 for one ordinary forward pass.
    """

    def forward(images: Tensor, seeds: Tensor) -> NetworkOutput:
        with use_sample_seeds(seeds):
            return network(images)

    def make_contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        buffers = list(network.buffers()) if isinstance(network, nn.Module) else []
        return nullcontext(), _RestoreBuffers(buffers)

    if num_chunks == 1:
        return forward(batch.images, batch.seeds)
    num_chunks = min(num_chunks, len(batch.images))
    outputs = [
        checkpoint(forward, *chunk, use_reentrant=False, context_fn=make_contexts)
        for chunk in zip(batch.images.tensor_split(num_chunks), batch.seeds.tensor_split(num_chunks), strict=True)
    ]
    return _concatenate(outputs)


class _RestoreBuffers(AbstractContextManager[None]):
    """Lets the recomputation of a chunk start from the buffers of its first pass, and restores the present ones after it.

    It is entered once for each backward pass.
    """

    def __init__(self, buffers: Sequence[Tensor]) -> None:
        self.buffers, self.first = buffers, [buffer.clone() for buffer in buffers]

    def __enter__(self) -> None:
        self.present = [buffer.clone() for buffer in self.buffers]
        self._set(self.first)

    def __exit__(self, *_: object) -> None:
        self._set(self.present)

    def _set(self, values: Sequence[Tensor]) -> None:
        for buffer, value in zip(self.buffers, values, strict=True):
            buffer.data.copy_(value)  # through .data: backward passes still to come do not notice


def _concatenate(outputs: Sequence[NetworkOutput]) -> NetworkOutput:
    """Concatenate outputs along the batch; maps that are one tensor under two names stay one."""
    concatenated: dict[int, Tensor] = {}

    def concatenate_once(maps: Sequence[Tensor]) -> Tensor:
        if id(maps[0]) not in concatenated:
            concatenated[id(maps[0])] = torch.cat(list(maps))
        return concatenated[id(maps[0])]

    names = outputs[0].features
    features = {name: concatenate_once([output.features[name] for output in outputs]) for name in names}
    return NetworkOutput(concatenate_once([output.logits for output in outputs]), features, outputs[0].align_corners)
