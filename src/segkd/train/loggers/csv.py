"""Log the curves of a run to a CSV file."""

from __future__ import annotations

import csv
import logging
import os
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from segkd.runs.layout import METRICS_FILE

log = logging.getLogger(__name__)


class MetricsFileLogger(Logger):
    """Writes `metrics.csv`: a row for each logged step, a column for each curve; empty where a curve has no value.

    An existing file is continued, so that a resumed run has one file. A curve that first appears later adds a column. On a full
    disk, rows are kept until there is room. So it needs no guard.

    Args:
        run: the run's folder.
    """

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.path = run / METRICS_FILE
        self._columns: list[str] = []
        self._pending: list[dict[str, Any]] = []
        self._has_warned = False

    @property
    def name(self) -> str:
        """Empty: the file lies in the run's folder itself."""
        return ""

    @property
    def version(self) -> str:
        """Empty, as the name."""
        return ""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run's folder holds its config."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add a row."""
        self._pending.append({"step": step, **metrics})
        try:
            self._write()
        except OSError as error:
            if not self._has_warned:
                log.warning("%s cannot be written (%s); its rows are kept for later", self.path, error.strerror)
            self._has_warned = True

    def truncate_after(self, steps: int) -> None:
        """Remove the rows of steps that a resumed run repeats, and an incomplete last row."""
        if self.path.is_file():
            columns, rows = self._read()
            complete = [row for row in rows if None not in row.values() and (row.get("step") or "").isdigit()]
            self._replace(columns, [row for row in complete if int(row["step"]) < steps])

    def _write(self) -> None:
        """Append the pending rows; a row that a full disk cuts off is removed again."""
        known = self._columns or (self._read()[0] if self.path.is_file() else [])
        missing = dict.fromkeys(name for row in self._pending for name in row if name not in known)
        if missing:
            rows = self._read()[1] if self.path.is_file() else []
            self._replace([*known, *missing], rows)
        self._columns = [*known, *missing]
        size = self.path.stat().st_size
        try:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self._columns).writerows(self._pending)
        except OSError:
            os.truncate(self.path, size)
            raise
        self._pending.clear()

    def _read(self) -> tuple[list[str], list[dict[str, str]]]:
        with self.path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            return list(reader.fieldnames or []), list(reader)

    def _replace(self, columns: Sequence[str], rows: Sequence[dict[str, str]]) -> None:
        """Rewrite the file; where that fails, it stays as it was."""
        new = self.path.with_suffix(".part")
        with new.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        new.replace(self.path)
