"""Starting from a network of the same family that was trained on other classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from segkd.build.networks import build_network
from segkd.data.camvid import CamVid
from segkd.data.streets import Streets
from segkd.errors import UserError
from segkd.models.adapter import Adapter
from segkd.models.base import Normalization, SegmentationModel
from segkd.models.checkpoint_io import state_hash
from segkd.models.enet import ENet
from segkd.models.espnet import ESPNet, ESPNetC
from segkd.models.pspnet import PSPNet
from segkd.models.student_io import load_student, save_student

THEIRS = Normalization((1, 2, 3), (4, 5, 6))
STREETS = Streets("train")


def started(
    kind: type[SegmentationModel], directory: Path, **arguments: object
) -> tuple[SegmentationModel, str | None]:
    torch.manual_seed(0)
    node = {"_target_": f"{kind.__module__}.{kind.__name__}", **arguments}
    return build_network({**node, "init_from": str(directory / "student.safetensors")}, STREETS)


DECODER = {"classifier", "norm3", "up3", "project2", "join2", "fuse2", "up2", "norm_act2", "fuse1", "up1"}


def trained(kind: type[SegmentationModel], classes: int, **arguments: int) -> SegmentationModel:
    """With counters that are not those of a fresh network."""
    torch.manual_seed(1)
    made = kind(num_classes=classes, normalization=THEIRS, **arguments)
    made.train()(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))
    return made


@pytest.mark.parametrize(
    ("donor", "kind", "anew"),
    [
        ((ESPNetC, 19), ESPNetC, {"classifier"}),
        ((ESPNetC, 11), ESPNetC, set()),
        ((ESPNetC, 11), ESPNet, DECODER - {"classifier"}),
        ((ESPNet, 11), ESPNetC, set()),
        ((ESPNet, 11), ESPNet, set()),
        ((ESPNet, 19), ESPNet, DECODER),
        ((ESPNet, 12), ESPNet, DECODER),  # of `fuse2` some branches would fit
    ],
    ids=["other classes", "the same classes", "the second stage", "the whole for its encoder", "the whole", "19", "12"],
)
def test_parts_are_taken_whole_and_the_rest_starts_as_it_would(
    donor: tuple[type[SegmentationModel], int], kind: type[SegmentationModel], anew: set[str], tmp_path: Path
) -> None:
    theirs = trained(*donor, p=1, q=2)
    save_student(theirs, tmp_path, {})
    network, line = started(kind, tmp_path, p=1, q=2)
    torch.manual_seed(0)
    fresh, _ = build_network({"_target_": f"{kind.__module__}.{kind.__name__}", "p": 1, "q": 2}, STREETS)
    random, taken = fresh.state_dict(), theirs.state_dict()
    for key, weights in network.state_dict().items():
        expected = random if key.split(".")[0] in anew else taken
        assert torch.equal(weights, expected[key]), key
    assert network.normalization.to_dict() == THEIRS.facts()
    assert line is not None
    assert set(line.rpartition("starting anew: ")[2].split(", ")) == (anew or {"nothing"})


def test_weights_of_which_nothing_is_known_are_known_by_their_names(tmp_path: Path) -> None:
    """A plain state dict; it does not say how its images were normalised."""
    theirs = trained(ESPNetC, 19, p=1, q=2)
    torch.save(theirs.state_dict(), tmp_path / "raw.pth")
    node = {"_target_": "segkd.models.espnet.ESPNet", "p": 1, "q": 2, "init_from": str(tmp_path / "raw.pth")}
    network, _ = build_network(node, STREETS)
    assert state_hash(network.get_submodule("encoder")) == state_hash(theirs.get_submodule("encoder"))
    assert network.normalization.to_dict()["mean"] == pytest.approx(STREETS.mean)


def test_a_teacher_of_other_classes_starts_one_of_ours(tmp_path: Path) -> None:
    theirs = trained(PSPNet, 19, width=8, pyramid=8)
    save_student(theirs, tmp_path, {})
    network, line = started(PSPNet, tmp_path, width=8, pyramid=8)
    assert state_hash(network.get_submodule("backbone")) == state_hash(theirs.get_submodule("backbone"))
    assert line is not None
    assert "PSPNet's" in line


class Foreign(nn.Module):
    """Somebody else's network."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 20, 3, padding=1)
        self.head = nn.Conv2d(20, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))  # type: ignore[no-any-return]


