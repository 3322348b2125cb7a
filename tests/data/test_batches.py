"""Pairs of a user's own loader: what is wrong with them is said, and what is right becomes a batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.data import default_collate

from segkd.data.base import Sample
from segkd.data.batches import check_pair, check_range, make_batch, split_pair
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX, Batch

IMAGES = torch.arange(2 * 3 * 8 * 6, dtype=torch.uint8).view(2, 3, 8, 6)
TARGET = torch.tensor([0, 1, 2, IGNORE_INDEX] * 24).view(2, 8, 6)

FAULTS: dict[str, tuple[Tensor, Tensor, str]] = {
    "channels last": (IMAGES.permute(0, 2, 3, 1), TARGET, r"2×8×6×3, and B×3×H×W .*permute\(0, 3, 1, 2\)"),
    "gray": (IMAGES[:, :1], TARGET, "images are 2×1×8×6"),
    "no batch": (IMAGES[0], TARGET, "images are 3×8×6"),
    "integer images": (IMAGES.long(), TARGET, "images are torch.int64; give uint8 or float"),
    "one-hot target": (IMAGES, TARGET[:, None].expand(2, 3, 8, 6), "the target is 2×3×8×6 of torch.int64"),
    "target with a channel": (IMAGES, TARGET[:, None], r"target\.squeeze\(1\)"),
    "float target": (IMAGES, TARGET.float(), "of torch.float32, and one class index per pixel"),
    "mask": (IMAGES, TARGET == 1, "of torch.bool"),
    "other count": (IMAGES, TARGET[:1], "images are 2×3×8×6 and the target is 1×8×6"),
    "other size": (IMAGES, TARGET[:, :4], "give both the same number and size"),
    "other class": (IMAGES, TARGET + (TARGET == 2), r"the target holds 3; give classes 0\.\.2, and 255"),
    "void of -1": (IMAGES, torch.where(TARGET == IGNORE_INDEX, -1, TARGET), "the target holds -1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(fault: str) -> None:
    images, target, sentence = FAULTS[fault]
    with pytest.raises(UserError, match=sentence):
        check_pair(images, target, 3)


@pytest.mark.parametrize(
    "target", [TARGET, TARGET.to(torch.uint8), TARGET.int(), torch.full_like(TARGET, IGNORE_INDEX)]
)
@pytest.mark.parametrize("images", [IMAGES, IMAGES.float(), IMAGES.half()])
def test_right_pairs_pass(images: Tensor, target: Tensor) -> None:
    check_pair(images, target, 3)


def test_targets_to_be_scored_may_have_another_size() -> None:
    check_pair(IMAGES, TARGET[:, :4], 3, same_size=False)
    with pytest.raises(UserError, match="same number"):
        check_pair(IMAGES, TARGET[:1], 3, same_size=False)


@pytest.mark.parametrize("images", [torch.rand(1, 3, 4, 4), torch.randn(1, 3, 4, 4), 65535 * torch.rand(1, 3, 4, 4)])
def test_scaled_and_normalized_images_are_refused(images: Tensor) -> None:
    with pytest.raises(UserError, match=r"give RGB in 0\.\.255, not scaled or normalized"):
        check_range(images)


@pytest.mark.parametrize("images", [255 * torch.rand(1, 3, 4, 4), torch.ones(1, 3, 4, 4, dtype=torch.uint8)])
def test_images_in_0_to_255_pass(images: Tensor) -> None:
    check_range(images)


@pytest.mark.parametrize(
    ("batch", "sentence"),
    [
        ({"image": IMAGES, "mask": TARGET}, r"a batch is a dict; .* pairs of tensors, \(images, target\)"),
        (IMAGES, "a batch is 2×3×8×6"),
        ((IMAGES, TARGET, "name"), "a tuple of Tensor, Tensor, str"),
        ([IMAGES, [1, 2]], "a list of Tensor, list"),
    ],
)
def test_a_batch_that_is_no_pair_is_described(batch: object, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        split_pair(batch)


def test_every_pixel_of_a_pair_is_valid() -> None:
    batch = make_batch(*split_pair([IMAGES, TARGET.to(torch.uint8)]))
    assert isinstance(batch, Batch)
    assert batch.valid.all()
    assert batch.valid.shape == TARGET.shape
    assert torch.equal(batch.target, TARGET)
    assert batch.target.dtype == batch.seeds.dtype == torch.int64
    assert split_pair(batch) == (batch.images, batch.target)


def test_a_loader_may_stack_samples_of_a_dataset_of_segkd() -> None:
    samples = [
        Sample(image.permute(1, 2, 0).numpy(), target.numpy()) for image, target in zip(IMAGES, TARGET, strict=True)
    ]
    images, target = split_pair(default_collate(samples))
    check_pair(images, target, 3)
    assert torch.equal(images, IMAGES)
    assert torch.equal(target, TARGET)


def test_seeds_follow_from_the_seed_the_step_and_the_process() -> None:
    def draw(seed: int, step: int, rank: int) -> list[int]:
        torch.manual_seed(seed)
        return make_batch(IMAGES, TARGET, step, rank).seeds.tolist()

    cases = [(seed, step, rank) for seed in (0, 1) for step in (0, 1) for rank in (0, 1)]
    drawn = [seed for case in cases for seed in draw(*case)]
    assert drawn == [seed for case in cases for seed in draw(*case)]
    assert len(set(drawn)) == len(drawn)
    assert min(drawn) >= 0
