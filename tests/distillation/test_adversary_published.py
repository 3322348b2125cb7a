"""The adversarial losses against the authors' values; where their discriminator differs from ours is written here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import segkd.distillation.adversary
from segkd.check_part.steps import make_step_from_maps
from segkd.distillation.adversary import Adversary, GANLoss, Hinge, Wasserstein
from segkd.models.discriminator import Discriminator
from segkd.types import Step

pytestmark = pytest.mark.published

RENAMED = {f"l{i + 1}.0.module.weight_bar": f"convolutions.{i}.parametrizations.weight.original" for i in range(4)}
RENAMED |= {f"l{i + 1}.0.module.bias": f"convolutions.{i}.bias" for i in range(4)}
RENAMED |= {
    f"attn{i}.{authors_name}": f"attentions.{i + 1}.{name}"
    for i in (1, 2)
    for authors_name, name in [("gamma", "gamma")]
    + [(f"{n}_conv.{kind}", f"{n}.{kind}") for n in ("query", "key", "value") for kind in ("weight", "bias")]
}
RENAMED |= {"last.0.weight": "last.weight", "last.0.bias": "last.bias"}


class OverwritingNorm(nn.Module):
    """The authors' spectral norm: it changes its vectors unnoticed by autograd, so gradients of earlier calls use the last ones."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.register_buffer("_u", norm._u)
        self.register_buffer("_v", norm._v)

    def forward(self, weight: Tensor) -> Tensor:
        return weight / self._u.dot(weight.flatten(1).mv(self._v))


class AuthorsDiscriminator(nn.Module):
    """Our discriminator as the authors run it: with BatchNorm first, a power iteration in every call, a call for each network."""

    def __init__(self, record: dict[str, Any], overwriting: bool = False) -> None:
        super().__init__()
        weights = draw_weights(record)
        self.network = Discriminator(5, image_channels=0)
        self.norms: list[Any] = [c.parametrizations.weight for c in self.network.convolutions]
        self.scale, self.shift = (nn.Parameter(weights[f"preprocess_additional.{k}"]) for k in ("weight", "bias"))
        self.running = torch.zeros(5).double(), torch.ones(5).double()
        self.in_training = True
        with torch.no_grad():
            for authors_name, name in RENAMED.items():
                self.network.get_parameter(name).copy_(weights[authors_name])
            for i, norm in enumerate(self.norms):
                norm[0]._u.copy_(weights[f"l{i + 1}.0.module.weight_u"])
        if overwriting:
            for norm in self.norms:
                norm[0] = OverwritingNorm(norm[0])
        self.double()

    def forward(self, maps: Tensor, images: Tensor) -> Tensor:
        return torch.cat([self.forward_once(half, images) for half in maps.split(2)])

    def forward_once(self, maps: Tensor, images: Tensor) -> Tensor:
        for norm in self.norms:
            matrix = norm.original.detach().flatten(1)
            norm[0]._v.data.copy_(F.normalize(matrix.T @ norm[0]._u, dim=0))
            norm[0]._u.data.copy_(F.normalize(matrix @ norm[0]._v, dim=0))
        normalized = F.batch_norm(maps, *self.running, self.scale, self.shift, training=self.in_training)
        scores: Tensor = self.network.eval()(normalized, images)
        return scores


def draw_weights(record: dict[str, Any]) -> dict[str, Tensor]:
    """Draw the authors' parameters as their record says."""
    random = np.random.RandomState(2024)
    weights = {}
    for name, shape, _ in record["parameter_names_shapes_sorted"]:
        n = random.standard_normal(shape)
        if name.endswith(("_u", "_v")):
            n = n / np.linalg.norm(n)
        elif name.endswith("gamma"):
            n = np.full(shape, 0.5)
        elif name == "preprocess_additional.weight":
            n = 1 + 0.1 * n
        elif name.endswith("bias") or name.startswith("last."):
            n = 0.05 * n
        else:
            n = (0.03 if name.startswith("attn") else 0.02) * n
        weights[name] = torch.from_numpy(n.astype(np.float32))
    digest = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in weights.values())).hexdigest()
    assert digest == record["sha256_of_concatenated_float32_params_sorted"]
    return weights


class LogitsAdversary(Adversary):
    """The authors' discriminator takes logits, not probabilities."""

    def _select_maps(self, step: Step) -> tuple[Tensor, Tensor]:
        assert step.teacher is not None
        return step.student.logits, step.teacher.logits


class AuthorsGame:
    """The authors' record, their inputs, and fresh copies of their discriminator."""

    def __init__(self, published_files: Path) -> None:
        self.golden = np.load(published_files / "golden" / "skd_gan.npz")
        self.record = json.loads((published_files / "golden" / "skd_golden.json").read_text())["skd_gan.npz"]
        student, teacher = (torch.from_numpy(self.golden[name]).double() for name in "ST")
        self.step = make_step_from_maps(student.requires_grad_(), teacher)

    def make_adversary(self, gan_loss: GANLoss, overwriting: bool = False, **options: Any) -> LogitsAdversary:
        return LogitsAdversary(AuthorsDiscriminator(self.record, overwriting), gan_loss, **options)

    def get_value(self, name: str) -> float:
        return float(self.golden[f"{name}_f64"])

    def list_different(self, discriminator: AuthorsDiscriminator, prefix: str, factor: float) -> list[str]:
        """Return the parameters whose gradient differs from `1/factor` times the authors' in its norm or first numbers."""
        norms = self.record[f"{prefix}_param_grad_norms_f64"]
        different = []
        for name, norm in norms.items():
            if name.startswith("preprocess_additional"):
                gradient = (discriminator.scale if name.endswith("weight") else discriminator.shift).grad
            else:
                gradient = discriminator.network.get_parameter(RENAMED[name]).grad
            assert gradient is not None
            head = gradient.flatten()[:32] * factor
            equal = np.allclose(head, self.golden[f"{prefix}_grad_{name}_head_f64"], rtol=1e-5, atol=1e-8)
            if not (equal and np.isclose(gradient.norm() * factor, norm, rtol=1e-5, atol=1e-8)):
                different.append(name)
        return different


