"""Pixel-wise distillation against values by hand, PyTorch's own and the authors'."""

from __future__ import annotations

from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.check_part.steps import make_step, make_step_from_maps
from segkd.errors import UserError
from segkd.losses.pixelwise import Pixelwise
from segkd.types import IGNORE_INDEX, FeatureInfo


def test_value_by_hand() -> None:
    """Teacher (3/4, 1/4), student (1/2, 1/2)."""
    teacher = torch.tensor([log(3), 0.0]).view(1, 2, 1, 1)
    divergence = 3 / 4 * log(3 / 2) + 1 / 4 * log(1 / 2)
    assert Pixelwise()(make_step_from_maps(torch.zeros(1, 2, 1, 1), teacher)).item() == pytest.approx(divergence)
    # Logits twice as large at temperature 2 have the same probabilities; the factor is T².
    assert Pixelwise(temperature=2)(make_step_from_maps(torch.zeros(1, 2, 1, 1), 2 * teacher)).item() == pytest.approx(
        4 * divergence
    )


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_value_is_the_mean_divergence_of_the_pixels(temperature: float) -> None:
    student, teacher = torch.randn(2, 5, 7, 9), torch.randn(2, 5, 7, 9)
    value = Pixelwise(temperature=temperature)(make_step_from_maps(student, teacher))

    def compute_mean(axis: int) -> Tensor:
        p, q = ((maps.movedim(axis, -1) / temperature).flatten(0, 2) for maps in (teacher, student))
        return F.kl_div(q.log_softmax(1), p.softmax(1), reduction="batchmean")  # the batch is the pixels

    torch.testing.assert_close(value, temperature**2 * compute_mean(1))
    assert not torch.isclose(value, temperature**2 * compute_mean(3), rtol=0.05)
    if temperature != 1:
        assert not torch.isclose(value, compute_mean(1), rtol=0.05)


def test_padding_is_ignored_and_void_counts_unless_masked() -> None:
    student, teacher = torch.randn(1, 3, 4, 6), torch.randn(1, 3, 4, 6)
    valid = torch.ones(1, 4, 6, dtype=torch.bool)
    valid[..., 4:] = False
    target = torch.zeros(1, 4, 6, dtype=torch.int64)
    target[:, 2:] = IGNORE_INDEX
    step = make_step_from_maps(student, teacher, valid=valid, target=target)
    inside = make_step_from_maps(student[..., :4], teacher[..., :4])
    labeled = make_step_from_maps(student[:, :, :2, :4], teacher[:, :, :2, :4])
    torch.testing.assert_close(Pixelwise()(step), Pixelwise()(inside))
    torch.testing.assert_close(Pixelwise(mask_void=True)(step), Pixelwise()(labeled))
    assert not torch.isclose(Pixelwise()(inside), Pixelwise()(labeled))


def test_mask_is_downsampled_to_the_map() -> None:
    """At 1/8 the right half of the image is padding: the map's right half does not count."""
    student, teacher = torch.randn(1, 3, 4, 6), torch.randn(1, 3, 4, 6)
    valid = torch.ones(1, 32, 48, dtype=torch.bool)
    valid[..., 24:] = False
    value = Pixelwise()(make_step_from_maps(student, teacher, valid=valid))
    torch.testing.assert_close(value, Pixelwise()(make_step_from_maps(student[..., :3], teacher[..., :3])))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 20.0])
def test_gradient_is_finite_at_extreme_logits(temperature: float) -> None:
    student = torch.tensor([50.0, -50.0, 0.0]).view(1, 3, 1, 1).requires_grad_()
    value = Pixelwise(temperature=temperature)(make_step_from_maps(student, -student.detach()))
    (gradient,) = torch.autograd.grad(value, student)
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


def test_default_weight_is_10_over_the_number_of_classes() -> None:
    features = {"kd_logits": FeatureInfo(19, 8)}
    default, explicit = Pixelwise(), Pixelwise(weight=3.0)
    default.setup(features, features)
    explicit.setup(features, features)
    assert default.weight == pytest.approx(10 / 19)
    assert explicit.weight == 3


def test_unfit_features_are_refused() -> None:
    with pytest.raises(UserError, match="has 19 channels, and the teacher has 11 classes"):
        Pixelwise().setup({"kd_logits": FeatureInfo(19, 8)}, {"kd_logits": FeatureInfo(11, 8)})
    with pytest.raises(UserError, match="the student has no feature 'middle'; it has kd_logits, encoder"):
        Pixelwise(feature="middle").setup(
            {"kd_logits": FeatureInfo(2, 8), "encoder": FeatureInfo(9, 8)}, {"kd_logits": FeatureInfo(2, 8)}
        )


def test_teacher_is_represented_by_its_logits() -> None:
    """Its feature of the same name is ignored, and may be missing."""
    loss = Pixelwise(feature="middle")
    loss.setup({"middle": FeatureInfo(5, 8)}, {"kd_logits": FeatureInfo(5, 8)})
    step = make_step()
    middle = step.student.features["kd_logits"]
    student = step.student._replace(features={"middle": middle})
    teacher = step.teacher._replace(
        features={"middle": torch.full_like(middle, 9.0), "kd_logits": torch.zeros_like(middle)}
    )
    other = make_step(seed=1).teacher.logits
    plain = Pixelwise()(step)
    assert loss(step._replace(student=student, teacher=teacher)) == plain
    assert loss(step._replace(student=student, teacher=teacher._replace(logits=other))) != plain


@pytest.mark.published
@pytest.mark.parametrize("case", range(4))
def test_values_equal_the_authors(published_files: Path, case: int) -> None:
    """The authors sum cross-entropies over the batch: theirs = N · (this + the teacher's entropy), gradient N · this."""
    golden = np.load(published_files / "golden" / "skd_pixelwise.npz")
    student, teacher = (torch.from_numpy(golden[f"case{case}_{name}"]).double() for name in "ST")
    student.requires_grad_()
    entropy = -(teacher.softmax(1) * teacher.log_softmax(1)).sum(1).mean()
    value = Pixelwise()(make_step_from_maps(student, teacher))
    (gradient,) = torch.autograd.grad(value, student)

    def compare(batch: int, constant: Tensor | float, gradient: Tensor) -> tuple[bool, bool]:
        expected = golden[f"case{case}_value_f64"], golden[f"case{case}_gradS_f64"]
        values = (batch * (value + constant)).detach(), batch * gradient
        equal = [np.allclose(a, b, rtol=1e-5, atol=1e-8) for a, b in zip(values, expected, strict=True)]
        return equal[0], equal[1]

    batch = len(student)
    assert compare(batch, entropy, gradient) == (True, True)
    assert compare(batch, 0.0, gradient) == (False, True)
    assert compare(batch + 1, entropy, gradient) == (False, False)
    along_rows = Pixelwise()(make_step_from_maps(student.mT.transpose(1, 2), teacher.mT.transpose(1, 2)))
    assert not compare(batch, entropy, torch.autograd.grad(along_rows, student)[0])[1]
