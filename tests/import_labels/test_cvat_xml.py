"""'CVAT for images 1.1': shapes, their order, what is left out, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from segkd.errors import UserError
from segkd.import_labels.annotations import IGNORED, Export, Notes, ReadSettings
from segkd.import_labels.formats.cvat import read_cvat
from tests.helpers.exports import draw_labels, paint, write_image

LABELS = {"car": "#ff0000", "person": "#00ff00"}
IDS = {"c": 0, "p": 1, "i": IGNORED}


def write_export(
    root: Path, shapes: str, labels: dict[str, str] = LABELS, size: tuple[int, int] = (6, 8), kind: str = "task"
) -> Path:
    """Write an export of one image, as CVAT does."""
    entries = "".join(
        f"<label><name>{name}</name><color>{color}</color><type>any</type><attributes></attributes></label>"
        for name, color in labels.items()
    )
    image = (
        f'<image id="0" name="a.png" subset="default" task_id="5" width="{size[1]}" height="{size[0]}">{shapes}</image>'
    )
    write_xml(
        root,
        f"<meta><{kind}><id>5</id><name>t</name><labels>{entries}</labels></{kind}><dumped>now</dumped></meta>{image}",
    )
    write_image(root / "images" / "a.png", size)
    return root


def write_xml(root: Path, body: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    text = f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n{body}</annotations>\n'
    (root / "annotations.xml").write_text(text, encoding="utf-8")


def read(root: Path, boxes: str = "skip") -> tuple[Export, Notes]:
    notes = Notes()
    return read_cvat(root, ReadSettings(boxes=boxes), notes), notes


def draw(root: Path, boxes: str = "skip") -> np.ndarray:
    export, notes = read(root, boxes)
    (label,) = draw_labels(export, notes).values()
    return label


SHAPES = {
    # Corners of pixels: x 1 to 4 and y 1 to 3 are the pixels 1..3 × 1..2.
    "polygon": (
        '<polygon label="car" source="manual" occluded="0" points="1.00,1.00;4.00,1.00;4.00,3.00;1.00,3.00" z_order="0"></polygon>',
        "........ .ccc.... .ccc.... ........ ........ ........",
    ),
    "mask": (  # three columns and two rows of it: 0 1 1, 1 0 1
        '<mask label="car" source="manual" occluded="0" rle="1, 3, 1, 1" left="2" top="3" width="3" height="2" z_order="0"></mask>',
        "........ ........ ........ ...cc... ..c.c... ........",
    ),
    "mask that begins with a pixel": (
        '<mask label="person" occluded="0" rle="0, 2" left="6" top="5" width="2" height="1" z_order="0"></mask>',
        "........ ........ ........ ........ ........ ......pp",
    ),
    # The pixels whose centers are within 2 of (4, 3).
    "ellipse": (
        '<ellipse label="car" source="manual" occluded="0" cx="4.00" cy="3.00" rx="2.00" ry="2.00" z_order="0"></ellipse>',
        "........ ...cc... ..cccc.. ..cccc.. ...cc... ........",
    ),
    # Half axes 3 and 1, turned by 90 degrees: 1 and 3.
    "turned ellipse": (
        '<ellipse label="car" occluded="0" cx="4.00" cy="3.00" rx="3.00" ry="1.00" rotation="90.00" z_order="0"></ellipse>',
        "...cc... ...cc... ...cc... ...cc... ...cc... ...cc...",
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_cover_the_pixels_counted_by_hand(name: str, tmp_path: Path) -> None:
    shape, picture = SHAPES[name]
    np.testing.assert_array_equal(draw(write_export(tmp_path, shape)), paint(picture, IDS))


def test_angles_are_clockwise(tmp_path: Path) -> None:
    shape = '<ellipse label="car" occluded="0" cx="4.00" cy="3.00" rx="4.00" ry="0.50" rotation="45.00" z_order="0"></ellipse>'
    label = draw(write_export(tmp_path, shape))
    assert (label[4, 5], label[1, 2]) == (0, 0)  # down to the right
    assert (label[4, 2], label[1, 5]) == (254, 254)


def test_boxes_are_left_out_unless_they_are_to_be_filled(tmp_path: Path) -> None:
    box = (
        '<box label="car" source="manual" occluded="1" xtl="1.00" ytl="1.00" xbr="4.00" ybr="3.00" {}z_order="0"></box>'
    )
    root = write_export(tmp_path / "straight", box.format(""))
    export, notes = read(root)
    assert notes.list_lines() == [
        "boxes without an outline are left out; boxes=fill fills them: 1, the first is "
        f"<box> 1 ('car') of a.png in {root / 'annotations.xml'}"
    ]
    assert export.images[0].content == ()
    picture = "........ .ccc.... .ccc.... ........ ........ ........"
    np.testing.assert_array_equal(draw(root, "fill"), paint(picture, IDS))
    # 4 by 2 about (3, 3), turned by 90 degrees: x 2 to 4 and y 1 to 5.
    turned = (
        '<box label="car" occluded="0" xtl="1.00" ytl="2.00" xbr="5.00" ybr="4.00" rotation="90.00" z_order="0"></box>'
    )
    picture = "........ ..cc.... ..cc.... ..cc.... ..cc.... ........"
    np.testing.assert_array_equal(draw(write_export(tmp_path / "turned", turned), "fill"), paint(picture, IDS))


def test_a_greater_z_order_lies_on_top_and_then_what_stands_later(tmp_path: Path) -> None:
    polygon = '<polygon label="{}" occluded="0" points="{}" z_order="{}"></polygon>'
    wide, narrow = "0,0;8,0;8,2;0,2", "2,0;4,0;4,2;2,2"
    above = polygon.format("person", wide, 1) + polygon.format("car", narrow, 0)
    later = polygon.format("person", narrow, 3) + polygon.format("car", wide, 3)
    lower = polygon.format("person", wide, -1) + polygon.format("car", narrow, -2)
    rest = " ........ ........ ........ ........"
    for name, shapes, row in (("above", above, "pppppppp"), ("later", later, "cccccccc"), ("lower", lower, "pppppppp")):
        np.testing.assert_array_equal(draw(write_export(tmp_path / name, shapes)), paint(f"{row} {row}{rest}", IDS))


@pytest.mark.parametrize("kind", ["task", "project", "job"])
def test_classes_have_the_colors_and_the_order_of_the_labels(kind: str, tmp_path: Path) -> None:
    export, notes = read(write_export(tmp_path, "", {"b": "#0a0b0c", "a": ""}, kind=kind))
    assert [*export.classes] == [("b", (10, 11, 12)), ("a", None)]
    assert (export.images[0].size, export.images[0].split, export.is_ordered) == ((6, 8), None, True)
    assert notes.list_lines() == []


def test_void_labels_are_ignored_pixels_and_background_is_the_background(tmp_path: Path) -> None:
    shape = '<polygon label="Void" occluded="0" points="0,0;2,0;2,1;0,1" z_order="0"></polygon>'
    root = write_export(tmp_path, shape, {"Background": "#000000", "car": "#ff0000", "Void": "#ffffff"})
    export, notes = read(root)
    assert [entry.name for entry in export.classes] == ["Background", "car"]
    assert export.background == "Background"
    assert draw_labels(export)["a"][0, :3].tolist() == [IGNORED, IGNORED, 254]
    assert notes.list_lines() == ["regions of labels such as void are ignored pixels: 1, the first is 'Void' in a"]


def test_what_has_no_area_is_named(tmp_path: Path) -> None:
    shapes = """
      <polyline label="car" occluded="0" points="0.00,0.00;3.00,3.00" z_order="0"></polyline>
      <points label="car" occluded="0" points="0.00,0.00" z_order="0"><attribute name="color">red</attribute></points>
      <points label="car" occluded="0" points="1.00,0.00" z_order="0"></points>
      <cuboid label="car" occluded="0" xtl1="1" ytl1="1" xbl1="1" ybl1="2" z_order="0"></cuboid>
      <skeleton label="car" z_order="0"><points label="1" occluded="0" outside="0" points="5,5"></points></skeleton>
      <tag label="night" source="manual"></tag>
      <hexagon label="car"></hexagon>"""
    root = write_export(tmp_path, shapes)
    _, notes = read(root)
    place = f"of a.png in {root / 'annotations.xml'}"
    assert notes.list_lines() == [
        f"shapes <polyline> have no area and are left out: 1, the first is <polyline> 1 ('car') {place}",
        f"attributes are left out: 1, the first is <points> 2 ('car') {place}",
        f"shapes <points> have no area and are left out: 2, the first is <points> 2 ('car') {place}",
        f"shapes <cuboid> have no area and are left out: 1, the first is <cuboid> 4 ('car') {place}",
        f"shapes <skeleton> have no area and are left out: 1, the first is <skeleton> 5 ('car') {place}",
        f"shapes <tag> have no area and are left out: 1, the first is <tag> 6 ('night') {place}",
        f"shapes <hexagon> are unknown and are left out: 1, the first is <hexagon> 7 ('car') {place}",
    ]


def test_subsets_of_a_project_are_splits(tmp_path: Path) -> None:
    label = "<meta><project><labels><label><name>car</name></label></labels></project></meta>"
    images = ""
    for number, (subset, task) in enumerate([("Train", 1), ("Validation", 2), ("default", 3)]):
        images += f'<image id="{number}" name="a.png" subset="{subset}" task_id="{task}" width="8" height="6"></image>'
        write_image(tmp_path / "images" / subset / "a.png", value=number)
    write_xml(tmp_path, label + images)
    export, notes = read(tmp_path)
    found = [(image.path.parent.name, image.name, image.split) for image in export.images]
    assert found == [("Train", "a", "Train"), ("Validation", "a", "Validation"), ("default", "a", None)]
    assert notes.list_lines() == []


def test_several_tasks_in_one_folder_are_read_together(tmp_path: Path) -> None:
    shape = '<polygon label="car" occluded="0" points="0,0;8,0;8,6;0,6" z_order="0"></polygon>'
    write_export(tmp_path / "task 1", shape)
    write_export(tmp_path / "tâche [2]", "", {"person": "#00ff00", "car": "#0000ff"})
    export, notes = read(tmp_path)
    assert [*export.classes] == [("car", (255, 0, 0)), ("person", (0, 255, 0))]
    assert [image.path.parent.parent.name for image in export.images] == ["task 1", "tâche [2]"]
    assert [len(image.content) for image in export.images] == [1, 0]
    assert "labels have another color in another file, and keep the first: 1" in notes.list_lines()[0]


def test_blanks_around_labels_do_not_count(tmp_path: Path) -> None:
    shape = '<polygon label=" car" occluded="0" points="0,0;8,0;8,6;0,6" z_order="0"></polygon>'
    assert (draw(write_export(tmp_path, shape, {"car ": "#ff0000"})) == 0).all()


def test_hidden_files_are_not_read(tmp_path: Path) -> None:
    write_export(tmp_path, "")
    hidden = tmp_path / "__MACOSX" / "annotations.xml"
    hidden.parent.mkdir()
    hidden.write_bytes(b"\0\1")
    assert len(read(tmp_path)[0].images) == 1


def test_images_of_a_video_task_are_found_without_their_suffix(tmp_path: Path) -> None:
    root = write_export(tmp_path, "")
    text = (root / "annotations.xml").read_text(encoding="utf-8").replace("a.png", "frame_000010")
    (root / "annotations.xml").write_text(text, encoding="utf-8")
    (root / "images" / "a.png").rename(root / "images" / "frame_000010.PNG")
    assert read(root)[0].images[0].name == "frame_000010"


def test_the_xml_file_alone_and_images_elsewhere(tmp_path: Path) -> None:
    root = write_export(tmp_path / "export", "")
    (root / "images").rename(tmp_path / "photos")
    settings = ReadSettings(image_folder=tmp_path / "photos")
    export = read_cvat(root / "annotations.xml", settings, Notes())
    assert export.images[0].path == tmp_path / "photos" / "a.png"
    notes = Notes()
    assert read_cvat(root, ReadSettings(), notes).images == []
    assert notes.list_lines() == ["images are missing and left out: 1, the first is a.png"]


MASK = '<mask label="car" occluded="0" rle="{}" left="0" top="0" width="3" height="2" z_order="0"></mask>'
FAULTS = {
    "a mask of the wrong size": (MASK.format("1, 3, 1, 2"), r"<mask> 1 \('car'\) of a\.png .* has runs of 7 pixels in all, .* of 2×3"),
    "runs beyond any number": (MASK.format("9223372036854775807, 9223372036854775807, 8"), "for a mask of 2×3"),
    "runs of too many digits": (MASK.format("99999999999999999999"), "it needs lengths of runs"),
    "a corner that is no number": ('<mask label="car" rle="6" left="nan" top="0" width="3" height="2"/>', "has the left 'nan'"),
    "negative runs": (MASK.format("1, -3, 8"), "has runs of 6 pixels"),
    "runs that are no numbers": (MASK.format("1, x"), "has the rle '1, x'; it needs lengths of runs"),
    "no runs": ('<mask label="car" left="0" top="0" width="3" height="2"/>', "rle"),
    "a box without a side": ('<mask label="car" left="0" top="0" width="3"/>', "has no height; it needs a number"),
    "coordinates": ('<polygon label="car" points="1,2;3"/>', "has the points '1,2;3'; it needs x,y;x,y;…"),
    "no coordinates": ('<polygon label="car" points=""/>', "has the points ''"),
    "a z-order": ('<polygon label="car" points="1,2;3,4;5,9" z_order="top"/>', "has the z_order 'top'"),
    "an unknown label": (
        '<polygon label="tram" points="1,2;3,4;5,9"/>',
        r"a region of a has the label 'tram', which <meta> of annotations\.xml does not name",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_damaged_shapes_are_refused_with_their_place(name: str, tmp_path: Path) -> None:
    shape, message = FAULTS[name]
    with pytest.raises(UserError, match=message):
        read(write_export(tmp_path, shape))


def test_other_files_are_refused_with_what_to_export(tmp_path: Path) -> None:
    cases = {
        "<annotations><track id='0' label='car'><box frame='0'/></track></annotations>": r"'CVAT for video 1\.1', which is not read",
        "<annotation><folder>VOC</folder></annotation>": "holds <annotation>, not CVAT's <annotations>",
        "<annotations><image": "is no valid XML",
        "": "is no valid XML",
        "<?xml version='1.0' encoding='klingon'?><annotations/>": "is no valid XML",
        "<annotations><meta/></annotations>": "names no labels in <meta>",
    }
    for text, message in cases.items():
        (tmp_path / "annotations.xml").write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=message):
            read(tmp_path)
    (tmp_path / "annotations.xml").unlink()
    with pytest.raises(UserError, match=r"is no export of CVAT; .*from=coco and from=yolo"):
        read(tmp_path)


def test_entities_are_neither_expanded_nor_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret", encoding="utf-8")
    bomb = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><annotations>&b;</annotations>'
    external = f'<!DOCTYPE x [<!ENTITY a SYSTEM "{secret.as_uri()}">]><annotations>&a;</annotations>'
    for text in (bomb, external):
        (tmp_path / "annotations.xml").write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match="declares a document type"):
            read(tmp_path)


def test_an_image_that_is_annotated_twice_is_refused(tmp_path: Path) -> None:
    root = write_export(tmp_path, "")
    text = (root / "annotations.xml").read_text(encoding="utf-8")
    image = text[text.index("<image") : text.index("</annotations>")]
    (root / "annotations.xml").write_text(text.replace(image, image + image), encoding="utf-8")
    with pytest.raises(UserError, match=r"annotates a\.png twice, in the subset default"):
        read(root)


def test_masks_come_back_exactly(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    label = generator.integers(0, 2, (6, 8))
    shapes = ""
    for value, name in enumerate(LABELS):
        flat = (label == value).ravel().astype(int)
        edges = np.flatnonzero(np.diff(flat, prepend=0))
        runs = np.diff(np.concatenate([[0], edges, [flat.size]]))
        rle = ", ".join(map(str, runs))
        shapes += (
            f'<mask label="{name}" occluded="0" rle="{rle}" left="0" top="0" width="8" height="6" z_order="0"></mask>'
        )
    np.testing.assert_array_equal(draw(write_export(tmp_path, shapes)), label)
