"""Evaluation protocols: the inference mode, and the treatment of void."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from segkd.data.base import SegmentationDataset
from segkd.data.cityscapes import Cityscapes
from segkd.errors import UserError
from segkd.evaluate.loop import compute_confusion_matrices
from segkd.models.base import SegmentationModel
from segkd.models.inference import Inferer, check_window, infer_half_resolution, infer_whole_image, make_inferer


@dataclass(frozen=True)
class Protocol:
    """Everything that two scores must share to be comparable.

    Attributes:
        name: `espnet` is the protocol of Mehta et al. (2018) on Cityscapes: half-size images, void as a possible
            prediction, classes upsampled by nearest neighbor.
        void: `counted`: a prediction of void is wrong; `ignored`: void cannot be predicted.
        window: height and width of sliding windows in pixels; None: the whole image.
        overlap: of neighboring windows, in [0, 1).
        scales: image scales over which probabilities are averaged.
        flip: average over the mirrored image too.
    """

    name: Literal["standard", "espnet"]
    void: Literal["ignored", "counted"]
    window: tuple[int, int] | None
    overlap: float
    scales: list[float]
    flip: bool

    @property
    def void_competes(self) -> bool:
        """Whether a network may predict void."""
        return self.void == "counted" or self.name == "espnet"

    def make_inferer(self, dataset: SegmentationDataset, network: SegmentationModel) -> Inferer:
        """Return the inference mode.

        Raises:
            UserError: the protocol does not fit the dataset or other settings, or windows are too small for the network.
        """
        inferer = make_inferer(self.window, self.overlap, self.scales, self.flip)
        if self.name == "espnet":
            if not isinstance(dataset, Cityscapes):
                raise UserError(
                    f"protocol=espnet is for Cityscapes, not for {dataset.display_name}; leave it out "
                    "(on CamVid, Mehta et al. report void=counted)"
                )
            if inferer is not infer_whole_image or self.void != "ignored":
                raise UserError(
                    "protocol=espnet sets inference and void itself; leave window, scales, flip and void out"
                )
            return infer_half_resolution
        check_window(self.window, network)
        return inferer

    def compute_matrices(
        self, network: SegmentationModel, dataset: SegmentationDataset, inferer: Inferer, **options: Any
    ) -> Tensor:
        """Return the confusion matrix of each image, N K K; `options` go to `compute_confusion_matrices`."""
        matrices = compute_confusion_matrices(
            network, dataset, count_void=self.void_competes, inferer=inferer, **options
        )
        if self.name == "espnet":
            # The official scorer accepts void as a prediction, but ignores pixels whose label is void.
            matrices[:, -1] = 0
        return matrices

    def to_dict(self, dataset: SegmentationDataset, network: SegmentationModel) -> dict[str, Any]:
        """Describe the protocol in words, for `evaluation.json`.

        Scores are compared only if these words are equal; `runs/compatibility.py` has those of earlier versions.
        """
        scales = "single scale" if self.scales == [1] else f"scales {', '.join(f'{s:g}' for s in self.scales)}"
        window = self.window
        region = "whole image" if window is None else f"windows of {window[0]}×{window[1]}, overlap {self.overlap:g}"
        size, upsampling = "the label's size", ""
        if self.name == "espnet":
            region = "whole image at half its size"
            size, upsampling = "the input's size", "; classes doubled by nearest neighbor"
        return {
            "void": self.void,
            "competing": "all outputs of the network" if self.void_competes else "the dataset's classes",
            "input": f"{region}, {scales}, {'flip' if self.flip else 'no flip'}",
            "logits": f"enlarged bilinearly to {size}, align_corners={network.align_corners}{upsampling}",
            "mean_over": f"{len(dataset.classes)} classes, from one confusion matrix over all images (rows = truth)",
        }
