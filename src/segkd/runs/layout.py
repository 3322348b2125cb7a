"""Names of the files in a run folder."""

from __future__ import annotations

METRICS_FILE = "metrics.csv"
RECORD_FILES = ("config.yaml", "environment.json")
SUMMARY_FILE = "summary.json"
LOCK_FILE = ".lock"
LOGGER_IDS_FILE = "logger_ids.json"
EVALUATION_FILE = "evaluation.json"
DISTILLATION_TERMS = "distillation_terms"  # key of environment.json
LAST_CHECKPOINT, PREVIOUS_CHECKPOINT = "last.ckpt", "previous.ckpt"

RECORD_SUFFIX = ".json"
"""Suffix of a file that holds the record of a whole run, as `segkd.study` writes it."""
