"""Pair-wise distillation against values by hand, the direct form and the authors' values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.check_part.steps import make_step_from_maps
from segkd.errors import UserError
from segkd.losses import pairwise
from segkd.losses.pairwise import Pairwise, compute_sum_squared_difference
from segkd.types import FeatureInfo


def normalize(maps: Tensor) -> Tensor:
    return F.normalize(maps.flatten(2), dim=1)


def sum_directly(student: Tensor, teacher: Tensor) -> Tensor:
    """Return Σ (a_ij^student − a_ij^teacher)² over n × n matrices in float64."""
    student, teacher = student.double(), teacher.double()
    return (student.mT @ student - teacher.mT @ teacher).square().sum()


def test_value_by_hand() -> None:
    """2×2 nodes of one pixel: the teacher's are all equal, the student's last is orthogonal to the rest."""
    student = torch.tensor([[1.0, 2.0, 3.0, 0.0], [0.0, 0.0, 0.0, 5.0]]).view(1, 2, 2, 2)
    teacher = torch.tensor([[1.0, 1.0, 1.0, 1.0]]).view(1, 1, 2, 2)
    # Of 16 ordered pairs, the 6 between the last node and another have similarity 0 where the teacher has 1.
    assert Pairwise(node_size=1)(make_step_from_maps(student, teacher)).item() == pytest.approx(6 / 16)


@pytest.mark.parametrize(("pooling", "last"), [("mean", (3.0, 4.0)), ("max", (6.0, 8.0))])
def test_nodes_are_patches(pooling: str, last: tuple[float, float]) -> None:
    """A node's feature is the mean or maximum of its pixels; against a constant teacher, (1 − cos)² by hand."""
    first = torch.tensor([1.0, 0.0]).view(2, 1, 1).expand(2, 2, 2)
    second = torch.tensor([[[6.0, 0.0], [6.0, 0.0]], [[0.0, 8.0], [0.0, 8.0]]])
    student = torch.cat([first, second], 2)[None]
    teacher = torch.ones(1, 1, 2, 4)
    cosine = last[0] / np.hypot(*last)
    value = Pairwise(pooling=pooling)(make_step_from_maps(student, teacher))
    assert value.item() == pytest.approx(2 * (1 - cosine) ** 2 / 4)


@pytest.mark.parametrize(("size", "nodes"), [((4, 6), 2 * 3), ((5, 7), 3 * 4), ((1, 1), 1)])
def test_nodes_cover_the_map(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], nodes: int) -> None:
    """There are ceil(H/2) · ceil(W/2) nodes; the remainder of an odd side is a node too."""
    nodes_seen: list[Tensor] = []
    monkeypatch.setattr(
        pairwise,
        "compute_sum_squared_difference",
        lambda s, t: (nodes_seen.extend((s, t)), compute_sum_squared_difference(s, t))[1],
    )
    Pairwise()(make_step_from_maps(torch.randn(2, 3, *size), torch.randn(2, 4, *size)))
    assert [maps.shape[2] for maps in nodes_seen] == [nodes, nodes]
    torch.testing.assert_close(nodes_seen[0].norm(dim=1), torch.ones(2, nodes))


@pytest.mark.parametrize("channels", [(3, 7), (7, 3), (40, 6)])
def test_both_forms_are_equal(channels: tuple[int, int]) -> None:
    """More nodes than channels or fewer: the same value and gradient."""
    for side in (4, 6):
        student, teacher = (normalize(torch.randn(2, c, side, side)) for c in channels)
        student.requires_grad_()
        values = compute_sum_squared_difference(student, teacher), sum_directly(student, teacher)
        torch.testing.assert_close(values[0], values[1].float())
        gradients = [torch.autograd.grad(value, student)[0] for value in values]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("distance", [1.0, 1e-2, 1e-4])
def test_both_forms_are_equal_at_any_shape(distance: float) -> None:
    """More nodes than channels, at different distances of student and teacher: value and gradient to five digits."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        batch, channels, extra = rng.integers(1, 4), rng.integers(2, 12), rng.integers(1, 40)
        teacher = torch.randn(batch, channels, channels + extra)
        student = F.normalize(teacher + distance * torch.randn_like(teacher), dim=1).requires_grad_()
        teacher = F.normalize(teacher, dim=1)
        values = compute_sum_squared_difference(student, teacher), sum_directly(student, teacher)
        assert values[0].item() == pytest.approx(values[1].item(), rel=1e-5)
        gradient, expected = (torch.autograd.grad(value, student)[0] for value in values)
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


def test_channel_matrices_need_float64() -> None:
    """Features that differ by 0.1 %: the identity's terms are a hundred million times the value, float32 has seven digits."""
    features = torch.relu(torch.randn(1, 128, 33, 33) + 2)
    student, teacher = normalize(features * (1 + 0.001 * torch.randn_like(features))), normalize(features)
    expected = sum_directly(student, teacher).item()
    assert compute_sum_squared_difference(student, teacher).item() == pytest.approx(expected, rel=1e-5)
    ss, tt, st = ((a @ b.mT).square().sum() for a, b in ((student, student), (teacher, teacher), (student, teacher)))
    assert (ss + tt - 2 * st).item() != pytest.approx(expected, rel=0.1)


