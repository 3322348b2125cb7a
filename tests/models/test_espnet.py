"""ESPNet against its authors' logits, and the recognition of everyone's checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from segkd.build.networks import build_network
from segkd.data.streets import Streets
from segkd.errors import UserError
from segkd.models.base import Normalization, SegmentationModel
from segkd.models.checkpoint_io import read_state_dict
from segkd.models.espnet import ESPNet, ESPNetC
from segkd.models.pretrained import load_network
from segkd.models.student_io import save_student
from tests.helpers.reference_state_dicts import espnet_state

ANY = Normalization((0, 0, 0), (1, 1, 1))
CITYSCAPES_MEAN = (73.15840149, 82.90893555, 72.3923111)
CAMVID_MEAN = (105.033, 108.409, 110.331)
SKD_MEAN = (72.41519599, 82.93553322, 73.18188461)


def restored(
    state: dict[str, Tensor], network: type[SegmentationModel], classes: int, folder: Path
) -> SegmentationModel:
    """As the commands do it, with the yaml's arguments, which are not the file's."""
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, folder / "theirs.pth")
    arguments = {"p": 1, "q": 1, "skip": 19} if network is ESPNet else {"p": 1, "q": 1}
    return load_network(network, arguments, folder / "theirs.pth", classes, ANY)[0]


# The file's own outputs, of a data set with `classes`; whose mean was subtracted, and whether /255 came after.
@pytest.mark.parametrize(
    ("state", "classes", "mean", "over_255"),
    [
        # Liu et al., 2019
        ({"classes": 11, "q": 8}, 11, SKD_MEAN, False),
        ({"classes": 19, "q": 8}, 19, SKD_MEAN, False),
        ({"classes": 11, "q": 8, "skip": 19}, 11, SKD_MEAN, False),
        ({"classes": 19, "q": 8, "skip": 19}, 19, SKD_MEAN, False),
        ({"classes": 12, "q": 8, "skip": 19}, 11, SKD_MEAN, False),
        ({"classes": 20, "q": 8, "skip": 19}, 19, SKD_MEAN, False),
        ({"classes": 19, "q": 8, "skip": 19, "counted": False}, 19, SKD_MEAN, False),
        # Mehta et al., 2018, as published and as PyTorch saves them today
        ({"classes": 20, "q": 3, "counted": False}, 19, CITYSCAPES_MEAN, True),
        ({"classes": 20, "q": 5, "counted": False}, 19, CITYSCAPES_MEAN, True),
        ({"classes": 20, "q": 8}, 19, CITYSCAPES_MEAN, True),
        ({"classes": 12, "q": 8, "counted": False}, 11, CAMVID_MEAN, True),
        ({"classes": 20, "q": 3, "skip": 16, "nested": True, "counted": False}, 19, CITYSCAPES_MEAN, True),
        ({"classes": 20, "q": 5, "skip": 16, "nested": True, "counted": False}, 19, CITYSCAPES_MEAN, True),
        ({"classes": 20, "q": 8, "skip": 19, "nested": True}, 19, CITYSCAPES_MEAN, True),
        ({"classes": 12, "q": 8, "skip": 19, "nested": True, "counted": False}, 11, CAMVID_MEAN, True),
        ({"classes": 11, "q": 8, "skip": 19, "nested": True}, 11, CAMVID_MEAN, True),
        ({"classes": 19, "q": 8, "skip": 19, "nested": True}, 19, CITYSCAPES_MEAN, True),
    ],
    ids=str,
)
def test_whose_checkpoint_it_is(
    state: dict[str, int], classes: int, mean: tuple[float, ...], over_255: bool, tmp_path: Path
) -> None:
    theirs = espnet_state(**state)
    network = ESPNet if "skip" in state else ESPNetC
    found = restored(theirs, network, classes, tmp_path)
    assert found.num_classes == state["classes"]
    skip = {"skip": state["skip"]} if "skip" in state else {}
    assert found.arguments == {"p": 2, "q": state["q"], "width": 1, **skip}
    facts = found.normalization.to_dict()
    assert facts["bgr"]
    assert facts["mean"] == pytest.approx(mean, abs=1e-3)
    assert (min(facts["std"]) > 255) == over_255
    learned = {key for key in theirs if not key.endswith("num_batches_tracked")}
    ours = {key for key in found.state_dict() if not key.endswith("num_batches_tracked")}
    assert len(ours) == len(learned), "every tensor has its place, and every place its tensor"


@pytest.mark.parametrize("network", [ESPNet, ESPNetC])
def test_a_checkpoint_that_lacks_a_tensor_is_refused(network: type[SegmentationModel], tmp_path: Path) -> None:
    whole = espnet_state(12, 1, 19 if network is ESPNet else None, nested=network is ESPNet)
    restored(whole, network, 11, tmp_path)
    for lost in whole:
        if not lost.endswith(("num_batches_tracked", "bias", "running_var")) and ".d" not in lost:
            rest = {key: value for key, value in whole.items() if key != lost}
            with pytest.raises(UserError, match="is not of a ESPNet"):
                restored(rest, network, 11, tmp_path)


def test_networks_of_the_family_are_not_taken_for_each_other(tmp_path: Path) -> None:
    for nested in (False, True):
        with pytest.raises(UserError, match=r"is not of a ESPNetC: .* Choose the model that it was saved from"):
            restored(espnet_state(11, 1, 19, nested), ESPNetC, 11, tmp_path)
    with pytest.raises(UserError, match=r"is not of a ESPNet: .* Choose the model that it was saved from"):
        restored(espnet_state(11, 1), ESPNet, 11, tmp_path)
    with pytest.raises(UserError, match=r"theirs\.pth is not of a ESPNet"):
        restored(espnet_state(11, 1, 18), ESPNet, 11, tmp_path)
    with pytest.raises(UserError, match=r"scores 20 classes, the data set has 11"):
        restored(espnet_state(20, 1), ESPNetC, 11, tmp_path)


def test_odd_images_keep_their_size() -> None:
    logits = ESPNet(5, ANY, p=1, q=1)(torch.zeros(1, 3, 45, 67)).logits
    assert logits.shape == (1, 5, 45, 67)


def test_fewer_classes_than_branches_are_refused() -> None:
    with pytest.raises(UserError, match="needs 5 classes and more, not 4; choose espnet_c"):
        ESPNet(4, ANY)


def published(file: Path, network: type[SegmentationModel], classes: int) -> SegmentationModel:
    return load_network(network, {"p": 2, "q": 8}, file, classes, ANY)[0].eval()


def read(path: Path) -> Tensor:
    return torch.from_numpy(cv2.imread(str(path))[..., ::-1].copy()).permute(2, 0, 1)[None]


def assert_says(
    network: SegmentationModel, images: Tensor, golden: Path, name: str, rows: slice, columns: slice
) -> None:
    """Logits within 1e-3 of the authors', and their argmax wherever they were sure by more than that."""
    with torch.no_grad():
        logits = network(images).logits[0]
    expected = torch.from_numpy(np.load(golden / f"{name}.npz")["logits_slice"])
    torch.testing.assert_close(logits[:, rows, columns], expected, rtol=0, atol=1e-3)
    argmax = torch.from_numpy(cv2.imread(str(golden / f"{name}_argmax.png"), cv2.IMREAD_UNCHANGED)).long()
    best = logits.topk(2, 0).values
    sure = best[0] - best[1] > 1e-3
    assert (~sure).sum() < 100
    assert torch.equal(logits.max(0).indices[sure], argmax[sure])


