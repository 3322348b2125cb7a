"""A logger of one's own."""

import json
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only


class JsonLines(Logger):
    """Writes each row of curves as one line of JSON.

    Args:
        save_dir: the folder of the run, which segkd fills in.
        file: name of the file in it.
    """

    def __init__(self, save_dir: str, file: str = "metrics.jsonl") -> None:
        super().__init__()
        self.path = Path(save_dir) / file

    name, version = "json_lines", ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")
