"""ESPNet against its authors' logits, and recognizing the checkpoints of all authors."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from segkd.errors import UserError
from segkd.models.base import Normalization, SegmentationModel
from segkd.models.checkpoint_io import read_state_dict
from segkd.models.espnet import ESPNet, ESPNetC
from segkd.models.pretrained import load_network
from tests.helpers.reference_state_dicts import make_espnet_state

IDENTITY = Normalization((0, 0, 0), (1, 1, 1))
CITYSCAPES_MEAN = (73.15840149, 82.90893555, 72.3923111)
CAMVID_MEAN = (105.033, 108.409, 110.331)
SKD_MEAN = (72.41519599, 82.93553322, 73.18188461)


def load_state(
    state: dict[str, Tensor], network: type[SegmentationModel], classes: int, folder: Path
) -> SegmentationModel:
    """Load a state dict like the commands, with arguments of a config that are not the file's."""
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, folder / "authors.pth")
    arguments = {"p": 1, "q": 1, "skip": 19} if network is ESPNet else {"p": 1, "q": 1}
    return load_network(network, arguments, folder / "authors.pth", classes, IDENTITY)[0]


# Arguments of the state dict; classes of the data set; the mean that was subtracted, and whether /255 followed.
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
        ({"classes": 19, "q": 8, "skip": 19, "has_counters": False}, 19, SKD_MEAN, False),
        # Mehta et al., 2018, as published and as PyTorch saves them today
        ({"classes": 20, "q": 3, "has_counters": False}, 19, CITYSCAPES_MEAN, True),
        ({"classes": 20, "q": 5, "has_counters": False}, 19, CITYSCAPES_MEAN, True),
        ({"classes": 20, "q": 8}, 19, CITYSCAPES_MEAN, True),
        ({"classes": 12, "q": 8, "has_counters": False}, 11, CAMVID_MEAN, True),
        ({"classes": 20, "q": 3, "skip": 16, "is_nested": True, "has_counters": False}, 19, CITYSCAPES_MEAN, True),
        ({"classes": 20, "q": 5, "skip": 16, "is_nested": True, "has_counters": False}, 19, CITYSCAPES_MEAN, True),
        ({"classes": 20, "q": 8, "skip": 19, "is_nested": True}, 19, CITYSCAPES_MEAN, True),
        ({"classes": 12, "q": 8, "skip": 19, "is_nested": True, "has_counters": False}, 11, CAMVID_MEAN, True),
        ({"classes": 11, "q": 8, "skip": 19, "is_nested": True}, 11, CAMVID_MEAN, True),
        ({"classes": 19, "q": 8, "skip": 19, "is_nested": True}, 19, CITYSCAPES_MEAN, True),
    ],
    ids=str,
)
def test_checkpoint_is_recognized(
    state: dict[str, int], classes: int, mean: tuple[float, ...], over_255: bool, tmp_path: Path
) -> None:
    authors_state = make_espnet_state(**state)
    network = ESPNet if "skip" in state else ESPNetC
    loaded = load_state(authors_state, network, classes, tmp_path)
    assert loaded.num_classes == state["classes"]
    skip = {"skip": state["skip"]} if "skip" in state else {}
    assert loaded.arguments == {"p": 2, "q": state["q"], "width": 1, **skip}
    statistics = loaded.normalization.to_dict()
    assert statistics["bgr"]
    assert statistics["mean"] == pytest.approx(mean, abs=1e-3)
    assert (min(statistics["std"]) > 255) == over_255
    authors_keys = {key for key in authors_state if not key.endswith("num_batches_tracked")}
    keys = {key for key in loaded.state_dict() if not key.endswith("num_batches_tracked")}
    assert len(keys) == len(authors_keys), "no two of the authors' keys may become one"


@pytest.mark.parametrize("network", [ESPNet, ESPNetC])
def test_checkpoint_with_a_missing_tensor_is_refused(network: type[SegmentationModel], tmp_path: Path) -> None:
    complete = make_espnet_state(12, 1, 19 if network is ESPNet else None, is_nested=network is ESPNet)
    load_state(complete, network, 11, tmp_path)
    for missing in complete:
        if not missing.endswith(("num_batches_tracked", "bias", "running_var")) and ".d" not in missing:
            rest = {key: value for key, value in complete.items() if key != missing}
            with pytest.raises(UserError, match="holds no ESPNet"):
                load_state(rest, network, 11, tmp_path)


def test_networks_of_the_family_are_told_apart(tmp_path: Path) -> None:
    for is_nested in (False, True):
        with pytest.raises(UserError, match=r"holds no ESPNetC: .* Choose the model that it was saved from"):
            load_state(make_espnet_state(11, 1, 19, is_nested), ESPNetC, 11, tmp_path)
    with pytest.raises(UserError, match=r"holds no ESPNet: .* Choose the model that it was saved from"):
        load_state(make_espnet_state(11, 1), ESPNet, 11, tmp_path)
    with pytest.raises(UserError, match=r"authors\.pth holds no ESPNet"):
        load_state(make_espnet_state(11, 1, 18), ESPNet, 11, tmp_path)


def test_logits_of_an_odd_image_have_its_size() -> None:
    logits = ESPNet(5, IDENTITY, p=1, q=1)(torch.zeros(1, 3, 45, 67)).logits
    assert logits.shape == (1, 5, 45, 67)


def test_fewer_than_five_classes_are_refused() -> None:
    with pytest.raises(UserError, match="needs 5 classes and more, not 4; choose espnet_c"):
        ESPNet(4, IDENTITY)