def test_norms_do_not_matter() -> None:
    features = torch.randn(2, 6, 8, 10)
    assert Pairwise()(make_step_from_maps(7 * features, features)) < 1e-9
    stretched = features * torch.tensor([7.0, 1, 1, 1, 1, 1]).view(1, 6, 1, 1)
    assert Pairwise()(make_step_from_maps(stretched, features)) > 1e-3


def test_padded_nodes_are_ignored() -> None:
    student, teacher = torch.randn(2, 3, 6, 8), torch.randn(2, 5, 6, 8)
    valid = torch.ones(2, 48, 64, dtype=torch.bool)
    valid[..., 32:] = False
    padded = make_step_from_maps(student, teacher, valid=valid)
    inside = Pairwise()(make_step_from_maps(student[..., :4], teacher[..., :4]))
    torch.testing.assert_close(Pairwise()(padded), inside)
    assert not torch.isclose(Pairwise()(make_step_from_maps(student, teacher)), inside)


def test_gradient_flows_through_the_norm() -> None:
    """The cosine does not change along a feature, so the gradient is orthogonal to it."""
    student = torch.randn(1, 4, 3, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(
        Pairwise(node_size=1)(make_step_from_maps(student, torch.randn(1, 4, 3, 3))), student
    )
    assert gradient.norm() > 1e-3
    torch.testing.assert_close((gradient * student).sum(1), torch.zeros(1, 3, 3), rtol=0, atol=1e-6)


def test_missing_feature_is_refused() -> None:
    with pytest.raises(UserError, match="the student has no feature 'encoder'; it has kd_logits"):
        Pairwise().setup({"kd_logits": FeatureInfo(3, 8)}, {"encoder": FeatureInfo(3, 8)})


# The authors' cases with square nodes: (case, fraction of the side, side of a node in pixels).
SQUARE = [("case2", "0.5", 16), ("case2", "0.25", 8), ("case2", "0.125", 4)]
SQUARE += [("case3", "0.5", 4), ("case3", "0.25", 2), ("case3", "0.125", 1)]


@pytest.mark.published
@pytest.mark.parametrize(("case", "scale", "node"), [*SQUARE, ("direct", "", 1)])
def test_values_equal_the_authors(published_files: Path, case: str, scale: str, node: int) -> None:
    """Values are equal; the authors hold the norm constant, so this is their gradient without its component along the feature."""
    golden = np.load(published_files / "golden" / "skd_pairwise.npz")
    prefix = f"{case}_scale{scale}_" if scale else f"{case}_"
    student, teacher = (torch.from_numpy(golden[f"{case}_{name}"]).double() for name in "ST")
    student.requires_grad_()

    def pool_gradient(gradient: Tensor) -> Tensor:
        """Return the gradient of each node's feature, which max pooling passes to one pixel of the patch per channel."""
        return F.avg_pool2d(gradient, node, node, ceil_mode=True, divisor_override=1)

    def compute_value(loss: Pairwise) -> Tensor:
        return loss(make_step_from_maps(student, teacher))

    value = compute_value(Pairwise(node_size=node, pooling="max"))
    expected = float(golden[f"{prefix}value_f64"])
    assert value.item() == pytest.approx(expected, rel=1e-5)
    if node > 1:
        assert compute_value(Pairwise(node_size=node, pooling="mean")).item() != pytest.approx(expected, rel=1e-2)

    gradient = pool_gradient(torch.autograd.grad(value, student)[0])
    authors_gradient = pool_gradient(torch.from_numpy(golden[f"{prefix}gradS_f64"]))
    feature = F.max_pool2d(student.detach(), node, node, ceil_mode=True)
    nodes = feature[0, 0].numel()
    assert value.item() * nodes / (nodes - 1) != pytest.approx(expected, rel=1e-5)  # a mean without the diagonal
    direction = feature / (feature.norm(dim=1, keepdim=True) + 1e-8)
    expected_gradient = authors_gradient - direction * (direction * authors_gradient).sum(1, keepdim=True)
    # A feature that is zero has no direction; both normalizations then divide by a different constant.
    defined = (feature.norm(dim=1, keepdim=True) > 0).expand_as(feature)
    torch.testing.assert_close(gradient[defined], expected_gradient[defined], rtol=1e-5, atol=1e-8)
    assert not torch.allclose(gradient[defined], authors_gradient[defined], rtol=1e-5, atol=1e-8)
