"""The critic's game against the authors' values. What their critic does otherwise than ours stands here, the rest is ours."""

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
from segkd.distillation.adversary import Adversary, GANLoss, Hinge, Wasserstein
from segkd.models.discriminator import Discriminator
from segkd.types import Step
from tests.helpers.steps import make_step_from_maps

pytestmark = pytest.mark.published

RENAMED = {f"l{i + 1}.0.module.weight_bar": f"convolutions.{i}.parametrizations.weight.original" for i in range(4)}
RENAMED |= {f"l{i + 1}.0.module.bias": f"convolutions.{i}.bias" for i in range(4)}
RENAMED |= {
    f"attn{i}.{theirs}": f"attentions.{i + 1}.{name}"
    for i in (1, 2)
    for theirs, name in [("gamma", "gamma")]
    + [(f"{n}_conv.{kind}", f"{n}.{kind}") for n in ("query", "key", "value") for kind in ("weight", "bias")]
}
RENAMED |= {"last.0.weight": "last.weight", "last.0.bias": "last.bias"}


class Overwritten(nn.Module):
    """The authors' spectral norm: its vectors change behind autograd's back, so earlier calls' gradients have the last ones."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.register_buffer("_u", norm._u)
        self.register_buffer("_v", norm._v)

    def forward(self, weight: Tensor) -> Tensor:
        return weight / self._u.dot(weight.flatten(1).mv(self._v))


class Authors(nn.Module):
    """Our critic with the authors' habits: BatchNorm before it, a power iteration in every call, a call for each side."""

    def __init__(self, told: dict[str, Any], overwriting: bool = False) -> None:
        super().__init__()
        weights = drawn(told)
        self.critic = Discriminator(5, image_channels=0)
        self.norms: list[Any] = [c.parametrizations.weight for c in self.critic.convolutions]
        self.scale, self.shift = (nn.Parameter(weights[f"preprocess_additional.{k}"]) for k in ("weight", "bias"))
        self.running = torch.zeros(5).double(), torch.ones(5).double()
        self.in_training = True
        with torch.no_grad():
            for theirs, name in RENAMED.items():
                self.critic.get_parameter(name).copy_(weights[theirs])
            for i, norm in enumerate(self.norms):
                norm[0]._u.copy_(weights[f"l{i + 1}.0.module.weight_u"])
        if overwriting:
            for norm in self.norms:
                norm[0] = Overwritten(norm[0])
        self.double()

    def forward(self, maps: Tensor, images: Tensor) -> Tensor:
        return torch.cat([self.once(half, images) for half in maps.split(2)])

    def once(self, maps: Tensor, images: Tensor) -> Tensor:
        for norm in self.norms:
            matrix = norm.original.detach().flatten(1)
            norm[0]._v.data.copy_(F.normalize(matrix.T @ norm[0]._u, dim=0))
            norm[0]._u.data.copy_(F.normalize(matrix @ norm[0]._v, dim=0))
        levelled = F.batch_norm(maps, *self.running, self.scale, self.shift, training=self.in_training)
        scores: Tensor = self.critic.eval()(levelled, images)
        return scores


def drawn(told: dict[str, Any]) -> dict[str, Tensor]:
    """The authors' parameters, drawn as the record says."""
    random = np.random.RandomState(2024)
    found = {}
    for name, shape, _ in told["parameter_names_shapes_sorted"]:
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
        found[name] = torch.from_numpy(n.astype(np.float32))
    digest = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in found.values())).hexdigest()
    assert digest == told["sha256_of_concatenated_float32_params_sorted"]
    return found


class Raw(Adversary):
    """The authors' critic reads scores, not probabilities."""

    def _maps(self, step: Step) -> tuple[Tensor, Tensor]:
        assert step.teacher is not None
        return step.student.logits, step.teacher.logits


class Game:
    """The authors' record, their inputs, and a fresh game with their critic."""

    def __init__(self, published_files: Path) -> None:
        self.golden = np.load(published_files / "golden" / "skd_gan.npz")
        self.told = json.loads((published_files / "golden" / "skd_golden.json").read_text())["skd_gan.npz"]
        student, teacher = (torch.from_numpy(self.golden[name]).double() for name in "ST")
        self.step = make_step_from_maps(student.requires_grad_(), teacher)

    def fresh(self, form: GANLoss, overwriting: bool = False, **options: Any) -> Raw:
        return Raw(Authors(self.told, overwriting), form, **options)

    def value(self, name: str) -> float:
        return float(self.golden[f"{name}_f64"])

    def differing(self, critic: Authors, what: str, factor: float) -> list[str]:
        """Parameters whose gradient is not `factor` times the authors', by its norm or its first numbers."""
        norms = self.told[f"{what}_param_grad_norms_f64"]
        found = []
        for theirs, norm in norms.items():
            if theirs.startswith("preprocess_additional"):
                gradient = (critic.scale if theirs.endswith("weight") else critic.shift).grad
            else:
                gradient = critic.critic.get_parameter(RENAMED[theirs]).grad
            assert gradient is not None
            head = gradient.flatten()[:32] * factor
            equal = np.allclose(head, self.golden[f"{what}_grad_{theirs}_head_f64"], rtol=1e-5, atol=1e-8)
            if not (equal and np.isclose(gradient.norm() * factor, norm, rtol=1e-5, atol=1e-8)):
                found.append(theirs)
        return found


