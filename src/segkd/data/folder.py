"""A user's own images and labels in a folder, described by a yaml file."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from segkd.data.base import FileDataset
from segkd.data.class_table import read_class_table
from segkd.data.discovery import FoundImages, count_files, find_images, is_hidden
from segkd.data.folder_splits import SPLIT_NAMES, ImageSplits, describe_splits, explain_deviation, split_images
from segkd.data.label_names import find_misnamed_labels, find_unpaired_labels, pair_with_labels
from segkd.data.splitting import REST
from segkd.errors import UserError

log = logging.getLogger(__name__)

METADATA_FILE = "classes.yaml"
_RULE = "`splits: {val: 0.2}`"


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
        splits: {val: 0.2, test: 0.1, seed: 0, group: '[^_]+', near_duplicates: true}
                                  splits `images/**` with labels `labels/**` by rule; see `assign_splits`

    Raises:
        UserError: See `FileDataset`; or `classes.yaml` is missing or invalid, or the images cannot be split by its rule.
    """

    download_hint = (
        f"make images/train, images/val, labels/train, labels/val and {METADATA_FILE} there, or let {_RULE} in {METADATA_FILE} "
        "split images/ and labels/ (docs/how-to/custom-dataset.md)"
    )

    def __init__(self, root: str | Path | None, split: str, complete: bool = True) -> None:
        folder = self.resolve_root(root)
        table = read_class_table(folder / METADATA_FILE, folder.resolve().name)
        self._display_name = table.name
        self.label_encoding, self.label_suffix = table.label_encoding, table.label_suffix
        self.classes, self.colors, self.label_map = table.classes, table.colors, table.label_map
        self.given_colors, self.ignores_by_default = table.given_colors, table.ignores_by_default
        self.size, self.mean, self.std = table.size, table.mean, table.std
        self.split_rule = table.split_rule
        self.root = folder
        self.splits = self._find_splits(split)
        super().__init__(root, split, complete)

    @property
    def display_name(self) -> str:
        """The key `name`, or the folder's name."""
        return self._display_name

    def _find_splits(self, split: str) -> tuple[str, ...]:
        """Return the names of the splits: those of the rule, or else the folders in `images`."""
        images = self.root / "images"
        folders = sorted(path.name for path in images.glob("*/") if not is_hidden(path.name))
        if self.split_rule is not None:
            if both := [name for name in folders if name.lower() in SPLIT_NAMES]:
                raise UserError(
                    f"{images} has the folder {' and '.join(both)}, and {self.root / METADATA_FILE} has `splits`; remove "
                    "`splits` to keep the folders, or move all images into images/ and all labels into labels/"
                )
            return REST, *self.split_rule.fractions
        if not folders:
            raise UserError(f"{images} has no folder of a split; {self.download_hint}")
        if split not in folders and not {*folders} & {"train", "val"}:
            raise UserError(
                f"{self.display_name} has no split '{split}'; it has {', '.join(folders)}; if these are no splits, split all "
                f"images with {_RULE} in {METADATA_FILE}"
            )
        return tuple(folders)

    @cached_property
    def rule_splits(self) -> ImageSplits | None:
        """The splits of all images by the rule; None if there is no rule, or no image."""
        if self.split_rule is None or not self._all_images.paths:
            return None
        try:
            return split_images({self._name_image(path): path for path in self._all_images.paths}, self.split_rule)
        except UserError as error:
            raise UserError(f"{self.root / METADATA_FILE}: {error}") from None

    @cached_property
    def _all_images(self) -> FoundImages:
        return find_images(self.root / "images")

    @cached_property
    def _all_pairs(self) -> list[tuple[Path, Path]]:
        images, labels = self.root / "images", self.root / "labels"
        return pair_with_labels(self._all_images.paths, images, labels, self.label_suffix)

    def find_image_label_pairs(self, split: str) -> list[tuple[Path, Path]]:
        """Pair images with labels of the same relative path."""
        if self.split_rule is not None:
            split_of = self.rule_splits.split_of if self.rule_splits else {}
            return [pair for pair in self._all_pairs if split_of[self._name_image(pair[0])] == split]
        images, labels = self.root / "images" / split, self.root / "labels" / split
        return pair_with_labels(self.find_images(split).paths, images, labels, self.label_suffix)

    def find_labels_without_image(self, split: str) -> list[Path]:
        """Return the files of `labels/SPLIT`, or with a rule of `labels`, that have no image."""
        has_rule = self.split_rule is not None
        pairs = self._all_pairs if has_rule else self.find_image_label_pairs(split)
        folder = self.root / "labels" if has_rule else self.root / "labels" / split
        misnamed = {*self.misnamed_labels.values()}
        return [label for label in find_unpaired_labels(pairs, folder, self.label_suffix) if label not in misnamed]

    def find_images(self, split: str) -> FoundImages:
        """Return the images of `images/SPLIT`, or with a rule of the split, and what is left out; `train` has what no split has."""
        if self.split_rule is None:
            return find_images(self.root / "images" / split)
        paths = [image for image, _ in self.find_image_label_pairs(split)]
        return self._all_images._replace(paths=paths) if split == REST else FoundImages(paths, [], [], [])

    def describe_left_out(self) -> list[str]:
        """Return a sentence for each kind of image that is left out; that of images outside of all splits with the first split."""
        sentences = super().describe_left_out()
        is_first = self.split == (REST if REST in self.splits else self.splits[0])
        if is_first and self.split_rule is None:
            loose = find_images(self.root / "images", recursive=False).paths
            sentences += [f"{count_files(loose)} in no folder of a split and left out; move into one"] if loose else []
        return sentences

    def describe_splits(self) -> str:
        """Return a sentence on what the rule makes of the images; empty without a rule."""
        return f"`splits` divides {describe_splits(self.rule_splits)}" if self.rule_splits else ""

    def check_complete(self) -> None:
        """Check the split as any dataset does, and log if it gets another part of the images than the rule asks for."""
        super().check_complete()
        if self.rule_splits and (deviation := explain_deviation(self.rule_splits, self.split)):
            log.warning("%s: %s", self.root / METADATA_FILE, deviation)

    @cached_property
    def misnamed_labels(self) -> Mapping[Path, Path]:
        """Image → the file that may be its label, in `labels` or in another folder of the dataset."""
        images, labels = self.root / "images", self.root / "labels"
        others = sorted(
            path for path in self.root.glob("*/") if path not in (images, labels) and not is_hidden(path.name)
        )
        if self.split_rule is not None:
            found = find_misnamed_labels(self._all_pairs, images, [labels, *others, images])
            return {image: found[image] for image, _ in self.files if image in found}
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
        return self._name_image(self.files[index][0])

    def _name_image(self, path: Path) -> str:
        # Users often number the images of each split from 0, so the stem alone is ambiguous.
        return path.relative_to(self.root / "images").with_suffix("").as_posix()
