"""Write a file, and check that it computes the network's logits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from segkd.errors import CheckFailed, UserError, get_first_line
from segkd.export.formats import FORMATS
from segkd.export.graph import Graph, Size
from segkd.export.runtimes import Runtime

TOLERANCE = 1e-4
"""Largest difference of logits, relative to the largest logit: float32 sums in another order."""

_UNPOOLING_TRIES = 5


class Difference(NamedTuple):
    """How far a file is from its network."""

    value: float
    """Largest difference of logits, relative to the largest logit; infinite if their shapes differ, or one is not finite."""
    description: str
    """The size of the images, and what differs there."""


def export_and_verify(name: str, graph: Graph, folder: Path, images: Iterable[Tensor], threads: int) -> Runtime:
    """Write a graph to a folder, open the file and compare it with the graph; return the opened file.

    Args:
        name: of the format.
        graph: what to write.
        folder: where to.
        images: calibration images, for int8.
        threads: number of threads of the opened file.

    Raises:
        UserError: the format cannot hold this network, or a package is missing.
        CheckFailed: the file computes something else.
    """
    file_format = FORMATS[name]
    path = folder / file_format.files[0]
    try:
        file_format.write(graph, path, images)
        runtime = file_format.open(path, threads)
        difference = find_max_difference(graph, runtime)
    except (UserError, OSError):
        raise
    except Exception as error:  # exporters and runtimes raise anything
        raise _make_export_error(name, graph, get_first_line(error)[:200]) from None
    if file_format.is_exact and not difference.value <= TOLERANCE:
        raise CheckFailed(f"the {name} file differs from its network {difference.description}; not written")
    return runtime


@torch.no_grad()
def find_max_difference(graph: Graph, runtime: Runtime) -> Difference:
    """Return the largest difference of logits over the graph's `checked_shapes`.

    A network that unpools is given several images of each shape, of which the one with the smallest difference counts: a file
    that computes something else differs on all of them, and a choice between two nearly equal maxima on some.
    """
    tries = _UNPOOLING_TRIES if graph.network.unpools else 1
    differences = []
    for count, size in graph.checked_shapes:
        at_size: list[Difference] = []
        while len(at_size) < tries and not (at_size and at_size[-1].value <= TOLERANCE):
            images = graph.make_example(count, size, seed=len(at_size))
            at_size.append(_compute_difference(graph, runtime, images))
        differences.append(min(at_size, key=_get_value))
    return max(differences, key=_get_value)


def format_size(size: Size) -> str:
    """Return a height and a width for a sentence."""
    return f"{size[0]}×{size[1]}"


def _get_value(difference: Difference) -> float:
    return difference.value


def _compute_difference(graph: Graph, runtime: Runtime, images: Tensor) -> Difference:
    expected, size = graph(images), (images.shape[-2], images.shape[-1])
    try:
        logits = runtime(images)
    except Exception as error:  # a runtime raises anything
        raise RuntimeError(f"at {format_size(size)}: {get_first_line(error)}") from None
    if logits.shape != expected.shape:
        found, right = (format_size((shape[-2], shape[-1])) for shape in (logits.shape, expected.shape))
        return Difference(math.inf, f"at {format_size(size)} by logits of {found} instead of {right}")
    value = ((logits - expected).abs().max() / expected.abs().max()).item()
    description = f"at {format_size(size)} by {value:.1e} of the greatest logit"
    return Difference(math.inf if math.isnan(value) else value, description)


def _make_export_error(name: str, graph: Graph, reason: str) -> UserError:
    network = type(graph.network).__name__
    sizes, cure = "any size", "give size=[HEIGHT,WIDTH] for a file of one size, or take another format"
    if graph.size is not None:
        sizes, cure = format_size(graph.size), "take another format"
    return UserError(f"{network} cannot be exported to {name} for images of {sizes} ({reason}); {cure}")