@pytest.fixture
def game(published_files: Path, monkeypatch: pytest.MonkeyPatch) -> AuthorsGame:
    authors_game = AuthorsGame(published_files)
    alpha = torch.from_numpy(authors_game.golden["alpha"]).flatten(1)
    monkeypatch.setattr(segkd.distillation.adversary, "draw_uniform", lambda *_, **__: alpha)
    return authors_game


def is_close(value: Tensor, expected: float) -> bool:
    return value.item() == pytest.approx(expected, rel=1e-5)


def test_scores_equal_the_authors(game: AuthorsGame) -> None:
    discriminator = game.make_adversary(Wasserstein()).discriminator
    assert game.step.teacher is not None
    teacher, student, images = game.step.teacher.logits, game.step.student.logits, game.step.batch.images
    for call, maps in (("1_T", teacher), ("2_T", teacher), ("3_S", student)):
        scores = discriminator(maps, images).detach().numpy()
        expected = game.golden[f"D_train_call{call}_f64"].flatten()
        np.testing.assert_allclose(scores, expected, rtol=1e-5)
        assert not np.allclose(scores[::-1], expected, rtol=1e-3)
    np.testing.assert_allclose(discriminator.norms[0][0]._u, game.golden["u_l1_after3_f64"], rtol=1e-5)
    discriminator = game.make_adversary(Wasserstein()).discriminator
    discriminator.in_training = False
    np.testing.assert_allclose(
        discriminator(teacher, images).detach(), game.golden["D_eval_call1_T_f64"].flatten(), rtol=1e-5
    )


def test_penalty_equals_the_authors(game: AuthorsGame) -> None:
    """The authors' value includes the weight 10, and is the first call of a fresh discriminator."""
    adversary = game.make_adversary(Wasserstein())
    assert game.step.teacher is not None
    real, fake = game.step.teacher.logits, game.step.student.logits.detach()
    penalty = 10 * adversary._compute_gradient_norms(real, fake, game.step).sub(1).square().mean()
    assert is_close(penalty, game.get_value("gp_value"))
    penalty.backward()
    discriminator = adversary.discriminator
    assert discriminator.network.last.bias.grad is None  # no gradient depends on it, and the record has none
    assert game.list_different(discriminator, "gp", 1) == []
    assert game.list_different(discriminator, "gp", 1.001) != []
    assert not is_close(
        10 * game.make_adversary(Wasserstein())._compute_gradient_norms(fake, real, game.step).sub(1).square().mean(),
        game.get_value("gp_value"),
    )


@pytest.mark.parametrize(("gan_loss", "name"), [(Wasserstein, "wgan-gp"), (Hinge, "hinge")])
def test_discriminator_loss_equals_the_authors(game: AuthorsGame, gan_loss: Callable[[], GANLoss], name: str) -> None:
    """Theirs is scaled by λ_d = 0.1; and their spectral norm has wrong gradients after more than one call."""

    def list_different(overwriting: bool, factor: float) -> list[str]:
        adversary = game.make_adversary(gan_loss(), overwriting)
        loss, terms = adversary.discriminator_loss(game.step)
        assert is_close(0.1 * loss, game.get_value(f"step_total_{name}"))
        assert not is_close(loss, game.get_value(f"step_total_{name}"))
        penalty = 10 * terms.get("discriminator/penalty", torch.tensor(0.0))
        assert is_close(loss - penalty, game.get_value(f"step_adv_{name}"))
        if adversary.gan_loss.gradient_penalty_weight:
            assert is_close(penalty, game.get_value("step_gp"))
        loss.backward()
        return game.list_different(adversary.discriminator, f"step_{name}", factor)

    assert list_different(overwriting=True, factor=0.1) == []
    assert sorted(list_different(overwriting=False, factor=0.1)) == [f"l{i}.0.module.weight_bar" for i in range(1, 5)]
    assert "last.0.weight" in list_different(overwriting=True, factor=1)


def test_student_loss_equals_the_authors(game: AuthorsGame) -> None:
    """−mean D(student), before the weight."""
    loss, terms = game.make_adversary(Wasserstein(), weight=1).student_loss(game.step)
    assert is_close(loss, game.get_value("g_adv_value"))
    assert terms["adversarial"] == loss
    (gradient,) = torch.autograd.grad(loss, game.step.student.logits)
    expected = game.golden["g_adv_gradS_f64"]
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-8)
    assert not np.allclose(2 * gradient, expected, rtol=1e-5, atol=1e-8)
