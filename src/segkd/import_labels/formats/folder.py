"""Read images and label files that lie in folders, in any of the usual layouts."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from segkd.data.folder import METADATA_FILE
from segkd.errors import UserError
from segkd.import_labels.annotations import AnnotatedImage, Export, Notes, ReadSettings
from segkd.import_labels.assemble import find_background, name_by_folders
from segkd.import_labels.formats.cvat_masks import LIST_FOLDER, read_image_lists
from segkd.import_labels.formats.folder_classes import find_classes
from segkd.import_labels.formats.folder_pairs import pair_files
from segkd.import_labels.label_files import read_label_file
from segkd.import_labels.layout import find_layout


def read_folder(path: Path, settings: ReadSettings, notes: Notes) -> Export:
    """Pair images with their labels, and find out what these mean.

    Args:
        path: The folder of images and labels, or of the labels if `settings.image_folder` is given.
        settings: How it is read.
        notes: Gets what is left out.

    Raises:
        UserError: No labels are found, or it is not clear to which image they belong or what their values mean.
    """
    if not path.is_dir():
        raise UserError(f"input={path} is a file; give the folder of the images and the labels")
    path = find_layout(path, lambda folder: (folder / METADATA_FILE).is_file()) or path
    pairs = pair_files(path, settings.image_folder, notes)
    classes, values = find_classes(path, [pair.label for pair in pairs], notes)
    lists = read_image_lists(path / LIST_FOLDER)
    names = name_by_folders([pair.name for pair in pairs])
    images = [
        AnnotatedImage(
            pair.image,
            name,
            partial(read_label_file, pair.label, values),
            split=split or lists.get(str(pair.name.with_suffix("")), lists.get(pair.image.stem)),
        )
        for pair, (name, split) in zip(pairs, names, strict=True)
    ]
    return Export(classes, images, find_background([entry.name for entry in classes]), is_complete=True)
