"""`python -m segkd.import`: write labels that an annotation tool exported as a `dataset=folder`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from omegaconf import DictConfig
from pydantic import Field, NonNegativeFloat, PositiveInt

from segkd.cli.quoting import format_shell_override
from segkd.config.schema import Settings, load_settings
from segkd.data.folder import METADATA_FILE
from segkd.data.proposal import format_proposal
from segkd.errors import UserError
from segkd.import_labels.annotations import IGNORED, Export, Notes, Outline, ReadSettings
from segkd.import_labels.archives import open_export
from segkd.import_labels.class_list import ClassList, Unlabeled, describe_classes, list_classes
from segkd.import_labels.destination import check_destination, replace_folder
from segkd.import_labels.formats.coco import read_coco
from segkd.import_labels.formats.cvat import read_cvat
from segkd.import_labels.formats.folder import read_folder
from segkd.import_labels.formats.labelme import read_labelme
from segkd.import_labels.formats.roboflow import read_roboflow
from segkd.import_labels.formats.supervisely import read_supervisely
from segkd.import_labels.formats.yolo import read_yolo
from segkd.import_labels.splits import SplitSettings, choose_splits, find_names
from segkd.import_labels.write import Job, Summary, Transfer, Writer
from segkd.utils.tables import print_table

log = logging.getLogger(__name__)

READERS: Mapping[str, Callable[[Path, ReadSettings, Notes], Export]] = {
    "cvat": read_cvat,
    "coco": read_coco,
    "yolo": read_yolo,
    "labelme": read_labelme,
    "roboflow": read_roboflow,
    "supervisely": read_supervisely,
    "folder": read_folder,
}


class ImportSettings(Settings):
    """Settings of `python -m segkd.import`."""

    source_format: Literal["cvat", "coco", "yolo", "labelme", "roboflow", "supervisely", "folder"] = Field(
        alias="from", description="format of the export"
    )
    input: Path = Field(description="the export: a folder, a file or an archive", json_schema_extra={"values": "PATH"})
    output: Path = Field(description="new folder for the dataset", json_schema_extra={"values": "DIR"})
    image_folder: Path | None = Field(
        description="folder of the images; null: they are in the export", json_schema_extra={"values": "DIR|null"}
    )
    images: Transfer = Field(description="copy the images, or link to them")
    classes: list[str] | None = Field(
        description="classes to import, in the export's order; null: all", json_schema_extra={"values": "[NAME,…]|null"}
    )
    unlabeled: Unlabeled = Field(description="pixels under no region are a class background, or ignored")
    unused_classes: Literal["keep", "drop"] = Field(description="classes that no pixel has")
    empty_images: Literal["keep", "skip"] = Field(description="images in which nothing is annotated")
    boxes: Literal["skip", "fill"] = Field(description="objects that have a box and no outline")
    crowd: Literal["ignore", "fill", "skip"] = Field(description="COCO's regions that hold a group of objects")
    outlines: Outline | None = Field(
        description="COCO, YOLO: points of outlines lie on the edges of pixels, or are the indices of an object's outermost "
        "pixels, as cv2.findContours returns them; null: COCO's as they look, YOLO's edges"
    )
    val: NonNegativeFloat | None = Field(
        description="part of the images that goes to val; null: the export's own splits, or 0.2 if it has none"
    )
    test: NonNegativeFloat | None = Field(description="part of the images that goes to test; null: none")
    seed: int = Field(description="another number divides the images otherwise")
    group: str | None = Field(
        description="images stay together whose names begin with the same match of this regular expression, such as '[^_]+'; "
        "parent: those of one folder",
        json_schema_extra={"values": "REGEX|parent|null"},
    )
    near_duplicates: bool = Field(description="keep nearly equal images, such as those of one video, together")
    resplit: bool = Field(description="divide all images anew although the export has splits")
    overwrite: bool = Field(description="replace a dataset in the output folder")
    workers: PositiveInt = Field(description="threads")


def import_labels(cfg: DictConfig) -> None:
    """Write the dataset; if that fails, nothing is left under its name. The export is only read.

    Raises:
        UserError: The export cannot be read, holds nothing to import, or the output folder cannot be used.
    """
    settings = load_settings(cfg, ImportSettings)
    if settings.outlines is not None and settings.source_format not in ("coco", "yolo", "roboflow"):
        raise UserError(
            f"from={settings.source_format} says itself what points are; leave out outlines={settings.outlines}"
        )
    check_destination(settings.output, [settings.input, settings.image_folder], settings.overwrite)
    notes = Notes()
    with open_export(settings.input) as source, TemporaryDirectory(prefix="segkd-import-") as scratch:
        export = _read(source, Path(scratch), settings, notes)
        class_list = list_classes(export, settings.classes, settings.unlabeled, notes)
        summary, classes = _write(export, class_list, settings, notes)
    for line in notes.list_lines():
        log.warning("%s", line.replace(str(source), str(settings.input)))  # an archive, and not where it was unpacked
    _print_classes(classes, summary)
    _print_summary(class_list, export, summary, settings)


def _read(source: Path, scratch: Path, settings: ImportSettings, notes: Notes) -> Export:
    read_settings = ReadSettings(settings.boxes, settings.crowd, settings.outlines, settings.image_folder, scratch)
    export = READERS[settings.source_format](source, read_settings, notes)
    empty = [image for image in export.images if image.content == ()]
    if empty:
        fill = "ignored" if settings.unlabeled == "ignore" else settings.unlabeled
        fate = "left out" if settings.empty_images == "skip" else f"kept, all {fill}"
        notes.add(f"images without annotations are {fate}", str(empty[0].path), len(empty))
    if settings.empty_images == "skip":
        export = export._replace(images=[image for image in export.images if image.content != ()])
    if not export.images:
        reasons = "".join(f"; {line}" for line in notes.list_lines())
        is_fixed = settings.image_folder is not None or settings.source_format == "yolo"
        cure = "" if is_fixed else "; if the images lie elsewhere, give image_folder=DIR"
        raise UserError(f"{settings.input} holds no image to import as from={settings.source_format}{reasons}{cure}")
    temporary = {scratch, source} - {settings.input}
    if settings.images == "symlink" and any(temporary & {*image.path.parents} for image in export.images):
        raise UserError(
            "images=symlink cannot link into an archive or a JSON file; give images=copy, or unpack it first"
        )
    return export


def _write(
    export: Export, class_list: ClassList, settings: ImportSettings, notes: Notes
) -> tuple[Summary, list[dict[str, Any]]]:
    """Write everything; return what was written, and the entries of `classes`."""
    split_settings = SplitSettings(*(getattr(settings, name) for name in SplitSettings._fields))
    splits = choose_splits(export.images, split_settings, notes)
    names = find_names(export.images, splits, notes)
    jobs = [Job(*job) for job in zip(export.images, names, splits, strict=True)]
    with replace_folder(settings.output) as folder:
        summary = Writer(folder, export, class_list, settings.images).write(jobs, settings.workers, notes)
        classes = describe_classes(class_list, summary.pixels, settings.unused_classes, notes)
        (height, width), _ = summary.sizes.most_common(1)[0]
        table = {"classes": classes, "size": [height, width], "ignore": [IGNORED]}
        source = f"# imported by `python -m segkd.import from={settings.source_format}`"
        (folder / METADATA_FILE).write_text(f"{source}\n{format_proposal(table)}\n", encoding="utf-8")
    return summary, classes


def _print_classes(classes: Sequence[Mapping[str, Any]], summary: Summary) -> None:
    percent = 100 * summary.pixels / summary.pixels.sum()
    rows = [["class", "id", "pixels %"]]
    rows += [[entry["name"], str(entry["id"]), f"{percent[entry['id']]:.3f}"] for entry in classes]
    rows.append(["ignored", str(IGNORED), f"{percent[IGNORED]:.3f}"])
    print_table(rows, "table")


def _print_summary(class_list: ClassList, export: Export, summary: Summary, settings: ImportSettings) -> None:
    order = "in the order of the export" if export.is_ordered else "smaller ones over larger ones"
    fill = "ignored" if class_list.unlabeled == IGNORED else class_list.classes[class_list.unlabeled].name
    if any(not callable(image.content) for image in export.images):
        print(f"regions are painted {order}; pixels under none are {fill}")
    splits = ", ".join(f"{count} {split}" for split, count in sorted(summary.splits.items()))
    print(
        f"{sum(summary.splits.values())} images ({splits}) → {settings.output}; "
        f"check them: python -m segkd.check dataset=folder {format_shell_override('dataset.root', settings.output)}"
    )