@pytest.fixture
def game(published_files: Path, monkeypatch: pytest.MonkeyPatch) -> Game:
    made = Game(published_files)
    alpha = torch.from_numpy(made.golden["alpha"]).flatten(1)
    monkeypatch.setattr(segkd.distillation.adversary, "draw_uniform", lambda *_, **__: alpha)
    return made


def close(value: Tensor, expected: float) -> bool:
    return value.item() == pytest.approx(expected, rel=1e-5)


def test_authors_critic(game: Game) -> None:
    critic = game.fresh(Wasserstein()).discriminator
    assert game.step.teacher is not None
    teacher, student, images = game.step.teacher.logits, game.step.student.logits, game.step.batch.images
    for call, maps in (("1_T", teacher), ("2_T", teacher), ("3_S", student)):
        scores = critic(maps, images).detach().numpy()
        expected = game.golden[f"D_train_call{call}_f64"].flatten()
        np.testing.assert_allclose(scores, expected, rtol=1e-5)
        assert not np.allclose(scores[::-1], expected, rtol=1e-3)
    np.testing.assert_allclose(critic.norms[0][0]._u, game.golden["u_l1_after3_f64"], rtol=1e-5)
    critic = game.fresh(Wasserstein()).discriminator
    critic.in_training = False
    np.testing.assert_allclose(critic(teacher, images).detach(), game.golden["D_eval_call1_T_f64"].flatten(), rtol=1e-5)


def test_authors_penalty(game: Game) -> None:
    """Theirs holds the weight 10, and is the first call of a fresh critic."""
    adversary = game.fresh(Wasserstein())
    assert game.step.teacher is not None
    real, fake = game.step.teacher.logits, game.step.student.logits.detach()
    penalty = 10 * adversary._gradient_norms(real, fake, game.step).sub(1).square().mean()
    assert close(penalty, game.value("gp_value"))
    penalty.backward()
    critic = adversary.discriminator
    silent = critic.critic.last.bias
    assert silent.grad is None  # no slope depends on it, and the authors' record has no gradient of it
    assert game.differing(critic, "gp", 1) == []
    assert game.differing(critic, "gp", 1.001) != []
    assert not close(
        10 * game.fresh(Wasserstein())._gradient_norms(fake, real, game.step).sub(1).square().mean(),
        game.value("gp_value"),
    )


@pytest.mark.parametrize(("form", "name"), [(Wasserstein, "wgan-gp"), (Hinge, "hinge")])
def test_authors_critic_loss(game: Game, form: Callable[[], GANLoss], name: str) -> None:
    """Theirs is scaled by λ_d = 0.1; and their spectral norm has wrong gradients where the critic is called more than once."""

    def differing(overwriting: bool, factor: float) -> list[str]:
        adversary = game.fresh(form(), overwriting)
        loss, terms = adversary.discriminator_loss(game.step)
        assert close(0.1 * loss, game.value(f"step_total_{name}"))
        assert not close(loss, game.value(f"step_total_{name}"))
        slope = 10 * terms.get("discriminator/penalty", torch.tensor(0.0))
        assert close(loss - slope, game.value(f"step_adv_{name}"))
        if adversary.form.gradient_penalty_weight:
            assert close(slope, game.value("step_gp"))
        loss.backward()
        return game.differing(adversary.discriminator, f"step_{name}", factor)

    assert differing(overwriting=True, factor=0.1) == []
    assert sorted(differing(overwriting=False, factor=0.1)) == [f"l{i}.0.module.weight_bar" for i in range(1, 5)]
    assert "last.0.weight" in differing(overwriting=True, factor=1)


def test_authors_student_loss(game: Game) -> None:
    """−mean D(student), before the weight."""
    loss, terms = game.fresh(Wasserstein(), weight=1).student_loss(game.step)
    assert close(loss, game.value("g_adv_value"))
    assert terms["adversarial"] == loss
    (gradient,) = torch.autograd.grad(loss, game.step.student.logits)
    expected = game.golden["g_adv_gradS_f64"]
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-8)
    assert not np.allclose(2 * gradient, expected, rtol=1e-5, atol=1e-8)
