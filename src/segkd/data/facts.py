"""What networks and losses need to know of data: classes, pixel statistics and image size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from segkd.errors import UserError


class DataFacts(Protocol):
    """Facts of data; every `SegmentationDataset` has them."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in order."""

    @property
    def mean(self) -> tuple[float, ...]:
        """RGB, 0..255."""

    @property
    def std(self) -> tuple[float, ...]:
        """RGB, 0..255."""

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the images; None if unknown."""

    @property
    def display_name(self) -> str:
        """Name in messages."""


@dataclass(frozen=True)
class OwnData:
    """Facts of data that a user's own code loads."""

    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int] | None = None
    display_name: str = "your data"

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: mean and std are not three numbers each, or std is not positive.
        """
        if len(self.mean) != 3 or len(self.std) != 3 or not min(self.std) > 0:
            raise UserError(
                f"mean={self.mean} and std={self.std} are RGB in 0..255; give three numbers each, std above 0"
            )
