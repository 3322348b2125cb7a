"""What a logger of segkd is told of its run, and the ids by which a resumed run finds its earlier part."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segkd.runs.layout import LOGGER_IDS_FILE
from segkd.utils.files import atomic_write, write_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunInfo:
    """A run, as its loggers know it."""

    directory: Path
    name: str
    """Of the run; in a sweep, with the values that the job has."""
    group: str | None
    """Of the jobs of a sweep."""
    config: dict[str, Any]
    """Resolved."""
    steps: int = 0
    """At which the run is resumed; 0 for a new run."""
    is_job: bool = False
    """Whether it is one job of a sweep."""

    def find_id(self, logger: str) -> str | None:
        """Return the id that a logger gave to the run before it was resumed; None for a new run, which has no file of ids."""
        value = self._read_ids().get(logger)
        return None if value is None else str(value)

    def keep_id(self, logger: str, value: str) -> None:
        """Keep the id for the run's resumption."""
        ids = {**self._read_ids(), logger: value}
        with atomic_write(self.directory / LOGGER_IDS_FILE) as part:
            write_json(part, ids)

    def _read_ids(self) -> dict[str, Any]:
        try:
            content = json.loads((self.directory / LOGGER_IDS_FILE).read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError:
            content = None
        if not isinstance(content, dict):
            log.warning("%s is damaged; loggers start new runs", self.directory / LOGGER_IDS_FILE)
            return {}
        return content