def test_an_adapter_too_but_for_its_head(tmp_path: Path) -> None:
    says = {"network": f"{__name__}.Foreign", "classes_argument": "classes", "features": {"encoder": "body"}}
    theirs = Adapter(19, THEIRS, **says)
    save_student(theirs, tmp_path, {})
    network, line = started(Adapter, tmp_path, **says)
    assert state_hash(network.get_submodule("network.body")) == state_hash(theirs.get_submodule("network.body"))
    assert line is not None
    assert line.endswith("starting anew: network.head")


def test_an_adapter_keeps_saying_how_it_wants_its_images(tmp_path: Path) -> None:
    """It would be rebuilt so, and score otherwise than it did."""
    says = {"network": f"{__name__}.Foreign", "classes_argument": "classes", "features": {"encoder": "body"}}
    save_student(Adapter(11, THEIRS, mean=None, std=None, **says), tmp_path, {})
    with pytest.raises(UserError, match=r"normalised otherwise; give student\.mean=\[1\.0,2\.0,3\.0\] student\.std="):
        started(Adapter, tmp_path, **says)
    network, _ = started(Adapter, tmp_path, mean=None, std=None, **says)
    save_student(network, tmp_path, {})
    assert load_student(tmp_path).normalization.to_dict() == THEIRS.facts()


def test_an_encoder_alone_is_a_part(tmp_path: Path) -> None:
    """Also in a file without BatchNorm's counters."""
    theirs = trained(ESPNetC, 19, p=1, q=2)
    kept = {k: v for k, v in theirs.state_dict().items() if k.startswith("encoder") and "num_batches" not in k}
    torch.save(kept, tmp_path / "encoder.pth")
    node = {
        "_target_": "segkd.models.espnet.ESPNetC",
        "p": 1,
        "q": 2,
        "init_from": str(tmp_path / "encoder.pth"),
    }
    network, line = build_network(node, STREETS)
    ours = network.state_dict()
    assert all(torch.equal(ours[key], weights) for key, weights in kept.items())
    assert line is not None
    assert line.endswith("starting anew: classifier")


@pytest.mark.parametrize(
    ("kind", "arguments", "said"),
    [
        (
            ESPNetC,
            {"p": 1, "q": 3},
            r"is ESPNetC \(p=1, q=3, width=1\); less than half of ESPNetC \(p=1, q=2, width=1\)",
        ),
        (ESPNetC, {"p": 1, "q": 2, "width": 2}, r"of its parts the same: none\); build the network as it is"),
        (
            ENet,
            {},
            r"is ENet \(.*\); less than half of ESPNetC .* the same: none\); .*, or take one of the same family",
        ),
        (PSPNet, {"width": 8, "pyramid": 8}, r"is PSPNet \(.*\); less than half of ESPNetC .* the same: none\)"),
    ],
    ids=["built differently", "wider", "another family", "a teacher"],
)
def test_what_does_not_fit_is_refused(
    kind: type[SegmentationModel], arguments: dict[str, int], said: str, tmp_path: Path
) -> None:
    save_student(trained(kind, 11, **arguments), tmp_path, {})
    with pytest.raises(UserError, match=said):
        started(ESPNetC, tmp_path, p=1, q=2)


@pytest.mark.published
def test_the_authors_network_of_cityscapes_starts_one_of_camvid(published_files: Path) -> None:
    file = published_files / "weights/skd-authors/cityscapes/espnet_ours_64.pth"
    node = {"_target_": "segkd.models.espnet.ESPNet", "p": 2, "q": 8, "skip": 19, "init_from": str(file)}
    network, line = build_network(node, CamVid(published_files / "data/camvid", "test"))
    assert network.num_classes == 11
    assert network.normalization.bgr
    assert line is not None
    assert line.startswith("espnet_ours_64.pth: 9")
    assert line.endswith("starting anew: " + ", ".join(name for name, _ in network.named_children() if name in DECODER))


@pytest.mark.published
def test_another_skip_hangs_on_what_starts_anew(published_files: Path) -> None:
    """Mehta et al.'s published network of Cityscapes joins 16 channels where ours joins 19."""
    file = published_files / "weights/espnet-authors/decoder/espnet_p_2_q_8.pth"
    network, line = build_network(
        {"_target_": "segkd.models.espnet.ESPNet", "init_from": str(file)},
        CamVid(published_files / "data/camvid", "test"),
    )
    assert network.arguments["skip"] == 19
    assert line is not None
    assert "encoder" not in line.rpartition("starting anew: ")[2]
