"""A user's own images and labels in a folder, described by a yaml file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from segkd.data.base import FileDataset
from segkd.data.class_table import read_class_table
from segkd.data.discovery import FoundImages, find_images, is_hidden
from segkd.data.label_names import find_misnamed_labels, find_unpaired_labels, pair_with_labels
from segkd.errors import UserError

METADATA_FILE = "classes.yaml"


class Folder(FileDataset):
    """Images `images/SPLIT/**`, labels `labels/SPLIT/**` (PNG, same names) and `classes.yaml`.

    Keys of `classes.yaml`:

        classes: [{name: soil, id: 0, color: [120, 80, 40]}, …]     id: default is the list index; color: or '#785028'; default is distinct
        size: [360, 480]          height and width of most images
        labels: ids               or palette (indices of a PNG palette), or colors
        label_suffix: .png        what follows the image's name, with or without its own suffix, in the label's
        ignore: [255]             ids, or colors, that are ignored; default is 255 unless a class has this id
        mean: [R, G, B]           0..255; like std, as `python -m segkd.stats` prints it; default 127.5
        name: …                   name in results; default is the folder's name

    Raises:
        UserError: See `FileDataset`; or `classes.yaml` is missing or invalid.
    """

    download_hint = f"make images/train, images/val, labels/train, labels/val and {METADATA_FILE} there (docs/how-to/custom-dataset.md)"

    def __init__(self, root: str | Path | None, split: str, complete: bool = True) -> None:
        folder = self.resolve_root(root)
        table = read_class_table(folder / METADATA_FILE, folder.resolve().name)
        self._display_name = table.name
        self.label_encoding, self.label_suffix = table.label_encoding, table.label_suffix
        self.classes, self.colors, self.label_map = table.classes, table.colors, table.label_map
        self.given_colors, self.ignores_by_default = table.given_colors, table.ignores_by_default
        self.size, self.mean, self.std = table.size, table.mean, table.std
        names = (path.name for path in (folder / "images").glob("*/"))
        self.splits = tuple(sorted(name for name in names if not is_hidden(name)))
        if not self.splits:
            raise UserError(f"{folder / 'images'} has no folder of a split; {self.download_hint}")
        super().__init__(root, split, complete)

    @property
    def display_name(self) -> str:
        """The key `name`, or the folder's name."""
        return self._display_name

    def find_image_label_pairs(self, split: str) -> list[tuple[Path, Path]]:
        """Pair images with labels of the same relative path."""
        images, labels = self.root / "images" / split, self.root / "labels" / split
        return pair_with_labels(self.find_images(split).paths, images, labels, self.label_suffix)

    def find_labels_without_image(self, split: str) -> list[Path]:
        """Return the files of `labels/SPLIT` that have no image."""
        pairs, misnamed = self.find_image_label_pairs(split), {*self.misnamed_labels.values()}
        labels = find_unpaired_labels(pairs, self.root / "labels" / split, self.label_suffix)
        return [label for label in labels if label not in misnamed]

    def find_images(self, split: str) -> FoundImages:
        """Return the images of `images/SPLIT`, and what is left out."""
        return find_images(self.root / "images" / split)

    @cached_property
    def misnamed_labels(self) -> Mapping[Path, Path]:
        """Image → the file that may be its label, in `labels` or in another folder of the dataset."""
        images, labels = self.root / "images", self.root / "labels"
        others = sorted(
            path for path in self.root.glob("*/") if path not in (images, labels) and not is_hidden(path.name)
        )
        folders = [
            *(folder / self.split for folder in (labels, *others)),
            *(labels, *others),
            images / self.split,
        ]
        return find_misnamed_labels(self.files, images / self.split, folders)

    def list_source_files(self) -> list[Path]:
        """Return `classes.yaml`, the images and the labels."""
        return [self.root / METADATA_FILE, *super().list_source_files()]

    def get_name(self, index: int) -> str:
        """Return the path below `images`, without suffix."""
        # Users often number the images of each split from 0, so the stem alone is ambiguous.
        return self.files[index][0].relative_to(self.root / "images").with_suffix("").as_posix()
