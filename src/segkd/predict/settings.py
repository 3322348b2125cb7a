"""Settings of `python -m segkd.predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, StrictBool

from segkd.config.renamed_values import refuse_renamed
from segkd.config.schema import DatasetOfRun, OptionalNetwork, Settings
from segkd.predict.rendering import OutputKind

_RENAMED_OUTPUTS = {"labels": "class_ids", "city_ids": "label_ids", "colors": "color_masks"}


class PredictSettings(Settings):
    """Settings of `python -m segkd.predict`."""

    run: Path | Annotated[list[Path], Field(min_length=1)] | None
    model: OptionalNetwork = None
    checkpoint: Path | Annotated[list[Path], Field(min_length=1)] | None
    input: str | None
    dataset: DatasetOfRun
    split: str | None
    sequence: str
    output: Path | None
    outputs: Annotated[list[Annotated[OutputKind, refuse_renamed(_RENAMED_OUTPUTS)]], Field(min_length=1)] | None
    opacity: float = Field(ge=0, le=1)
    legend: StrictBool
    fps: Annotated[float, Field(ge=1, le=240)] | None
    width: Annotated[int, Field(ge=16)] | None
    limit: PositiveInt | None
    batch_size: PositiveInt
    overwrite: StrictBool
    accelerator: Literal["auto", "cpu", "gpu", "cuda"]

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
