"""Which process of a distributed run this is."""

from __future__ import annotations

from lightning_utilities.core.rank_zero import rank_zero_only


def is_rank_zero() -> bool:
    """Return whether this is the first process of all, or the only one; Lightning sets the rank when it is imported."""
    return getattr(rank_zero_only, "rank", None) in (0, None)
