"""How the figures of an evaluation are made: how a network looks at an image, and what void does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from segkd.data.base import SegmentationDataset
from segkd.data.cityscapes import Cityscapes
from segkd.errors import UserError
from segkd.evaluate.inference import Inferer, half_resolution, make_inferer, whole_image
from segkd.evaluate.loop import compute_confusion_matrices
from segkd.models.base import SegmentationModel


@dataclass(frozen=True)
class Protocol:
    """All that two figures must share to be comparable.

    Attributes:
        name: `espnet` is Mehta et al.'s way on Cityscapes: half the size, void as an answer, classes doubled by nearest neighbour.
        void: whether pixels that a network calls void count as wrong (`counted`), or void is no answer (`ignored`).
        window: height and width of sliding windows in pixels; None looks at the whole image.
        overlap: of windows, in [0, 1).
        scales: at which an image is looked at; the answers are averaged.
        flip: look at its mirror image too.
    """

    name: Literal["usual", "espnet"]
    void: Literal["ignored", "counted"]
    window: tuple[int, int] | None
    overlap: float
    scales: list[float]
    flip: bool

    @property
    def void_competes(self) -> bool:
        """Whether a network may say void."""
        return self.void == "counted" or self.name == "espnet"

    def view(self, dataset: SegmentationDataset, network: SegmentationModel) -> Inferer:
        """How the network looks at an image.

        Raises:
            UserError: not a way to look at this data set, or windows smaller than the network takes.
        """
        view = make_inferer(self.window, self.overlap, self.scales, self.flip)
        if self.name == "espnet":
            if not isinstance(dataset, Cityscapes):
                raise UserError(
                    f"protocol=espnet is Mehta et al.'s way on Cityscapes, not on {dataset.display_name()}; leave it out "
                    "(on CamVid their figures are those of void=counted)"
                )
            if view is not whole_image or self.void != "ignored":
                raise UserError(
                    "protocol=espnet says how to look and what void does; leave window, scales, flip and void out"
                )
            return half_resolution
        if self.window is not None and min(self.window) < network.min_size:
            raise UserError(
                f"window={list(self.window)} is less than the {network.min_size} pixels that {type(network).__name__} takes"
            )
        return view

    def matrices(self, network: SegmentationModel, dataset: SegmentationDataset, view: Inferer, **how: Any) -> Tensor:
        """The confusion matrix of each image, `N K K`; `how` is passed to `compute_confusion_matrices`."""
        matrices = compute_confusion_matrices(network, dataset, count_void=self.void_competes, view=view, **how)
        if self.name == "espnet":
            matrices[:, -1] = (
                0  # the official scorer lets a network say void, but nothing counts where the label is void
            )
        return matrices

    def facts(self, dataset: SegmentationDataset, network: SegmentationModel) -> dict[str, Any]:
        """In words, as `evaluation.json` holds them."""
        scales = "single scale" if self.scales == [1] else f"scales {', '.join(f'{s:g}' for s in self.scales)}"
        window = self.window
        looks = "whole image" if window is None else f"windows of {window[0]}×{window[1]}, overlap {self.overlap:g}"
        size, then = "the label's size", ""
        if self.name == "espnet":
            looks = "whole image at half its size"
            size, then = "the input's size", "; classes doubled by nearest neighbour"
        return {
            "void": self.void,
            "competing": "all outputs of the network" if self.void_competes else "the data set's classes",
            "input": f"{looks}, {scales}, {'flip' if self.flip else 'no flip'}",
            "logits": f"enlarged bilinearly to {size}, align_corners={network.align_corners}{then}",
            "mean_over": f"{len(dataset.classes)} classes, from one confusion matrix over all images (rows = truth)",
        }