def load_published(file: Path, network: type[SegmentationModel], classes: int) -> SegmentationModel:
    return load_network(network, {"p": 2, "q": 8}, file, classes, IDENTITY)[0].eval()


def read_image(path: Path) -> Tensor:
    return torch.from_numpy(cv2.imread(str(path))[..., ::-1].copy()).permute(2, 0, 1)[None]


def assert_matches(
    network: SegmentationModel, images: Tensor, golden: Path, name: str, rows: slice, columns: slice
) -> None:
    """Check that logits are within 1e-3 of the authors', and the argmax equal wherever their margin is larger."""
    with torch.no_grad():
        logits = network(images).logits[0]
    expected = torch.from_numpy(np.load(golden / f"{name}.npz")["logits_slice"])
    torch.testing.assert_close(logits[:, rows, columns], expected, rtol=0, atol=1e-3)
    argmax = torch.from_numpy(cv2.imread(str(golden / f"{name}_argmax.png"), cv2.IMREAD_UNCHANGED)).long()
    top2 = logits.topk(2, 0).values
    is_clear = top2[0] - top2[1] > 1e-3
    assert (~is_clear).sum() < 100
    assert torch.equal(logits.max(0).indices[is_clear], argmax[is_clear])


@pytest.mark.published
@pytest.mark.parametrize("name", ["0001TP_008550", "Seq05VD_f00120", "Seq05VD_f02100", "Seq05VD_f04080"])
def test_camvid_logits_match_the_authors(published_files: Path, name: str) -> None:
    network = load_published(published_files / "weights/espnet-authors/decoder/espnet_p_2_q_8_camvid.pth", ESPNet, 11)
    images = read_image(published_files / f"data/camvid/test/{name}.png")
    window = slice(148, 212), slice(176, 304)
    assert_matches(network, images, published_files / "golden", f"camvid_{name}", *window)
    network.normalization.bgr = False
    with pytest.raises(AssertionError):
        assert_matches(network, images, published_files / "golden", f"camvid_{name}", *window)


@pytest.mark.published
@pytest.mark.parametrize("image", ["frankfurt_000000_000294", "frankfurt_000000_000576"])
@pytest.mark.parametrize("q", [3, 8])
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_cityscapes_logits_match_the_authors(published_files: Path, part: str, q: int, image: str) -> None:
    """The authors resize the normalized image; normalizing the resized one is the same, since both are linear."""
    file = published_files / f"weights/espnet-authors/{part}/espnet_p_2_q_{q}.pth"
    network = load_published(file, ESPNet if part == "decoder" else ESPNetC, 19)
    pixels = cv2.imread(str(published_files / f"data/cityscapes-samples/{image}_leftImg8bit.png")).astype(np.float32)
    resized = cv2.resize(pixels, (1024, 512))[..., ::-1].copy()
    window = (slice(224, 288), slice(448, 576)) if part == "decoder" else (slice(None), slice(None))
    images = torch.from_numpy(resized).permute(2, 0, 1)[None]
    assert_matches(network, images, published_files / "golden", f"city_{part}_q{q}_{image}", *window)


@pytest.mark.published
def test_every_published_checkpoint_is_recognized(published_files: Path) -> None:
    """Arguments are those of the authors' README files, and the statistics those of the golden file to the last bit."""
    files = sorted((published_files / "weights").rglob("*.pth"))
    assert len(files) == 11
    for file in files:
        state = read_state_dict(file)
        foreign = ESPNet.match_checkpoint(state) or ESPNetC.match_checkpoint(state)
        assert foreign is not None, file
        assert foreign.author.startswith("Mehta" if "espnet-authors" in file.parts else "Liu"), file
        assert foreign.arguments["q"] == (3 if "q_3" in file.name else 8), file
    camvid = json.loads((published_files / "golden/espnet_golden.json").read_text())["camvid"]
    foreign = ESPNet.match_checkpoint(
        read_state_dict(published_files / "weights/espnet-authors/decoder/espnet_p_2_q_8_camvid.pth")
    )
    assert foreign is not None
    statistics = foreign.normalization.to_dict()
    assert statistics["mean"][::-1] == camvid["mean_BGR"]
    assert statistics["std"][::-1] == pytest.approx([255 * s for s in camvid["std_BGR"]], rel=1e-7)


@pytest.mark.parametrize(("skip", "fused"), [(19, 3 * 16 + 3), (16, 3 * 16)])
def test_width_multiplies_channels(skip: int, fused: int) -> None:
    """Of all maps except the pooled images and the logits; on an odd image."""
    wide, narrow = (ESPNet(7, Normalization((110,) * 3, (55,) * 3), p=1, q=2, skip=skip, width=w) for w in (3, 1))
    output = wide.eval()(torch.randint(0, 256, (1, 3, 75, 91), dtype=torch.uint8))
    assert output.features["encoder"].shape == (1, 3 * 256, 10, 12)
    assert output.logits.shape == narrow.eval()(torch.zeros(1, 3, 75, 91)).logits.shape
    assert wide.fuse1.conv.weight.shape[1] == 7 + fused
    assert wide.project2.weight.shape[1] == 3 * 2 * 64 + 3
    wide_channels, narrow_channels = (n.encoder.level3[0].branches[1].weight.shape[0] for n in (wide, narrow))
    assert (wide_channels, narrow_channels) == (3 * 128 // 5, 128 // 5)
