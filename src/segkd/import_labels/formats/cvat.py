"""Read exports of CVAT: 'CVAT for images 1.1' and 'Segmentation mask 1.1'."""

from __future__ import annotations

from pathlib import Path

from segkd.data.discovery import is_hidden
from segkd.errors import UserError
from segkd.import_labels.annotations import Export, Notes, ReadSettings
from segkd.import_labels.formats.cvat_masks import MASK_FOLDER, read_mask_export
from segkd.import_labels.formats.cvat_xml import ANNOTATION_FILE, read_xml_export
from segkd.import_labels.layout import find_layout

_EXPECTED = (
    f"{ANNOTATION_FILE} ('CVAT for images 1.1') or {MASK_FOLDER} with labelmap.txt ('Segmentation mask 1.1'); "
    "exports as COCO or YOLO are read with from=coco and from=yolo"
)


def read_cvat(path: Path, settings: ReadSettings, notes: Notes) -> Export:
    """Read an export of a task, a job or a project.

    Args:
        path: A folder that holds the export, or an XML file.
        settings: How it is read.
        notes: Where to say what is left out.

    Raises:
        UserError: It is no such export, or it is damaged or contradicts itself.
    """
    if path.is_file():
        return read_xml_export([path], path.parent, settings, notes)
    found = sorted(path.rglob(ANNOTATION_FILE))
    files = [file for file in found if not any(map(is_hidden, file.relative_to(path).parts))]
    masks = find_layout(path, lambda folder: (folder / MASK_FOLDER).is_dir())
    if files and masks:
        raise UserError(f"{path} holds {files[0].relative_to(path)} and {MASK_FOLDER}; give the folder of one export")
    if masks:
        return read_mask_export(masks, settings, notes)
    if files:
        return read_xml_export(files, path, settings, notes)
    raise UserError(f"{path} is no export of CVAT; it has no {_EXPECTED}")
