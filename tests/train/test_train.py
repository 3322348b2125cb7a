"""`python -m segkd.train`, with the smallest scenes and networks."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from segkd.config.paths import CONFIGS
from segkd.config.schema import load_settings
from segkd.config.training import TrainSettings
from segkd.data.streets import Streets
from segkd.evaluate.loop import compute_confusion_matrix
from segkd.metrics import Scores
from segkd.models.base import Normalization
from segkd.models.checkpoint_io import state_hash
from segkd.models.espnet import ESPNet, ESPNetC
from segkd.models.pretrained import load_network
from segkd.models.student_io import load_student, save_student
from segkd.train import run_folder
from tests.helpers.commands import Command, start_process
from tests.helpers.training import TINY_TRAINING, list_distillation_overrides, read_metrics
from tests.helpers.wandb_files import wandb_runs


@pytest.fixture(scope="session")
def baseline(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run without a teacher, which tests only read."""
    run = tmp_path_factory.mktemp("baseline") / "run"
    result = command("train", *TINY_TRAINING, f"output_dir={run}")
    assert result.code == 0, result.err
    return run


@pytest.fixture(scope="session")
def short_baseline(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of one epoch."""
    run = tmp_path_factory.mktemp("short_baseline") / "run"
    assert command("train", *TINY_TRAINING, "trainer.max_epochs=1", f"output_dir={run}").code == 0
    return run


@pytest.fixture(scope="session")
def short_distilled(command: Command, teacher_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one epoch with all three losses, which tests only read."""
    run = tmp_path_factory.mktemp("short_distilled") / "run"
    assert (
        command("train", *list_distillation_overrides(teacher_file), "trainer.max_epochs=1", f"output_dir={run}").code
        == 0
    )
    return run


def test_run_folder_is_complete(command: Command, teacher_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = command("train", *list_distillation_overrides(teacher_file), f"output_dir={run}", "seed=3")
    assert result.code == 0, result.err
    assert {file.name for file in run.iterdir()} == {
        "config.yaml",
        "environment.json",
        "last.ckpt",
        "last.ckpt.sha256",
        "metrics.csv",
        "previous.ckpt",
        "previous.ckpt.sha256",
        "student.safetensors",
        "student.yaml",
        "summary.json",
    }
    environment = json.loads((run / "environment.json").read_text())
    assert environment["seed"] == 3
    assert environment["packages"]["torch"]
    assert environment["git"] is None or len(environment["git"]["commit"]) == 40
    assert yaml.safe_load((run / "config.yaml").read_text())["loss"]["pairwise"]["weight"] == 10
    rows = read_metrics(run)
    trained = [row for row in rows if row["train/total"]]
    assert [int(row["step"]) for row in trained] == [0, 1, 2, 3]
    terms = ("cross_entropy", "pixelwise", "pairwise", "adversarial", "discriminator")
    for name in (*terms, "discriminator/teacher", "discriminator/student", "discriminator/penalty"):
        assert all(torch.tensor(float(row[f"train/{name}"])).isfinite() for row in trained)
    first = {name: float(trained[0][f"train/{name}"]) for name in terms}
    weighted = (
        first["cross_entropy"] + 10 / 11 * first["pixelwise"] + 10 * first["pairwise"] + 1e-3 * first["adversarial"]
    )
    assert float(trained[0]["train/total"]) == pytest.approx(weighted, rel=1e-5)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 4
    assert summary["teacher_sha256"] == state_hash(load_student(teacher_file.parent))
    assert result.out.strip().startswith("run: val mIoU")
    assert not any(key.startswith("teacher") for key in torch.load(run / "last.ckpt", weights_only=True)["state_dict"])


def test_the_result_is_the_last_weights(command: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    # The second epoch is not validated by `validate_every`, the run still is.
    result = command("train", *TINY_TRAINING, f"output_dir={run}", "trainer.validate_every=3")
    assert result.code == 0, result.err
    matrix = compute_confusion_matrix(load_student(run), Streets("val", images=8))
    expected = Scores.from_confusion_matrix(matrix, 11).miou
    assert json.loads((run / "summary.json").read_text())["val_miou"] == pytest.approx(expected, abs=1e-6)


def test_resuming_with_other_settings_is_refused(command: Command, baseline: Path, tmp_path: Path) -> None:
    resume = (*TINY_TRAINING, f"resume={baseline / 'last.ckpt'}", f"output_dir={tmp_path / 'other'}")
    for typed, said in (
        ("optimizers.student.lr=0.1", ("lr=0.0005", "0.1 is given")),
        ("optimizer@optimizers.student=sgd", ("resume with the same optimizers",)),
        ("student.q=2", ("keys are missing",)),
        ("seed=1", ("is of another run: seed was 0 and is 1", "student.checkpoint")),
        ("dataset.images=12", ("dataset.images was 8 and is 12", "batches of an epoch was 2 and is 3")),
        ("data.batch_size=2", ("data.batch_size was 4 and is 2",)),
        ("trainer.ema=0.9", ("trainer.ema was None and is 0.9",)),
    ):
        result = command("train", *resume, typed)
        assert result.code == 2, result.err
        assert [words for words in said if words not in result.err] == [], result.err
    assert not (tmp_path / "other").exists()


def test_a_checkpoint_keeps_the_normalization(baseline: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(baseline / "last.ckpt", weights_only=True)
    checkpoint["student"]["normalization"] |= {"mean": [1.0, 2.0, 3.0], "bgr": True}
    torch.save(checkpoint, tmp_path / "other.ckpt")
    network, _ = load_network(ESPNetC, {}, tmp_path / "other.ckpt", 11, Normalization(Streets.mean, Streets.std))
    assert network.normalization.to_dict()["mean"] == [1.0, 2.0, 3.0]
    assert network.normalization.bgr


def test_a_run_is_scored_on_its_own_dataset_by_default(command: Command, baseline: Path, tmp_path: Path) -> None:
    run = shutil.copytree(baseline, tmp_path / "run")
    assert command("evaluate", f"run={run}", "workers=0").code == 0
    again = command("evaluate", f"run={run}", "workers=0", "split=test")
    assert again.code == 0
    assert f"{run / 'evaluation.json'} held scores of Streets val; output_dir=DIR keeps both" in again.err
    nowhere = command("evaluate", f"run={run}", "workers=0", f"dataset.root={tmp_path}")
    assert nowhere.code == 2
    assert "was trained on data without files; leave dataset.root out" in nowhere.err
    strange = command("evaluate", f"run={run}", "workers=0", "+dataset.images=3")
    assert strange.code == 2
    assert "dataset.images of which dataset? give dataset=NAME" in strange.err
    (run / "evaluation.json").write_text("[]")
    assert command("evaluate", f"run={run}", "workers=0").code == 0
    (run / "config.yaml").unlink()
    refused = command("evaluate", f"run={run}", "workers=0")
    assert refused.code == 2
    assert "was trained on Streets, and nothing says where it is; give dataset=NAME" in refused.err
    named = command("evaluate", f"run={run}", "workers=0", "dataset=streets")
    assert (named.code, "held scores" in named.err) == (0, False)


def test_yaml_no_is_parsed_as_false(teacher_file: Path) -> None:
    """Text where a bool is expected becomes that bool, not a true value."""
    GlobalHydra.instance().clear()
    typed = [a for a in list_distillation_overrides(teacher_file) if not a.startswith("hydra.")]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", [*typed, "loss.pixelwise.mask_void=no", "output_dir=run"])
    assert cfg.loss.pixelwise.mask_void == "no"
    assert load_settings(cfg, TrainSettings).loss["pixelwise"].arguments["mask_void"] is False


def test_the_student_starts_the_same_with_and_without_a_teacher(short_baseline: Path, short_distilled: Path) -> None:
    first, second = (read_metrics(run)[0]["train/cross_entropy"] for run in (short_baseline, short_distilled))
    assert first == second


def test_an_unused_teacher_is_not_loaded(
    command: Command, teacher_file: Path, short_baseline: Path, short_distilled: Path, tmp_path: Path
) -> None:
    arguments = [a for a in list_distillation_overrides(teacher_file) if not a.startswith(("loss=", "adversary"))]
    run = tmp_path / "unused"
    result = command(
        "train", *arguments, "loss=[cross_entropy]", "adversary=none", "trainer.max_epochs=1", f"output_dir={run}"
    )
    assert result.code == 0, result.err
    assert "no loss uses the teacher; it is not loaded" in result.err
    baseline, unused, used = (
        (folder / "student.safetensors").read_bytes() for folder in (short_baseline, run, short_distilled)
    )
    assert baseline == unused != used
    assert json.loads((run / "summary.json").read_text())["teacher_sha256"] is None


def test_more_devices_than_there_are(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    asked = ("trainer.accelerator=gpu", "trainer.devices=2", f"output_dir={tmp_path / 'run'}")
    result = command("train", *TINY_TRAINING, *asked)
    assert result.code == 2
    assert result.err == "segkd: trainer.devices=2, but PyTorch sees 1 GPU; lower it, or use trainer.devices=auto\n"


def test_sync_batchnorm_changes_nothing_in_one_process(command: Command, short_baseline: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = ("trainer.sync_batchnorm=true", "trainer.max_epochs=1", f"output_dir={run}")
    assert command("train", *TINY_TRAINING, *settings).code == 0
    assert (run / "student.safetensors").read_bytes() == (short_baseline / "student.safetensors").read_bytes()


class TestCheckTeacher:
    @pytest.fixture
    def constant_teacher(self, tmp_path: Path) -> Path:
        """A teacher that always predicts the first class."""
        directory = tmp_path / "constant_teacher"
        directory.mkdir()
        network = ESPNet(11, Normalization(Streets.mean, Streets.std), p=1, q=1)
        for parameter in network.parameters():
            parameter.data.zero_()
        save_student(network, directory, {})
        return directory / "student.safetensors"

    def test_stop_ends_the_run(self, command: Command, constant_teacher: Path, tmp_path: Path) -> None:
        run = tmp_path / "run"
        result = command(
            "train", *list_distillation_overrides(constant_teacher), "check_teacher=stop", f"output_dir={run}"
        )
        assert result.code == 2
        assert "nothing to teach" in result.err
        assert not run.exists()

    def test_warn_continues(self, command: Command, constant_teacher: Path, tmp_path: Path) -> None:
        run = tmp_path / "run"
        result = command(
            "train",
            *list_distillation_overrides(constant_teacher),
            "check_teacher=warn",
            "trainer.max_epochs=1",
            f"output_dir={run}",
        )
        assert result.code == 0, result.err
        assert "continuing, as check_teacher=warn says" in result.err
        assert "256×16×16" in result.err  # the feature `encoder`, for this crop

    def test_a_random_teacher_is_refused(self, command: Command, tmp_path: Path) -> None:
        result = command("train", *TINY_TRAINING, "model@teacher=espnet", f"output_dir={tmp_path / 'run'}")
        assert result.code == 2
        assert "no weights" in result.err


class TestWandb:
    def weights(self, run: Path) -> bytes:
        return (run / "student.safetensors").read_bytes()

    @pytest.mark.parametrize(
        "fault",
        [
            "not installed",
            "init raises",
            "init hangs",
            "log raises",
            "log hangs",
            "log full",
            "finish raises",
            "finish hangs",
            "Image raises",
            "Image hangs",
            "Table raises",
        ],
    )
    def test_its_failure_changes_nothing(
        self, command: Command, short_baseline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
    ) -> None:
        released, finished = threading.Event(), []
        call, how = fault.split()
        said = {"raises": "no network", "hangs": "no answer in", "full": "No space left", "installed": "not installed"}[
            how
        ]

        def broken(*_: object, **__: object) -> None:
            if how == "hangs":
                released.wait()
            raise OSError(errno.ENOSPC, "No space left on device") if how == "full" else RuntimeError("no network")

        def well(*_: object, **__: object) -> types.SimpleNamespace:
            return run_of

        run_of = types.SimpleNamespace(
            define_metric=well, log=well, finish=lambda exit_code: finished.append(exit_code)
        )
        fake = types.SimpleNamespace(init=well, Settings=well, Image=well, Table=well)
        setattr(run_of if hasattr(run_of, call) else fake, call, broken)
        monkeypatch.setitem(sys.modules, "wandb", None if call == "not" else fake)
        run = tmp_path / "run"
        asked = ("trainer.max_epochs=1", "wandb.mode=offline", "wandb.timeout=1")
        result = command("train", *TINY_TRAINING, *asked, f"output_dir={run}")
        released.set()
        assert result.code == 0, result.err
        assert result.err.count(said) == 1
        assert bool(finished) == (call in ("log", "Image", "Table"))  # a run that could be started is closed
        assert self.weights(run) == self.weights(short_baseline)
        assert (run / "metrics.csv").exists()

    def test_a_sweep_leaves_one_run_for_each_job(self, command: Command, teacher_file: Path, tmp_path: Path) -> None:
        sweep = tmp_path / "sweep"
        arguments = [
            a for a in list_distillation_overrides(teacher_file) if not a.startswith(("loss=", "wandb", "adversary"))
        ]
        result = command(
            "train", "-m", *arguments, "wandb.mode=offline", "trainer.max_epochs=1", f"output_dir={sweep}",
            "loss=[cross_entropy],[cross_entropy,pixelwise]",
        )  # fmt: skip
        assert result.code == 0, result.err
        runs = {tuple(sorted(run.config["loss"])): run for run in wandb_runs(sweep)}
        assert runs.keys() == {("cross_entropy",), ("cross_entropy", "pixelwise")}
        assert len({run.id for run in runs.values()}) == 2
        assert {run.group for run in runs.values()} == {"sweep"}
        for number, (losses, run) in enumerate(sorted(runs.items())):
            summary = json.loads((sweep / str(number) / "summary.json").read_text())
            assert run.summary["val/miou"] == pytest.approx(summary["val_miou"])
            assert [row["step"] for row in run.history if "train/total" in row] == [0, 1]
            assert all(
                ("train/pixelwise" in row) == ("pixelwise" in losses) for row in run.history if "lr/student" in row
            )


def test_in_a_sweep_a_mistake_ends_its_own_job_only(command: Command, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    result = command(
        "train", "-m", *TINY_TRAINING, "trainer.max_epochs=1", f"output_dir={sweep}", "data.crop_size=[8,8],[128,128]"
    )
    assert result.code == 2
    assert "data.crop_size=[8, 8] is less than the 32 pixels" in result.err
    assert "data.crop_size=[8, 8]" in (sweep / "0" / "failure.txt").read_text()
    assert (sweep / "1" / "student.safetensors").exists()


def test_in_a_sweep_a_crash_leaves_its_traceback(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, save = tmp_path / "sweep", run_folder.save_student

    def crashes_once(student: ESPNet, directory: Path, facts: dict[str, Any]) -> int:
        if directory.name == "0":
            raise RuntimeError("planted")
        return save(student, directory, facts)

    monkeypatch.setattr(run_folder, "save_student", crashes_once)
    result = command("train", "-m", *TINY_TRAINING, "trainer.max_epochs=1", f"output_dir={sweep}", "seed=0,1")
    assert result.code == 1
    assert "RuntimeError: planted" in (sweep / "0" / "failure.txt").read_text()
    assert (sweep / "1" / "student.safetensors").exists()
    assert not (sweep / "1" / "failure.txt").exists()


def test_a_sweep_over_several_devices_is_refused(command: Command, tmp_path: Path) -> None:
    result = command("train", "-m", *TINY_TRAINING, "seed=0,1", "trainer.devices=2", f"output_dir={tmp_path / 'sweep'}")
    assert result.code == 2
    assert "trainer.devices=1" in result.err


@pytest.mark.process
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_run_with_their_code(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    process = start_process("train", *TINY_TRAINING, "trainer.max_epochs=1000", "output_dir=run", cwd=tmp_path)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run/last.ckpt").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert torch.load(tmp_path / "run/last.ckpt", weights_only=True)["state_dict"]