@pytest.mark.published
@pytest.mark.parametrize("name", ["0001TP_008550", "Seq05VD_f00120", "Seq05VD_f02100", "Seq05VD_f04080"])
def test_camvid_logits_of_the_author(published_files: Path, name: str) -> None:
    network = published(published_files / "weights/espnet-authors/decoder/espnet_p_2_q_8_camvid.pth", ESPNet, 11)
    images = read(published_files / f"data/camvid/test/{name}.png")
    where = slice(148, 212), slice(176, 304)
    assert_says(network, images, published_files / "golden", f"camvid_{name}", *where)
    network.normalization.bgr = False
    with pytest.raises(AssertionError):
        assert_says(network, images, published_files / "golden", f"camvid_{name}", *where)


@pytest.mark.published
@pytest.mark.parametrize("image", ["frankfurt_000000_000294", "frankfurt_000000_000576"])
@pytest.mark.parametrize("q", [3, 8])
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_cityscapes_logits_of_the_author(published_files: Path, part: str, q: int, image: str) -> None:
    """The author shrinks the normalised image; normalising the shrunk one is the same, as both are linear."""
    file = published_files / f"weights/espnet-authors/{part}/espnet_p_2_q_{q}.pth"
    network = published(file, ESPNet if part == "decoder" else ESPNetC, 19)
    pixels = cv2.imread(str(published_files / f"data/cityscapes-samples/{image}_leftImg8bit.png")).astype(np.float32)
    shrunk = cv2.resize(pixels, (1024, 512))[..., ::-1].copy()
    where = (slice(224, 288), slice(448, 576)) if part == "decoder" else (slice(None), slice(None))
    images = torch.from_numpy(shrunk).permute(2, 0, 1)[None]
    assert_says(network, images, published_files / "golden", f"city_{part}_q{q}_{image}", *where)


