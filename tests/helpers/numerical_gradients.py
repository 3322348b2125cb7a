"""Gradients without autograd."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def compute_numerical_gradient(
    function: Callable[[np.ndarray], float], at: np.ndarray, width: float = 1e-5
) -> np.ndarray:
    """Return the gradient of a function of an array, by central differences."""
    gradient = np.zeros_like(at)
    for index in np.ndindex(*at.shape):
        offset = np.zeros_like(at)
        offset[index] = width
        gradient[index] = (function(at + offset) - function(at - offset)) / (2 * width)
    return gradient
