"""A proposed `classes.yaml` reads the labels that it was made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segkd.data.folder import Folder
from segkd.data.label_io import decode_label
from segkd.data.proposal import format_proposal, propose_class_table, propose_classes
from segkd.errors import UserError
from tests.helpers.fake_datasets import write_folder, write_palette

COLORS = {0: (0, 0, 0), 1: (250, 50, 83), 2: (51, 221, 255)}
LABEL_MAP = (
    "# label:color_rgb:parts:actions\nbackground:0,0,0::\nsign: front:250,50,83::\nvoid:51,221,255::\nunused:1,2,3::\n"
)


def write_labels(root: Path, encoding: str, folder: str = "labels/train", ending: str = ".png") -> list[np.ndarray]:
    """Write two labels of ids 0, 1 and 2, with their images."""
    labels = [np.full((8, 12), 2, np.uint8), np.arange(96, dtype=np.uint8).reshape(8, 12) % 2]
    for i, label in enumerate(labels):
        path = root / folder / f"{i}{ending}"
        image = root / "images/train" / f"{i}.jpg"
        for file in (path, image):
            file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(image)
        if encoding == "palette":
            write_palette(path, label, [*COLORS.values()])
        else:
            Image.fromarray(label if encoding == "ids" else np.array([*COLORS.values()], np.uint8)[label]).save(path)
    return labels


def save(root: Path, proposal: dict[str, object] | None) -> Folder:
    assert proposal is not None
    (root / "classes.yaml").write_text(format_proposal(proposal))
    assert yaml.safe_load(format_proposal(proposal)) == proposal
    return Folder(root, "train")


@pytest.mark.parametrize("encoding", ["ids", "palette", "colors"])
def test_proposal_reads_the_labels(tmp_path: Path, encoding: str) -> None:
    labels = write_labels(tmp_path, encoding)
    data = save(tmp_path, propose_class_table(tmp_path, 1))
    assert data.size == (8, 12)
    order = np.array(
        [
            data.label_map[value if encoding != "colors" else red << 16 | green << 8 | blue]
            for value, (red, green, blue) in COLORS.items()
        ]
    )
    assert all((sample.label == order[label]).all() for sample, label in zip(data, labels, strict=True))
    assert len(data.classes) == len(set(data.classes)) == 3


@pytest.mark.parametrize("encoding", ["palette", "colors"])
def test_names_come_from_a_label_map(tmp_path: Path, encoding: str) -> None:
    write_labels(tmp_path, encoding)
    (tmp_path / "labelmap.txt").write_text(LABEL_MAP, encoding="utf-8-sig")
    data = save(tmp_path, propose_class_table(tmp_path, 1))
    assert dict(zip(data.classes, data.colors, strict=True)) == {"background": COLORS[0], "sign: front": COLORS[1]}
    assert list(data.label_map.values()).count(255) == 1  # void


@pytest.mark.parametrize("encoding", ["ids", "palette"])
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("class_names.txt", "_background_\nno\nsign: front"),
        ("labels/class_names.txt", "__ignore__\r\n_background_\r\nno\r\nsign: front\r\n"),
        ("labels/train/_classes.csv", "Pixel Value, Class\n0, _background_\n1, no\n2, sign: front\n7, unused\n"),
    ],
)
def test_names_come_from_labelme_and_roboflow(tmp_path: Path, encoding: str, file: str, content: str) -> None:
    write_labels(tmp_path, encoding)
    (tmp_path / file).write_text(content, encoding="utf-8-sig", newline="")
    (tmp_path / "labels/val").mkdir()
    (tmp_path / "labels/val/_classes.csv").write_text("Pixel Value, Class\n1, no\n")
    data = save(tmp_path, propose_class_table(tmp_path, 1))
    assert data.classes == ("_background_", "no", "sign: front")
    assert [data.label_map[value] for value in range(3)] == [0, 1, 2]
    (tmp_path / "labels/val/_classes.csv").write_text("Pixel Value, Class\n1, yes\n")
    with pytest.raises(
        UserError, match=r"the id 1 is 'no' in .* and 'yes' in .*val/_classes.csv; remove the wrong one"
    ):
        propose_class_table(tmp_path, 1)


def test_a_folder_without_splits_gets_a_rule(tmp_path: Path) -> None:
    write_labels(tmp_path, "ids")
    proposal = propose_class_table(tmp_path, 1)
    assert proposal is not None
    assert "splits" not in proposal
    for kind in ("images", "labels"):
        (tmp_path / kind / "train").rename(tmp_path / kind / "field")
    assert len(save(tmp_path, propose_class_table(tmp_path, 1))) == 1
    assert Folder(tmp_path, "val").splits == ("train", "val")


def test_differing_palettes_are_proposed_as_colors(tmp_path: Path) -> None:
    labels = write_labels(tmp_path, "palette")
    write_palette(tmp_path / "labels/train/1.png", labels[1], [COLORS[0], COLORS[2], COLORS[1]])
    data = save(tmp_path, propose_class_table(tmp_path, 1))
    assert data.label_encoding == "colors"
    assert data[0].label[0, 0] == data[1].label[0, 1]  # of one color, at index 2 and at index 1


@pytest.mark.parametrize(
    ("folder", "ending"), [("labels/train", "_mask.png"), ("masks/train", ".png"), ("SegmentationClass", ".png")]
)
def test_labels_are_found_under_other_names(tmp_path: Path, folder: str, ending: str) -> None:
    write_labels(tmp_path, "ids", folder, ending)
    proposal = propose_class_table(tmp_path, 1)
    assert proposal is not None
    assert proposal.get("label_suffix", ".png") == ending
    assert [entry["id"] for entry in proposal["classes"]] == [0, 1, 2]


@pytest.mark.parametrize(
    ("ids", "classes", "ignored"), [((0, 255), [0, 255], None), ((0, 1, 255), [0, 1], [255]), ((0, 1), [0, 1], None)]
)
def test_255_is_void_only_beside_other_ids(ids: tuple[int, ...], classes: list[int], ignored: list[int] | None) -> None:
    proposal = propose_classes([("ids", dict.fromkeys(ids))], {})
    assert proposal is not None
    assert [entry["id"] for entry in proposal["classes"]] == classes
    assert proposal.get("ignore") == ignored


def test_nothing_is_proposed_without_labels(tmp_path: Path) -> None:
    assert propose_class_table(tmp_path, 1) is None
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    (tmp_path / "labels").mkdir()
    Image.fromarray(noise).save(tmp_path / "labels/photograph.png")
    (tmp_path / "labels/broken.png").touch()
    assert propose_class_table(tmp_path, 1) is None
    write_folder(tmp_path)
    assert propose_class_table(tmp_path, 1) is not None


@settings(derandomize=True, max_examples=25, deadline=None)
@given(
    values=st.sets(st.integers(0, 255), min_size=2, max_size=6),
    seed=st.integers(0, 9),
    encoding=st.sampled_from(["ids", "palette", "colors"]),
)
def test_any_labels_are_readable_with_their_proposal(
    tmp_path_factory: pytest.TempPathFactory, values: set[int], seed: int, encoding: str
) -> None:
    """Every pixel that was stored has one class or is void, and different values have different classes."""
    root, rng = tmp_path_factory.mktemp("any"), np.random.default_rng(seed)
    label = rng.permutation(np.resize(np.array(sorted(values), np.uint8), (6, 6)).ravel()).reshape(6, 6)
    palette = rng.permutation(256 * 16)[:256, None] * np.array([1, 7, 31]) % 256
    (root / "images/train").mkdir(parents=True)
    (root / "labels/train").mkdir(parents=True)
    Image.fromarray(np.zeros((6, 6, 3), np.uint8)).save(root / "images/train/0.png")
    path = root / "labels/train/0.png"
    if encoding == "palette":
        write_palette(path, label, [tuple(color) for color in palette.tolist()])
    else:
        Image.fromarray(label if encoding == "ids" else palette[label].astype(np.uint8)).save(path)
    data = save(root, propose_class_table(root, 1))
    stored = decode_label(path.read_bytes(), path, data.label_encoding).values
    classes = data[0].label
    assert (
        len({*zip(stored.ravel().tolist(), classes.ravel().tolist(), strict=True)})
        == len(np.unique(stored))
        == len(np.unique(classes))
    )
