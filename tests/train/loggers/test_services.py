"""TensorBoard, MLflow and W&B hold the curves of metrics.csv, in one run each, also where the training is resumed."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segkd.config.instantiate import Spec
from segkd.config.training import TrainSettings
from segkd.errors import UserError
from segkd.runs.layout import LOGGER_IDS_FILE
from segkd.train.loggers import mlflow, tensorboard
from segkd.train.loggers.build import build_loggers, check_loggers
from segkd.train.loggers.csv import MetricsFileLogger
from segkd.train.loggers.run_info import RunInfo
from segkd.train.loggers.wandb import WandbLogger, choose_mode
from segkd.utils.plugins import VARIABLE
from tests.helpers.commands import Command
from tests.helpers.training import TINY_TRAINING, read_metrics
from tests.helpers.wandb_files import wandb_runs

Curves = dict[str, list[tuple[int, float]]]


def read_csv(run: Path) -> Curves:
    curves: Curves = {}
    for row in read_metrics(run):
        for name, value in row.items():
            if name != "step" and value:
                curves.setdefault(name, []).append((int(row["step"]), float(value)))
    return curves


def read_tensorboard(run: Path) -> Curves:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def read_mlflow(uri: str) -> tuple[Any, Curves]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("segkd")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    histories = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    return run, {
        name: [(value.step, value.value) for value in sorted(history, key=lambda value: value.step)]
        for name, history in histories.items()
    }


def assert_same_curves(ours: Curves, theirs: Curves) -> None:
    assert ours.keys() == theirs.keys()
    for name, points in theirs.items():
        assert [step for step, _ in ours[name]] == [step for step, _ in points], name
        values = [value for _, value in points]
        assert [value for _, value in ours[name]] == pytest.approx(values, rel=1e-6, nan_ok=True), name


def test_a_resumed_run_is_one_run_everywhere(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = tmp_path / "run"
    loggers = "logger=[tensorboard,mlflow,wandb]"
    typed = (*TINY_TRAINING, "check_teacher=off", loggers, "wandb.mode=offline", f"output_dir={run}")
    for resume in ("null", "auto"):
        epochs = 1 if resume == "null" else 2
        result = command("train", *typed, f"trainer.max_epochs={epochs}", f"resume={resume}")
        assert result.code == 0, result.err
        assert "disabled from here on" not in result.err
    curves = read_csv(run)
    assert [step for step, _ in curves["train/total"]] == [0, 1, 2, 3]
    assert_same_curves(read_tensorboard(run), curves)
    kept, histories = read_mlflow(f"sqlite:///{run / 'mlflow.db'}")
    assert_same_curves(histories, curves)
    assert (kept.info.status, kept.data.params["trainer.max_epochs"]) == (
        "FINISHED",
        "1",
    )  # MLflow changes no parameter
    first, second = wandb_runs(run)
    assert first.id == second.id
    assert [row["step"] for part in (first, second) for row in part.history if "train/total" in row] == [0, 1, 2, 3]
    assert not (tmp_path / "mlruns").exists()


def info(tmp_path: Path, **changes: Any) -> RunInfo:
    return RunInfo(**{"directory": tmp_path, "name": "mine", "group": None, "config": {"seed": 0}, **changes})


@pytest.fixture
def start_wandb(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """What `wandb.init` is given."""
    for name in ("MODE", "PROJECT", "ENTITY", "RUN_ID", "DIR", "NAME", "RUN_GROUP", "TAGS", "API_KEY", "DATA_DIR"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    given: dict[str, Any] = {}

    def init(**arguments: Any) -> types.SimpleNamespace:
        given.update(arguments)
        return types.SimpleNamespace(define_metric=lambda *a, **k: None)

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init, Settings=dict))

    def start(run: RunInfo, **options: Any) -> dict[str, Any]:
        monkeypatch.setenv("WANDB_DATA_DIR", "restored")
        WandbLogger(run, **options)
        return given

    return start


VARIABLES = {
    "WANDB_PROJECT": ("project", "theirs"),
    "WANDB_ENTITY": ("entity", "team"),
    "WANDB_RUN_ID": ("id", "abc12345"),
    "WANDB_DIR": ("dir", "/somewhere"),
    "WANDB_NAME": ("name", "named"),
    "WANDB_RUN_GROUP": ("group", "grouped"),
    "WANDB_MODE": ("mode", "online"),
}


@pytest.mark.parametrize("variable", VARIABLES)
def test_wandb_variables_are_respected(
    start_wandb: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    argument, value = VARIABLES[variable]
    assert start_wandb(info(tmp_path, group="sweep"))[argument] != value
    monkeypatch.setenv(variable, value)
    assert start_wandb(info(tmp_path, group="sweep"))[argument] == value


def test_keys_win_over_wandb_variables(
    start_wandb: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable, (_, value) in VARIABLES.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("WANDB_TAGS", "a, b")
    assert start_wandb(info(tmp_path))["tags"] == ["a", "b"]
    own = {"project": "mine", "entity": "me", "group": "ours", "mode": "offline", "tags": ["c"]}
    given = start_wandb(info(tmp_path), **own)
    assert {key: given[key] for key in own} == own


def test_the_wandb_run_goes_on_where_the_training_is_resumed(
    start_wandb: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = start_wandb(info(tmp_path))["id"]
    assert (start_wandb(info(tmp_path, steps=3))["id"], start_wandb(info(tmp_path))["resume"]) == (first, "allow")
    (tmp_path / LOGGER_IDS_FILE).write_text("[]")
    assert start_wandb(info(tmp_path, steps=3))["id"] != first


def test_the_jobs_of_a_sweep_do_not_share_an_id(
    start_wandb: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "abc12345")
    assert start_wandb(info(tmp_path, is_job=True))["id"] != "abc12345"
    assert "WANDB_RUN_ID=abc12345 is not used in a sweep" in caplog.text


@pytest.mark.parametrize(("host", "expected"), [("", "online"), ("https://other.example", "offline")])
def test_auto_is_online_with_a_key_for_the_host(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: str, expected: str
) -> None:
    file = tmp_path / "netrc"
    file.write_text("machine api.wandb.ai login user password secret\n")
    file.chmod(0o600)
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", host)
    monkeypatch.setenv("HOME", str(tmp_path))
    file.rename(tmp_path / ".netrc")
    assert choose_mode("auto") == expected


def test_mlflow_stopped_while_it_creates_its_database_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    from mlflow.store.db import utils as database
    from mlflow.tracking import MlflowClient

    def stop_in_between(engine: Any) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE logged_models (model_id TEXT)")  # one of those of a later version
        sys.exit(143)

    run, faulty = tmp_path / "run", tmp_path / "faulty"
    run.mkdir()
    faulty.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(database, "_upgrade_db", stop_in_between)
        with pytest.raises(SystemExit):
            MlflowClient(f"sqlite:///{faulty / 'mlflow.db'}")
        with pytest.raises(SystemExit):
            mlflow.Mlflow(info(run))
    with pytest.raises(Exception, match="already exists"):
        mlflow.Mlflow(info(faulty))
    assert mlflow.Mlflow(info(run)).run_id == info(run).find_id("mlflow")
    assert {path.name for path in run.iterdir()} == {"mlflow.db", LOGGER_IDS_FILE}


@pytest.mark.parametrize("kind", [tensorboard.TensorBoard, mlflow.Mlflow])
def test_a_missing_package_is_told_before_anything_is_read(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    specs = {kind.package: Spec(kind, {})}
    check_loggers(specs)
    monkeypatch.setitem(sys.modules, kind.package, None)
    with pytest.raises(UserError, match=rf"logger={kind.package} needs .*pip install 'segkd\[{kind.package}\]'"):
        check_loggers(specs)


def test_the_keys_of_wandb_stand_where_they_always_did() -> None:
    with pytest.raises(UserError, match=r"logger.wandb.project: .*use wandb.project"):
        check_loggers({"wandb": Spec(WandbLogger, {"project": "mine"})})


def test_what_cannot_be_written_costs_the_logger_alone(command: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "tensorboard").write_text("a file in place of the folder")
    loggers = ("logger=[tensorboard,mlflow]", "logger.mlflow.tracking_uri=none://such")
    result = command(
        "train", *TINY_TRAINING, "check_teacher=off", "trainer.max_epochs=1", *loggers, f"output_dir={run}"
    )
    assert result.code == 0, result.err
    for title in ("TensorBoard", "MLflow"):
        assert result.err.count(f"{title} failed and is disabled from here on (") == 1
    assert len(read_csv(run)["train/total"]) == 2


def test_a_logger_that_is_refused_leaves_nothing(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "tests.helpers.own_parts")
    own = "+logger.own={_target_: tests.helpers.own_parts.FaultyLogger, fault: init lacks}"
    typed = ("check_teacher=off", "wandb.mode=offline", own, f"output_dir={tmp_path / 'run'}")
    result = command("train", *TINY_TRAINING, *typed)
    assert (result.code, "the logger 'own' cannot log: No module named 'own_server'" in result.err) == (2, True)
    assert not (tmp_path / "run").exists()


def test_the_file_of_curves_is_always_written(tmp_path: Path) -> None:
    settings = TrainSettings.model_fields["wandb"].annotation.model_construct(mode="disabled")  # type: ignore[union-attr]
    curves = MetricsFileLogger(tmp_path)
    assert [*build_loggers({}, settings, info(tmp_path), curves)] == [curves]
    wandb = {"wandb": Spec(WandbLogger, {})}
    assert [*build_loggers(wandb, settings, info(tmp_path), curves)] == [curves]
