"""segkd.evaluate: the command's figures, from Python, on any data."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import segkd
from segkd.data.streets import Streets
from segkd.data.transforms import to_batch
from segkd.errors import UserError
from segkd.models.student_io import load_student, save_student
from segkd.types import IGNORE_INDEX
from tests.helpers.commands import Command
from tests.helpers.own_data_worker import CLASSES, make_model, make_pairs


class StreetPairs(Dataset[tuple[Tensor, Tensor]]):
    """The images of a split of streets, as a user's own dataset."""

    def __init__(self, streets: Streets) -> None:
        self.streets = streets

    def __len__(self) -> int:
        return len(self.streets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        batch = to_batch(*self.streets[index])
        return batch.images, batch.target


class Constant(nn.Module):
    """Predicts a class everywhere, and records its images."""

    def __init__(self, index: int, outputs: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.eye(outputs)[index])
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        self.seen.append(images)
        return {"out": self.logits[None, :, None, None].expand(len(images), -1, 4, 4)}


def test_figures_are_those_of_the_command(command: Command, tmp_path: Path, teacher_file: Path) -> None:
    run, streets = teacher_file.parent, Streets("val", images=8)
    network = load_student(run)
    network.classes = Streets.classes
    save_student(network, tmp_path, {"dataset": "Streets"})
    ended = command(
        "evaluate", f"run={tmp_path}", "dataset=streets", "dataset.images=8", "accelerator=cpu", "workers=0"
    )
    assert ended.code == 0, ended.err
    expected = json.loads((tmp_path / "evaluation.json").read_text())
    for data in (streets, StreetPairs(streets), DataLoader(StreetPairs(streets), 5)):
        evaluation = segkd.evaluate(load_student(tmp_path), data)
        assert evaluation.confusion_matrix.tolist() == expected["confusion_matrix"]
        assert (evaluation.miou, evaluation.class_accuracy, evaluation.pixel_accuracy) == tuple(
            expected[key] for key in ("miou", "class_accuracy", "pixel_accuracy")
        )
        assert {k: None if v != v else v for k, v in evaluation.iou.items()} == expected["iou"]


def test_a_hand_worked_case() -> None:
    target = torch.tensor([[0, 0, 0, 1], [1, 1, 1, 1], [2, 2, 2, 2], [IGNORE_INDEX] * 4])
    images = torch.randn(1, 3, 4, 4)
    model = Constant(0, outputs=3).train()
    evaluation = segkd.evaluate(model, [(images, target[None])], classes=CLASSES)
    assert evaluation.confusion_matrix.tolist() == [[3, 0, 0], [5, 0, 0], [4, 0, 0]]
    assert evaluation.confusion_matrix.dtype == torch.int64
    assert evaluation.iou == {"road": 3 / 12, "car": 0, "sky": 0}
    assert (evaluation.miou, evaluation.class_accuracy, evaluation.pixel_accuracy) == (1 / 12, 1 / 3, 1 / 4)
    assert torch.equal(model.seen[0], images)  # a plain module gets them as they are
    assert model.training


def test_an_absent_class_has_no_iou() -> None:
    target = torch.zeros(1, 4, 4, dtype=torch.long)
    evaluation = segkd.evaluate(Constant(0, outputs=3), [(torch.zeros(1, 3, 4, 4), target)], classes=3)
    assert evaluation.miou == 1
    assert evaluation.iou["0"] == 1
    assert evaluation.iou["1"] != evaluation.iou["1"]


def test_targets_of_another_size_are_scored_at_theirs() -> None:
    images, target = make_pairs(2).tensors
    large = target.repeat_interleave(2, 1).repeat_interleave(2, 2)
    evaluation = segkd.evaluate(make_model(), [(images, large)])
    assert int(evaluation.confusion_matrix.sum()) == 2 * 64 * 64


def test_modes_of_the_parts_stay_as_they_are() -> None:
    model = make_model().train()
    model.network[1].eval()  # type: ignore[index]
    before = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    segkd.evaluate(model, make_pairs(2))
    assert [module.training for module in model.modules()] == before
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_random_state_stays() -> None:
    before = torch.get_rng_state()
    segkd.evaluate(make_model().eval(), make_pairs(2))
    model, state = make_model(), torch.get_rng_state()
    segkd.evaluate(model, make_pairs(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(state, before)


def make_void() -> TensorDataset:
    images, target = make_pairs(2).tensors
    return TensorDataset(images, torch.full_like(target, IGNORE_INDEX))


FAULTS: dict[str, tuple[Callable[[], object], str]] = {
    "no label": (lambda: segkd.evaluate(make_model(), make_void()), "no pixel of the dataset is labeled"),
    "nothing": (lambda: segkd.evaluate(make_model(), []), "no pixel of the dataset is labeled"),
    "number of classes": (
        lambda: segkd.evaluate(Constant(0, 3), make_pairs(2)), "a Constant does not say how many classes there are"
    ),
    "other outputs": (
        lambda: segkd.evaluate(Constant(0, 5), make_pairs(2), classes=3), "has 5 outputs, and there are 3 classes"
    ),
    "other network": (lambda: segkd.evaluate(make_model(), make_pairs(2), classes=7), "has 3 outputs, and there are 7"),
    "dataset of other classes": (lambda: segkd.evaluate(make_model(), Streets("val", images=4)), "has 3 classes, Streets has 11"),
    "no dataset": (lambda: segkd.evaluate(make_model(), 5), "a int is no dataset"),  # type: ignore[arg-type]
    "single images": (lambda: segkd.evaluate(make_model(), list(make_pairs(2))), r"images are 3×32×32"),
    "scaled images": (
        lambda: segkd.evaluate(make_model(), TensorDataset(torch.rand(2, 3, 32, 32), make_pairs(2).tensors[1])), "0..255, not scaled"
    ),
    "label": (lambda: segkd.evaluate(Constant(0, 2), make_pairs(2), classes=2), "the target holds 2"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(fault: str) -> None:
    call, sentence = FAULTS[fault]
    with pytest.raises(UserError, match=sentence):
        call()


def test_the_package_can_be_called_before_and_after_its_command_is_imported() -> None:
    program = (
        "import segkd\nfirst = segkd.evaluate\nimport segkd.evaluate.main\n"
        "assert segkd.evaluate is first and callable(first)\n"
        "from segkd import evaluate\nassert evaluate is first\n"
        "import segkd.evaluate as package\nassert package.main.evaluate and package is first\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=250)
