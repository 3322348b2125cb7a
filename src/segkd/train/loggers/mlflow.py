"""Log to MLflow."""

from __future__ import annotations

import logging
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import MLFlowLogger

from segkd.config.keys import flatten
from segkd.train.loggers.run_info import RunInfo
from segkd.utils.files import atomic_write

_STATUS = {"success": "FINISHED", "failed": "FAILED", "aborted": "KILLED"}


class Mlflow(MLFlowLogger):
    """One MLflow run, also where the training is resumed.

    What is not given here is what MLflow's environment variables say, and else a default of segkd.

    Args:
        run: the run.
        tracking_uri: None for MLFLOW_TRACKING_URI, or the file `mlflow.db` in the run's folder.
        experiment_name: None for MLFLOW_EXPERIMENT_NAME, or `segkd`.
        tags: of the run.
    """

    title = "MLflow"
    package = "mlflow"

    def __init__(
        self,
        run: RunInfo,
        tracking_uri: str | None = None,
        experiment_name: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        import mlflow  # noqa: F401  it sets the level of its log

        for name in ("mlflow", "alembic", "pytorch_lightning.loggers.mlflow"):  # they tell of each new table
            logging.getLogger(name).setLevel(logging.ERROR)
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        file = run.directory.absolute() / "mlflow.db"
        if not uri and not file.exists():
            _create_database(file)
        own_id = f"mlflow {uri}" if uri else "mlflow"  # an id holds in its own store
        found = run.find_id(own_id)
        super().__init__(
            tracking_uri=uri or f"sqlite:///{file}",
            experiment_name=experiment_name or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "segkd",
            run_name=run.name,
            tags={**({"group": run.group} if run.group else {}), **(tags or {})},
            artifact_location=None if uri else (run.directory.absolute() / "mlflow_artifacts").as_uri(),
            run_id=found,
        )
        assert self.run_id is not None
        if found is None:
            run.keep_id(own_id, self.run_id)
        else:
            self.experiment.update_run(self.run_id, status="RUNNING")
        self._log_config(run.config)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the config was logged at the start."""

    def finalize(self, status: str = "success") -> None:
        """End the run."""
        self.experiment.set_terminated(self.run_id, _STATUS[status])

    def _log_config(self, config: dict[str, Any]) -> None:
        """Log the config as parameters; MLflow never changes one, so a resumed run adds those that are new."""
        known = self.experiment.get_run(self.run_id).data.params
        super().log_hyperparams({key: value for key, value in flatten(config) if key not in known})


def _create_database(file: Path) -> None:
    """Create the tables under a temporary name: MLflow, which takes seconds, refuses a file where it was stopped in between."""
    from mlflow.tracking import MlflowClient

    with atomic_write(file) as part:
        MlflowClient(f"sqlite:///{part}").search_experiments(max_results=1)
