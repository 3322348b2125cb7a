"""Print what a command says, and its log on stderr."""

from __future__ import annotations

import io
import logging
import sys

from segkd.utils.processes import is_rank_zero


class _StderrHandler(logging.Handler):
    """Prints `segkd: …` on the current stderr, in the first process only."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        if is_rank_zero():
            print(f"segkd: {record.getMessage()}", file=sys.stderr, flush=True)


def configure_streams() -> None:
    r"""Let stdout and stderr escape what their encoding lacks, such as `\u2192` for → in ASCII, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def configure_logging() -> None:
    """Send what segkd logs to stderr; enable its loggers again, where Hydra has disabled those that existed."""
    logger = logging.getLogger("segkd")
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("segkd")]:
        logging.getLogger(name).disabled = False
    if not any(isinstance(handler, _StderrHandler) for handler in logger.handlers):
        logger.addHandler(_StderrHandler())
    logger.setLevel(logging.INFO)
    logger.propagate = False
