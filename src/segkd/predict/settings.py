"""Settings of `python -m segkd.predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, StrictBool

from segkd.config.renamed_values import refuse_renamed
from segkd.config.schema import Accelerator, CheckClasses, DatasetOfRun, OptionalNetwork, Settings
from segkd.predict.rendering import OutputKind

_RENAMED_OUTPUTS = {"labels": "class_ids", "city_ids": "label_ids", "colors": "color_masks"}


class PredictSettings(Settings):
    """Settings of `python -m segkd.predict`."""

    run: Path | Annotated[list[Path], Field(min_length=1)] | None = Field(
        description="folders of finished runs with the same classes, or", json_schema_extra={"values": "DIR|[DIR,…]"}
    )
    model: OptionalNetwork = Field(
        default=None,
        description="a network, with its weights in checkpoint=FILE, and its classes beside them or by dataset=NAME",
        json_schema_extra={"values": "NAME"},
    )
    checkpoint: Path | Annotated[list[Path], Field(min_length=1)] | None = Field(
        description="weights of the network; several files are compared", json_schema_extra={"values": "FILE|[FILE,…]"}
    )
    input: str | None = Field(
        description="an image, a folder of images, a video, or a camera until Ctrl-C; or",
        json_schema_extra={"values": "FILE|DIR|camera|camera:N"},
    )
    dataset: DatasetOfRun = Field(
        description="the dataset of split=NAME, or that names the classes of model=NAME; null: the run's own"
    )
    split: str | None = Field(
        description="a split of the dataset, in place of input", json_schema_extra={"values": "NAME|null"}
    )
    check_classes: CheckClasses
    sequence: str = Field(
        description="beginning of the image names to predict in the split; '': all",
        json_schema_extra={"values": "TEXT"},
    )
    output: Path | None = Field(
        description="a folder, or one .mp4, .gif, .png or .jpg file",
        json_schema_extra={"values": "DIR|FILE", "required": True},
    )
    outputs: Annotated[list[Annotated[OutputKind, refuse_renamed(_RENAMED_OUTPUTS)]], Field(min_length=1)] | None = (
        Field(
            description="what to write; null: class_ids, color_masks and overlay into a folder, overlay into a file, "
            "side_by_side for several networks",
            json_schema_extra={"values": "[NAME,…]|null"},
        )
    )
    ids: Literal["index", "own"] = Field(
        description="values of class_ids and of the labels in dataset: classes counted from 0, or the ids of the dataset's own labels"
    )
    min_confidence: Annotated[float, Field(gt=0, le=1)] | None = Field(
        description="smallest softmax probability of a class; pixels below are ignored; null: none are"
    )
    window: tuple[PositiveInt, PositiveInt] | None = Field(
        description="size of a sliding window, whose logits are averaged, for large images; null: the whole image",
        json_schema_extra={"values": "[HEIGHT,WIDTH]|null"},
    )
    overlap: float = Field(ge=0, lt=1, description="overlap of neighboring windows, as a fraction of their size")
    opacity: float = Field(ge=0, le=1, description="opacity of the colors in overlay")
    legend: StrictBool = Field(
        description="show the colors of the classes, below the image of a file or as legend.png in a folder"
    )
    fps: Annotated[float, Field(ge=1, le=240)] | None = Field(
        description="frames per second of a video; null: those of the input, or 10"
    )
    width: Annotated[int, Field(ge=16)] | None = Field(
        description="width of a video in pixels; null: that of the images"
    )
    limit: PositiveInt | None = Field(description="greatest number of frames; null: all")
    batch_size: PositiveInt = Field(description="images of one size per forward pass")
    overwrite: StrictBool = Field(description="replace existing files")
    accelerator: Accelerator = Field(description="device to compute on")

    @property
    def runs(self) -> list[Path]:
        """Folders of runs."""
        return _as_list(self.run)

    @property
    def checkpoints(self) -> list[Path]:
        """Files of weights."""
        return _as_list(self.checkpoint)


def _as_list(value: Path | list[Path] | None) -> list[Path]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
