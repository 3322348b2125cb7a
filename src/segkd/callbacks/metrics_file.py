"""The curves of a run on disk, whatever else happens."""

from __future__ import annotations

import csv
from argparse import Namespace
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

METRICS = "metrics.csv"


class MetricsFile(Logger):
    """`metrics.csv`: a row for each logged step, a column for each curve; empty where a curve has no value.

    An existing file is continued, so that a resumed run has one file. A curve that first appears later widens the table.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.path = directory / METRICS
        self._columns: list[str] = []

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's folder holds its config."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        row = {"step": step, **metrics}
        known = self._columns or self._existing()
        if missing := [name for name in row if name not in known]:
            self._columns = [*known, *missing]
            self._widen()
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def _existing(self) -> list[str]:
        if self.path.is_file():
            with self.path.open(newline="") as file:
                self._columns = next(csv.reader(file), [])
        return self._columns

    def _widen(self) -> None:
        rows: list[dict[str, str]] = []
        if self.path.is_file():
            with self.path.open(newline="") as file:
                rows = list(csv.DictReader(file))
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
