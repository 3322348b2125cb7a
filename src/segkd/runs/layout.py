"""Names of the files in a run folder."""

from __future__ import annotations

METRICS_FILE = "metrics.csv"


RECORD_FILES = ("config.yaml", "environment.json")


SUMMARY_FILE = "summary.json"


LAST_CHECKPOINT, PREVIOUS_CHECKPOINT = "last.ckpt", "previous.ckpt"


RECORD_SUFFIX = ".json"
"""How the name of a run in a file ends."""
