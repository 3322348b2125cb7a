"""Lines of a dataset's contract about its samples and its files."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from segkd.check_part.dataset_metadata import DatasetCase
from segkd.check_part.findings import ContractFault, NotApplicable, describe_crash, require
from segkd.data.base import FileDataset, SegmentationDataset
from segkd.data.transforms import to_batch
from segkd.errors import UserError
from segkd.types import IGNORE_INDEX

_PER_SPLIT = 5
"""Samples of a split that are read; `segkd.check` reads all."""


def check_samples(case: DatasetCase) -> None:
    """RGB images and classes, uint8, of one height and width."""
    for dataset in case.open_all():
        allowed = {*range(len(dataset.classes)), IGNORE_INDEX}
        for i in _choose(dataset):
            sample, where = dataset[i], f"{dataset.get_name(i)} of {dataset.split}"
            image, label = sample
            for name, array in (("image", image), ("label", label)):
                require(
                    isinstance(array, np.ndarray),
                    f"the {name} of {where} is a {type(array).__name__}; return a NumPy array",
                )
                require(array.dtype == np.uint8, f"the {name} of {where} is {array.dtype}; return uint8, 0..255")
            require(
                image.ndim == 3 and image.shape[2] == 3,
                f"the image of {where} has the shape {image.shape}; return height × width × 3, RGB",
            )
            require(
                label.shape == image.shape[:2],
                f"the label of {where} has the shape {label.shape} and the image {image.shape[:2]}",
            )
            unknown = sorted(set(np.unique(label).tolist()) - allowed)
            require(
                not unknown,
                f"the label of {where} holds {', '.join(map(str, unknown[:5]))}; return classes 0..{len(dataset.classes) - 1}, and "
                f"{IGNORE_INDEX} for void, as load_label and to_classes of FileDataset do",
            )
            to_batch(image, label)


def check_names(case: DatasetCase) -> None:
    """No two images of any splits have one name, since predictions are written under it."""
    owners: dict[str, str] = {}
    for dataset in case.open_all():
        for i in range(len(dataset)):
            name = dataset.get_name(i)
            where = f"image {i} of {dataset.split}"
            require(isinstance(name, str) and bool(name), f"the name of {where} is {name!r}; return a text")
            require(
                name not in owners,
                f"{owners.get(name)} and {where} are both called '{name}'; put the folder before the name",
            )
            owners[name] = where


def check_repeatable_reads(case: DatasetCase) -> None:
    """A split that is opened again holds the same images in the same order, and the same pixels."""
    for dataset in case.open_all():
        again = case.open_split(split=dataset.split)
        names, others = ([d.get_name(i) for i in range(len(d))] for d in (dataset, again))
        require(
            names == others,
            f"{dataset.split} has other images or another order when it is opened again; sort the files",
        )
        _require_equal(dataset, again, "when it is opened again; augmentation is not part of a dataset")


def check_labels_alone(case: DatasetCase) -> None:
    """`load_label` gives the label of the sample."""
    for dataset in case.open_all():
        for i in _choose(dataset):
            equal = np.array_equal(dataset.load_label(i), dataset[i].label)
            require(
                equal, f"load_label gives another label than the sample for {dataset.get_name(i)} of {dataset.split}"
            )


def check_workers(case: DatasetCase) -> None:
    """A copy in another process, as data.workers makes it, reads the same."""
    try:
        copy: SegmentationDataset = pickle.loads(pickle.dumps(case.train))  # noqa: S301  written in this line
    except Exception as error:
        cure = "keep open files, locks and local functions out of its attributes"
        raise ContractFault(f"it cannot be sent to the workers of a loader: {describe_crash(error)}; {cure}") from error
    _require_equal(case.train, copy, "in another process")


def check_missing_label(case: DatasetCase) -> None:
    """An image without a label is named, and left to `segkd.check` with `complete=False`."""
    dataset = _open_files(case)
    absent = dataset.files[0][1].with_name("no such label.png")
    dataset.files[0] = (dataset.files[0][0], absent)
    try:
        dataset.check_complete()
    except UserError as error:
        named = str(absent) in str(error)
        require(named, f"a missing label is told without its path: {error}")
        unpaired = dataset.find_labels_without_image("train")
        require(
            isinstance(unpaired, list),
            f"find_labels_without_image returned a {type(unpaired).__name__}; return a list of paths",
        )
        return
    raise ContractFault("check_complete accepts an image without a label; leave it to FileDataset")


def check_damaged_file(case: DatasetCase) -> None:
    """A file that is no image is named in a sentence."""
    dataset = _open_files(case)
    image, label = dataset.files[0]
    with tempfile.TemporaryDirectory() as folder:
        for is_label, source in enumerate((image, label)):
            damaged = Path(folder) / f"damaged{source.suffix}"
            damaged.write_bytes(source.read_bytes()[:100])
            dataset.files[0] = (image, damaged) if is_label else (damaged, label)
            _check_refused(dataset, damaged, "label" if is_label else "image")


def _check_refused(dataset: FileDataset, damaged: Path, kind: str) -> None:
    cure = "read files with segkd.data.image_io.read_image and FileDataset.load_label"
    try:
        dataset[0]
    except UserError as error:
        require(str(damaged) in str(error), f"a damaged {kind} is told without its path: {error}")
    except Exception as error:
        raise ContractFault(f"a damaged {kind} ends in {describe_crash(error)}; {cure}") from error
    else:
        raise ContractFault(f"a damaged {kind} is read without a word; {cure}")


def _open_files(case: DatasetCase) -> FileDataset:
    """Return the training split, opened anew and without the check that it is complete."""
    if not isinstance(case.train, FileDataset):
        raise NotApplicable("it is no FileDataset")
    dataset = case.open_split(split="train", complete=False)
    assert isinstance(dataset, FileDataset)
    return dataset


def _choose(dataset: SegmentationDataset) -> Iterator[int]:
    """Yield a few indices, spread over the split."""
    count = min(_PER_SPLIT, len(dataset))
    yield from dict.fromkeys(round(i * (len(dataset) - 1) / max(1, count - 1)) for i in range(count))


def _require_equal(dataset: SegmentationDataset, other: SegmentationDataset, when: str) -> None:
    for i in _choose(dataset):
        ours, theirs = dataset[i], other[i]
        equal = np.array_equal(ours.image, theirs.image) and np.array_equal(ours.label, theirs.label)
        require(equal, f"{dataset.get_name(i)} of {dataset.split} has other pixels {when}")