@pytest.mark.published
def test_every_published_checkpoint_is_recognised(published_files: Path) -> None:
    """Sizes as the authors' README files say, and the statistics of the golden file to the last bit."""
    files = sorted((published_files / "weights").rglob("*.pth"))
    assert len(files) == 11
    for file in files:
        state = read_state_dict(file)
        origin = ESPNet.match_checkpoint(state) or ESPNetC.match_checkpoint(state)
        assert origin is not None, file
        assert origin.author.startswith("Mehta" if "espnet-authors" in file.parts else "Liu"), file
        assert origin.arguments["q"] == (3 if "q_3" in file.name else 8), file
    camvid = json.loads((published_files / "golden/espnet_golden.json").read_text())["camvid"]
    origin = ESPNet.match_checkpoint(
        read_state_dict(published_files / "weights/espnet-authors/decoder/espnet_p_2_q_8_camvid.pth")
    )
    assert origin is not None
    facts = origin.normalization.to_dict()
    assert facts["mean"][::-1] == camvid["mean_BGR"]
    assert facts["std"][::-1] == pytest.approx([255 * s for s in camvid["std_BGR"]], rel=1e-7)


@pytest.mark.parametrize(("skip", "joined"), [(19, 3 * 16 + 3), (16, 3 * 16)])
def test_three_times_as_wide(skip: int, joined: int) -> None:
    """All channels but those of the pooled images and of the classes; on an odd image."""
    wide, narrow = (ESPNet(7, Normalization((110,) * 3, (55,) * 3), p=1, q=2, skip=skip, width=w) for w in (3, 1))
    said = wide.eval()(torch.randint(0, 256, (1, 3, 75, 91), dtype=torch.uint8))
    assert said.features["encoder"].shape == (1, 3 * 256, 10, 12)
    assert said.logits.shape == narrow.eval()(torch.zeros(1, 3, 75, 91)).logits.shape
    assert wide.fuse1.conv.weight.shape[1] == 7 + joined
    assert wide.project2.weight.shape[1] == 3 * 2 * 64 + 3
    thrice, once = (n.encoder.level3[0].branches[1].weight.shape[0] for n in (wide, narrow))
    assert (thrice, once) == (3 * 128 // 5, 128 // 5)


def test_the_second_stage_starts_from_the_first(tmp_path: Path) -> None:
    """Encoder, classifier and normalisation are ESPNet-C's; the decoder is new."""
    torch.manual_seed(3)
    first = ESPNetC(11, Normalization((1, 2, 3), (4, 5, 6)), p=1, q=2)
    save_student(first, tmp_path, {})
    node = {"_target_": "segkd.models.espnet.ESPNet", "p": 1, "q": 2, "skip": 19}
    second, _ = build_network({**node, "init_from": str(tmp_path / "student.safetensors")}, Streets("train"))
    probe = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(second.eval()(probe).features["kd_logits"], first.eval()(probe).logits)
    assert isinstance(second, ESPNet)
    with pytest.raises(UserError, match=r"is ESPNetC \(p=1, q=2, width=1\); less than half"):
        build_network({**node, "q": 3, "init_from": str(tmp_path / "student.safetensors")}, Streets("train"))
