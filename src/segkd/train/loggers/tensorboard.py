"""Log to TensorBoard."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger

from segkd.train.loggers.run_info import RunInfo
from segkd.utils.files import dump_yaml


class TensorBoard(TensorBoardLogger):
    """The curves of a run, in its folder `tensorboard`; the config is a text.

    A resumed run goes on there; TensorBoard hides the steps that it repeats.

    Args:
        run: the run.
    """

    title = "TensorBoard"
    package = "tensorboard"

    def __init__(self, run: RunInfo) -> None:
        super().__init__(run.directory, name="", version="tensorboard", purge_step=run.steps or None)
        self._config = run.config
        self.experiment.add_text("config", f"```yaml\n{dump_yaml(run.config)}\n```", run.steps)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the config was logged at the start."""

    def save(self) -> None:
        """Write what is pending; Lightning would write an empty `hparams.yaml` too."""
        self.experiment.flush()
