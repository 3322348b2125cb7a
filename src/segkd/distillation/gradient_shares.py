"""How strongly each term of an objective pulls at a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from segkd.losses.distributed import global_sum


def compute_gradient_norms(terms: Mapping[str, Tensor], parameters: Iterable[nn.Parameter]) -> dict[str, Tensor]:
    """‖∂ term / ∂ parameters‖ of each term, over all parameters together; zero for a term that they do not move.

    One backward pass a term and no forward pass. The graph stays, and so does what parameters hold as their gradient.

    Args:
        terms: scalars of one graph.
        parameters: those that are frozen do not count.
    """
    moved = [p for p in parameters if p.requires_grad]
    return {name: _norm(term, moved) for name, term in terms.items()}


def compute_gradient_shares(norms: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """weight · norm of each term over the sum of them all; zeros where nothing pulls.

    With several processes a norm is the mean of the processes' norms, each of its own images: pulls that the average of the
    gradients cancels do count.

    Args:
        norms: of the raw terms.
        weights: of the same names.
    """
    weighted = global_sum(torch.stack([weights[name] * norm for name, norm in norms.items()]))
    total = weighted.sum()
    fractions = torch.where(total > 0, weighted / total, 0)
    return dict(zip(norms, fractions.unbind(), strict=True))


def _norm(term: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    if not term.requires_grad:
        return torch.zeros_like(term)
    found = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    return nn.utils.get_total_norm([gradient for gradient in found if gradient is not None]).to(term.device)
