"""Dropout by sample seeds, and padding."""

from __future__ import annotations

import pytest
import torch

from segkd.models.layers import SampleDropout2d, draw_uniform, pad_to_multiple, use_sample_seeds


def test_draw_uniform_depends_on_seed_and_salt_alone() -> None:
    seeds = torch.tensor([3, 2**62 + 5, 3])
    numbers = draw_uniform(seeds, 100)
    assert numbers.shape == (3, 100)
    assert torch.equal(numbers[0], numbers[2])
    assert torch.equal(draw_uniform(seeds[1:2], 100)[0], numbers[1])
    assert not torch.equal(numbers[0], numbers[1])
    assert not torch.equal(draw_uniform(seeds, 100, salt=1), numbers)
    assert torch.equal(draw_uniform(seeds, 40), numbers[:, :40])


def test_numbers_of_consecutive_seeds_are_independent() -> None:
    """Means and correlations over 2000 consecutive seeds and two salts are those of chance."""
    numbers = torch.cat([draw_uniform(torch.arange(2000), 4), draw_uniform(torch.arange(2000), 4, salt=1)], 1)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert (numbers.mean(0) - 0.5).abs().max() < 0.03
    assert (torch.corrcoef(numbers.T) - torch.eye(8)).abs().max() < 0.1


def test_dropout_does_not_depend_on_the_batch() -> None:
    layer = SampleDropout2d(0.5).train()
    x = torch.randn(4, 32, 3, 3)
    seeds = torch.tensor([11, 12, 13, 14])
    with use_sample_seeds(seeds):
        together = layer(x)
    for order in ([0, 1], [2, 3], [3, 0, 1]):
        with use_sample_seeds(seeds[order]):
            assert torch.equal(layer(x[order]), together[order])
        assert not torch.equal(layer(x[order]), together[order])  # without seeds, the process's generator draws
    with use_sample_seeds(seeds):
        assert not torch.equal(SampleDropout2d(0.5, salt=1).train()(x), together)


def test_dropout_drops_whole_channels_and_keeps_the_mean() -> None:
    layer = SampleDropout2d(0.25).train()
    with use_sample_seeds(torch.arange(500)):
        out = layer(torch.ones(500, 16, 2, 2))
    assert torch.equal(out, out[..., :1, :1].expand_as(out))
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert out.mean().item() == pytest.approx(1, abs=0.02)


def test_dropout_is_identity_in_evaluation_and_at_zero() -> None:
    x = torch.randn(2, 8, 3, 3)
    with use_sample_seeds(torch.arange(2)):
        assert torch.equal(SampleDropout2d(0.5).eval()(x), x)
        assert torch.equal(SampleDropout2d(0.0).train()(x), x)


def test_seeds_are_reset_after_an_error() -> None:
    layer = SampleDropout2d(0.5).train()
    with pytest.raises(ZeroDivisionError), use_sample_seeds(torch.tensor([1, 2])):
        raise ZeroDivisionError
    assert layer(torch.ones(5, 4, 1, 1)).shape[0] == 5  # five samples, with two seeds it would fail


@pytest.mark.parametrize(("size", "padded_size"), [((8, 16), (8, 16)), ((1, 9), (8, 16)), ((7, 15), (8, 16))])
def test_pad_to_multiple(size: tuple[int, int], padded_size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size) + 1
    padded = pad_to_multiple(x, 8)
    assert padded.shape == (2, 3, *padded_size)
    assert torch.equal(padded[..., : size[0], : size[1]], x)
    assert padded.sum() == pytest.approx(x.sum())
