"""Pixel-wise distillation against values by hand, PyTorch's own and the authors'."""

from __future__ import annotations

from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segkd.errors import UserError
from segkd.losses.pixelwise import Pixelwise
from segkd.types import IGNORE_INDEX, FeatureInfo
from tests.helpers.steps import make_step, make_step_from_maps


def test_by_hand() -> None:
    """Teacher (3/4, 1/4), student (1/2, 1/2)."""
    teacher = torch.tensor([log(3), 0.0]).view(1, 2, 1, 1)
    divergence = 3 / 4 * log(3 / 2) + 1 / 4 * log(1 / 2)
    assert Pixelwise()(make_step_from_maps(torch.zeros(1, 2, 1, 1), teacher)).item() == pytest.approx(divergence)
    # Scores twice as large at temperature 2 are the same probabilities; the factor is T².
    assert Pixelwise(temperature=2)(make_step_from_maps(torch.zeros(1, 2, 1, 1), 2 * teacher)).item() == pytest.approx(
        4 * divergence
    )


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_is_the_divergence_of_each_pixel(temperature: float) -> None:
    student, teacher = torch.randn(2, 5, 7, 9), torch.randn(2, 5, 7, 9)
    value = Pixelwise(temperature=temperature)(make_step_from_maps(student, teacher))

    def mean(axis: int) -> Tensor:
        p, q = ((maps.movedim(axis, -1) / temperature).flatten(0, 2) for maps in (teacher, student))
        return F.kl_div(q.log_softmax(1), p.softmax(1), reduction="batchmean")  # the batch is the pixels

    torch.testing.assert_close(value, temperature**2 * mean(1))
    assert not torch.isclose(value, temperature**2 * mean(3), rtol=0.05)
    if temperature != 1:
        assert not torch.isclose(value, mean(1), rtol=0.05)


def test_padded_pixels_do_not_count_and_void_does_unless_masked() -> None:
    student, teacher = torch.randn(1, 3, 4, 6), torch.randn(1, 3, 4, 6)
    valid = torch.ones(1, 4, 6, dtype=torch.bool)
    valid[..., 4:] = False
    target = torch.zeros(1, 4, 6, dtype=torch.int64)
    target[:, 2:] = IGNORE_INDEX
    step = make_step_from_maps(student, teacher, valid=valid, target=target)
    inside = make_step_from_maps(student[..., :4], teacher[..., :4])
    labelled = make_step_from_maps(student[:, :, :2, :4], teacher[:, :, :2, :4])
    torch.testing.assert_close(Pixelwise()(step), Pixelwise()(inside))
    torch.testing.assert_close(Pixelwise(mask_void=True)(step), Pixelwise()(labelled))
    assert not torch.isclose(Pixelwise()(inside), Pixelwise()(labelled))


def test_masks_are_read_where_the_map_has_its_places() -> None:
    """At 1/8 the right half of the image is padding: the map's right half does not count."""
    student, teacher = torch.randn(1, 3, 4, 6), torch.randn(1, 3, 4, 6)
    valid = torch.ones(1, 32, 48, dtype=torch.bool)
    valid[..., 24:] = False
    value = Pixelwise()(make_step_from_maps(student, teacher, valid=valid))
    torch.testing.assert_close(value, Pixelwise()(make_step_from_maps(student[..., :3], teacher[..., :3])))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 20.0])
def test_gradient_is_finite_at_extreme_scores(temperature: float) -> None:
    student = torch.tensor([50.0, -50.0, 0.0]).view(1, 3, 1, 1).requires_grad_()
    value = Pixelwise(temperature=temperature)(make_step_from_maps(student, -student.detach()))
    (gradient,) = torch.autograd.grad(value, student)
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


def test_default_weight_is_ten_over_the_classes() -> None:
    features = {"kd_logits": FeatureInfo(19, 8)}
    by_default, given = Pixelwise(), Pixelwise(weight=3.0)
    by_default.setup(features, features)
    given.setup(features, features)
    assert by_default.weight == pytest.approx(10 / 19)
    assert given.weight == 3


def test_other_classes_or_no_such_tap_are_refused() -> None:
    with pytest.raises(UserError, match="has 19 channels, and the teacher scores 11 classes"):
        Pixelwise().setup({"kd_logits": FeatureInfo(19, 8)}, {"kd_logits": FeatureInfo(11, 8)})
    with pytest.raises(UserError, match="the student has no feature 'middle'; it has scores, encoder"):
        Pixelwise(feature="middle").setup(
            {"kd_logits": FeatureInfo(2, 8), "encoder": FeatureInfo(9, 8)}, {"kd_logits": FeatureInfo(2, 8)}
        )


def test_the_teachers_answer_is_its_logits() -> None:
    """Its feature of the student's name is not read, and need not be there."""
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
def test_authors_values(published_files: Path, case: int) -> None:
    """The authors sum cross-entropies over the batch: theirs = N · (ours + the teacher's entropy), gradient N · ours."""
    golden = np.load(published_files / "golden" / "skd_pixelwise.npz")
    student, teacher = (torch.from_numpy(golden[f"case{case}_{name}"]).double() for name in "ST")
    student.requires_grad_()
    entropy = -(teacher.softmax(1) * teacher.log_softmax(1)).sum(1).mean()
    value = Pixelwise()(make_step_from_maps(student, teacher))
    (gradient,) = torch.autograd.grad(value, student)

    def agree(batch: int, constant: Tensor | float, gradient: Tensor) -> tuple[bool, bool]:
        theirs = golden[f"case{case}_value_f64"], golden[f"case{case}_gradS_f64"]
        ours = (batch * (value + constant)).detach(), batch * gradient
        equal = [np.allclose(a, b, rtol=1e-5, atol=1e-8) for a, b in zip(ours, theirs, strict=True)]
        return equal[0], equal[1]

    batch = len(student)
    assert agree(batch, entropy, gradient) == (True, True)
    assert agree(batch, 0.0, gradient) == (False, True)
    assert agree(batch + 1, entropy, gradient) == (False, False)
    along_rows = Pixelwise()(make_step_from_maps(student.mT.transpose(1, 2), teacher.mT.transpose(1, 2)))
    assert not agree(batch, entropy, torch.autograd.grad(along_rows, student)[0])[1]
