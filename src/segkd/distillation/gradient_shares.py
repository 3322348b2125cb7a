"""Gradient shares: how much each term of an objective contributes to the gradient of a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from segkd.losses.distributed import global_sum


def compute_gradient_norms(terms: Mapping[str, Tensor], parameters: Iterable[nn.Parameter]) -> dict[str, Tensor]:
    """Return ‖∂ term / ∂ parameters‖ of each term, over all parameters together; zero for a term without gradient.

    It takes one backward pass for each term and no forward pass. The graph and `parameter.grad` stay unchanged.

    Args:
        terms: scalars of one graph.
        parameters: frozen ones are ignored.
    """
    trainable = [p for p in parameters if p.requires_grad]
    return {name: _compute_norm(term, trainable) for name, term in terms.items()}


def compute_gradient_shares(norms: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """Return weight · norm of each term over the sum of them all; zeros where the sum is zero.

    With several processes a norm is the mean of the processes' norms, each over its own images: gradients that cancel in
    the average over processes count too.

    Args:
        norms: of the raw terms.
        weights: by the same names.
    """
    weighted = global_sum(torch.stack([weights[name] * norm for name, norm in norms.items()]))
    total = weighted.sum()
    shares = torch.where(total > 0, weighted / total, 0)
    return dict(zip(norms, shares.unbind(), strict=True))


def _compute_norm(term: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    if not term.requires_grad:
        return torch.zeros_like(term)
    gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    return nn.utils.get_total_norm([gradient for gradient in gradients if gradient is not None]).to(term.device)
