"""Loading a network with all its weights from a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from segkd.errors import UserError
from segkd.models.base import Normalization, SegmentationModel
from segkd.models.checkpoint_io import flush_denormals, read_state_dict, state_hash
from segkd.models.espnet import ESPNet, ESPNetC
from segkd.models.pretrained import load_network
from segkd.models.student_io import load_student, save_student

NORMALIZATION = Normalization((110, 100, 90), (55, 50, 45))


def build_network(classes: int = 11) -> ESPNetC:
    return ESPNetC(classes, NORMALIZATION, p=1, q=1)


def load(path: Path, network: type[SegmentationModel] = ESPNetC, classes: int = 11) -> tuple[SegmentationModel, str]:
    return load_network(network, {"p": 1, "q": 1}, path, classes, NORMALIZATION)


def test_state_dict_with_segkd_keys_loads_and_is_described(tmp_path: Path) -> None:
    network = build_network()
    torch.save({"state_dict": network.state_dict(), "epoch": 3}, tmp_path / "a.pth")
    loaded, summary = load(tmp_path / "a.pth")
    assert state_hash(loaded) == state_hash(network)
    assert summary == "a.pth: ESPNetC (p=1, q=1, width=1), 11 outputs"


def test_keys_that_do_not_match_are_counted_and_named(tmp_path: Path) -> None:
    state = build_network().state_dict()
    total = len(state)
    torch.save({**state, "unknown": torch.zeros(1)}, tmp_path / "more.pth")
    torch.save({key: value for key, value in state.items() if not key.startswith("classifier")}, tmp_path / "less.pth")
    torch.save(build_network(classes=19).state_dict(), tmp_path / "other.pth")
    for file, message in {
        "more.pth": rf"1 of {total} keys are not this network's \(unknown\)",
        "less.pth": rf"1 of {total} keys are missing \(classifier\.weight\)",
        "other.pth": rf"1 of {total} keys have another shape \(classifier\.weight \(19, 256, 1, 1\) for \(11, 256, 1, 1\)\)",
    }.items():
        with pytest.raises(UserError, match=f"holds no ESPNetC: {message}. Choose the model that it was saved from"):
            load(tmp_path / file)
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(
        UserError, match=rf"{total} of {total} keys are missing \(.*, …\); 2 of {total} keys are not this"
    ):
        load(tmp_path / "linear.pth")


def test_file_of_a_student_determines_the_network(tmp_path: Path) -> None:
    """Its arguments and normalization come from its yaml, and it is refused as another network."""
    student = ESPNetC(11, Normalization((1, 2, 3), (4, 5, 6), bgr=True), p=2, q=3)
    save_student(student, tmp_path, {})
    loaded, summary = load(tmp_path / "student.safetensors")
    assert summary.startswith("student.safetensors: segkd's ESPNetC (p=2, q=3, width=1)")
    assert loaded.normalization.to_dict() == student.normalization.to_dict()
    with pytest.raises(UserError, match="is of ESPNetC, not of ESPNet; choose the model it was saved from"):
        load(tmp_path / "student.safetensors", ESPNet)


def test_denormal_weights_are_zeroed_on_reading_and_writing(tmp_path: Path) -> None:
    network, probe = build_network().eval(), torch.rand(1, 3, 64, 64) * 255
    logits_before = network(probe).logits
    with torch.no_grad():
        weights = network.get_parameter("encoder.down3.reduce.weight")
        weights[:2] = 1e-39
        weights[0, 0] = 1e-25
        weights[1, 1] = 0
        weights[2, 0] = -1e-19  # small, and kept
    count = weights[:2].numel() - weights[1, 1].numel()
    logits = network(probe).logits
    torch.save(network.state_dict(), tmp_path / "a.pth")
    cleaned, summary = load(tmp_path / "a.pth")
    assert summary.endswith(f"11 outputs, {count} denormal weights zeroed")
    assert save_student(network, tmp_path, {}) == count
    assert torch.count_nonzero(network.get_parameter("encoder.down3.reduce.weight")[:2]) == count, "only in the copy"
    for clean in (cleaned.eval(), load_student(tmp_path)):
        clean_weights = clean.get_parameter("encoder.down3.reduce.weight")
        assert not clean_weights[:2].any()
        assert torch.equal(clean_weights[2:], weights[2:])
        assert torch.equal(clean(probe).logits, logits)
        assert not torch.equal(clean(probe).logits, logits_before)
    assert flush_denormals(cleaned.state_dict()) == 0


@pytest.mark.published
def test_denormals_of_published_weights_change_no_logit(published_files: Path) -> None:
    path = published_files / "weights/espnet-authors/decoder/espnet_p_2_q_8_camvid.pth"
    network, summary = load(path, ESPNet)
    assert summary.endswith("12 outputs, 12031 denormal weights zeroed")
    probe = torch.rand(1, 3, 64, 96) * 255
    logits = network.eval()(probe).logits
    foreign = ESPNet.match_checkpoint(read_state_dict(path))
    assert foreign is not None
    network.load_state_dict(foreign.state)
    assert torch.equal(network(probe).logits, logits)
