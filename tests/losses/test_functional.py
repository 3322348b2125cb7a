"""The functional losses without a mask, and the examples in the docstrings of the loss classes."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from typing import Any

import pytest
import torch

from segkd.config.instantiate import resolve_target
from segkd.losses import functional
from segkd.types import FeatureInfo
from tests.helpers.losses import SPECS
from tests.helpers.steps import make_step

FUNCTIONS = (
    functional.pixelwise_kl,
    functional.channelwise_kl,
    functional.pairwise_affinity_loss,
    functional.local_affinity_loss,
    functional.attention_loss,
)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_without_a_mask_every_position_counts(function: Callable[..., torch.Tensor]) -> None:
    student, teacher = torch.randn(2, 5, 6, 8), torch.randn(2, 5, 6, 8)
    valid = torch.ones(2, 48, 64, dtype=torch.bool)
    value = function(student, teacher)
    assert value == function(student, teacher, valid)
    valid[:, :, 32:] = False
    assert value != function(student, teacher, valid)


@pytest.mark.parametrize("name", SPECS)
def test_example_in_the_docstring_runs(name: str) -> None:
    kind = resolve_target(SPECS[name]["_target_"])
    step = make_step()
    infos = {key: FeatureInfo(maps.shape[1], 8) for key, maps in step.student.features.items()}
    step = step._replace(
        teacher=step.student._replace(features={k: v.detach() for k, v in step.student.features.items()})
    )
    names: dict[str, Any] = {kind.__name__: kind, "step": step, "features": infos}
    (test,) = doctest.DocTestFinder(recurse=False).find(kind, kind.__name__, globs=names)
    assert test.examples, f"{kind.__name__} has no example"
    assert "Shape:" in kind.__doc__
    assert doctest.DocTestRunner().run(test).failed == 0
