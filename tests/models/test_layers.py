"""Randomness that belongs to the sample."""

from __future__ import annotations

import pytest
import torch

from segkd.models.layers import SampleDropout2d, draw_uniform, pad_to_multiple, use_sample_seeds


def test_numbers_follow_from_key_and_salt_alone() -> None:
    keys = torch.tensor([3, 2**62 + 5, 3])
    numbers = draw_uniform(keys, 100)
    assert numbers.shape == (3, 100)
    assert torch.equal(numbers[0], numbers[2])
    assert torch.equal(draw_uniform(keys[1:2], 100)[0], numbers[1])
    assert not torch.equal(numbers[0], numbers[1])
    assert not torch.equal(draw_uniform(keys, 100, salt=1), numbers)
    assert torch.equal(draw_uniform(keys, 40), numbers[:, :40])


def test_numbers_are_uniform_over_keys_that_follow_each_other() -> None:
    """Neighbouring keys and salts draw independently: means and correlations of 2000 rows are those of chance."""
    numbers = torch.cat([draw_uniform(torch.arange(2000), 4), draw_uniform(torch.arange(2000), 4, salt=1)], 1)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert (numbers.mean(0) - 0.5).abs().max() < 0.03
    assert (torch.corrcoef(numbers.T) - torch.eye(8)).abs().max() < 0.1


def test_dropout_is_equal_whatever_the_batch() -> None:
    layer = SampleDropout2d(0.5).train()
    x = torch.randn(4, 32, 3, 3)
    keys = torch.tensor([11, 12, 13, 14])
    with use_sample_seeds(keys):
        together = layer(x)
    for order in ([0, 1], [2, 3], [3, 0, 1]):
        with use_sample_seeds(keys[order]):
            assert torch.equal(layer(x[order]), together[order])
        assert not torch.equal(layer(x[order]), together[order])  # without keys the process draws
    with use_sample_seeds(keys):
        assert not torch.equal(SampleDropout2d(0.5, salt=1).train()(x), together)


def test_dropout_drops_whole_channels_and_keeps_the_mean() -> None:
    layer = SampleDropout2d(0.25).train()
    with use_sample_seeds(torch.arange(500)):
        out = layer(torch.ones(500, 16, 2, 2))
    assert torch.equal(out, out[..., :1, :1].expand_as(out))
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert out.mean().item() == pytest.approx(1, abs=0.02)


def test_dropout_rests_in_evaluation_and_at_zero() -> None:
    x = torch.randn(2, 8, 3, 3)
    with use_sample_seeds(torch.arange(2)):
        assert torch.equal(SampleDropout2d(0.5).eval()(x), x)
        assert torch.equal(SampleDropout2d(0.0).train()(x), x)


def test_keys_end_with_their_block() -> None:
    layer = SampleDropout2d(0.5).train()
    with pytest.raises(ZeroDivisionError), use_sample_seeds(torch.tensor([1, 2])):
        raise ZeroDivisionError
    assert layer(torch.ones(5, 4, 1, 1)).shape[0] == 5  # five samples, with two keys it would fail


@pytest.mark.parametrize(("size", "filled"), [((8, 16), (8, 16)), ((1, 9), (8, 16)), ((7, 15), (8, 16))])
def test_sides_become_multiples(size: tuple[int, int], filled: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size) + 1
    whole = pad_to_multiple(x, 8)
    assert whole.shape == (2, 3, *filled)
    assert torch.equal(whole[..., : size[0], : size[1]], x)
    assert whole.sum() == pytest.approx(x.sum())
