"""The discriminator: its input, sizes, attention and spectral norms."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from segkd.models.discriminator import Discriminator, SelfAttention


@pytest.mark.parametrize("size", [(16, 16), (16, 31), (17, 33), (64, 64), (65, 65)])
def test_maps_of_16_pixels_and_more_are_accepted(size: tuple[int, int]) -> None:
    scores = Discriminator(3, width=8)(torch.rand(2, 3, *size), torch.zeros(2, 3, 8 * size[0], 8 * size[1]))
    assert scores.shape == (2,)
    assert scores.isfinite().all()


def test_smaller_maps_are_refused() -> None:
    with pytest.raises(RuntimeError):
        Discriminator(3, width=8)(torch.rand(1, 3, 15, 16), torch.zeros(1, 3, 120, 128))


@pytest.mark.parametrize(("image_channels", "uses_image"), [(3, True), (0, False)])
def test_score_depends_on_the_image(image_channels: int, uses_image: bool) -> None:
    """Swapping the images changes the scores of equal maps, except in the unconditional discriminator."""
    discriminator = Discriminator(3, width=8, image_channels=image_channels).eval()
    maps = torch.rand(1, 3, 16, 16).expand(2, -1, -1, -1)
    images = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8)
    scores = discriminator(maps, images)
    assert torch.allclose(discriminator(maps, images.flip(0)), scores) == (not uses_image)
    torch.testing.assert_close(discriminator(maps, images.flip(0)), scores.flip(0))


def test_image_is_scaled_to_minus_one_to_one() -> None:
    discriminator = Discriminator(2, width=8).eval()
    inputs: list[torch.Tensor] = []
    discriminator.convolutions[0].register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    images = torch.cat([torch.zeros(1, 3, 20, 20), torch.full((1, 3, 20, 20), 255)]).to(torch.uint8)
    discriminator(torch.rand(2, 2, 16, 16), images)
    assert inputs[0].shape == (2, 5, 16, 16)
    scaled = inputs[0][:, :3]
    torch.testing.assert_close(scaled, torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand_as(scaled))


def test_attention_starts_as_identity_and_matches_pytorch() -> None:
    attention = SelfAttention(16)
    x = torch.randn(2, 16, 5, 7)
    assert torch.equal(attention(x), x)
    torch.nn.init.constant_(attention.gamma, 0.5)
    query, key, value = (layer(x).flatten(2).mT for layer in (attention.query, attention.key, attention.value))
    expected = F.scaled_dot_product_attention(query, key, value, scale=1).mT.view_as(x)
    torch.testing.assert_close(attention(x), x + 0.5 * expected)


def test_convolutions_have_spectral_norm_one() -> None:
    """After enough power iterations; the last convolution and attention are not normalized."""
    discriminator = Discriminator(3, width=8).train()
    for _ in range(200):
        weights = [convolution.weight for convolution in discriminator.convolutions]
    norms = torch.stack([torch.linalg.matrix_norm(weight.flatten(1), 2) for weight in weights])
    torch.testing.assert_close(norms, torch.ones(4), rtol=1e-3, atol=0)
    unnormalized = [
        name for name, _ in discriminator.named_parameters() if "original" not in name and name.endswith("weight")
    ]
    assert len(unnormalized) == 7
