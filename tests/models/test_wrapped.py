"""A module of the user's own becomes a network of segkd."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from segkd.errors import UserError
from segkd.models.student_io import save_student
from segkd.models.wrapped import wrap_model
from segkd.types import FeatureInfo


def make_module() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 1))


class OneSize(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] != 64:
            raise ValueError("64 pixels only")
        return images


def test_module_gets_normalized_images_and_its_maps_are_features() -> None:
    module = make_module().eval()
    network = wrap_model(module, 5, {"encoder": "2"}, mean=(10, 20, 30), std=(2, 4, 8))
    images = torch.randint(0, 256, (2, 3, 40, 56), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((10, 20, 30), (2, 4, 8)))
    output = network(images)
    assert torch.equal(output.logits, module((images - mean) / std))
    assert network.features == {"kd_logits": FeatureInfo(5, 2), "encoder": FeatureInfo(4, 2)}
    assert output.features["encoder"].shape == (2, 4, 20, 28)
    assert network.network is module


def test_modes_of_the_parts_stay_as_they_are() -> None:
    module = make_module()
    module[1].eval()  # frozen statistics
    before = copy.deepcopy(module.state_dict())
    network = wrap_model(module)
    assert [part.training for part in module] == [True, False, True, True]
    assert network.training
    assert not wrap_model(make_module().eval()).training
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


FAULTS = {
    "another number of outputs": (lambda: wrap_model(make_module(), 3), "has 5 outputs, and num_classes=3"),
    "no such module": (lambda: wrap_model(make_module(), features={"encoder": "9"}), "no module '9' for the feature"),
    "no logits": (lambda: wrap_model(nn.Flatten()), "logits are expected"),
    "one size": (lambda: wrap_model(OneSize()), "does not take an image of 128×128: 64 pixels only"),
    "no module at all": (lambda: wrap_model("resnet"), "wraps an nn.Module, and was given a str"),  # type: ignore[arg-type]
    "wrapped": (lambda: wrap_model(wrap_model(make_module())), "is a network of segkd already"),
    "one mean": (lambda: wrap_model(make_module(), mean=(0.5,)), "has 1 values; give three"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(fault: str) -> None:
    call, sentence = FAULTS[fault]
    with pytest.raises(UserError, match=sentence):
        call()


def test_what_cannot_be_rebuilt_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a wrapped Sequential cannot be rebuilt .* torch\.save"):
        save_student(wrap_model(make_module()), tmp_path)
    assert not any(tmp_path.iterdir())
