"""Plugins: parts of a package of the user's own work by name, and nothing but the user can name the package."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from segkd.cli.arguments import read_plugins
from segkd.config.paths import CONFIGS
from segkd.config.plugin_configs import register_plugin_configs
from segkd.errors import UserError
from segkd.models.student_io import load_student
from segkd.utils.plugins import add_plugins, load_plugins
from tests.helpers.commands import Command, Result
from tests.helpers.refusals import assert_refused

MINE = Path(__file__).parents[2] / "examples/my_parts/my_parts"
QUICK = (
    "trainer=cpu",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=1",
    "trainer.limit_val_batches=1",
    "data.workers=0",
    "wandb.mode=disabled",
    "check_teacher=off",
)
DISKS = (*QUICK, "experiment=disks")
PAYLOAD = "from pathlib import Path\nPath('executed').touch()\n"


@pytest.fixture(autouse=True)
def _in_folder_with_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("my_parts").symlink_to(MINE)


def write_package(name: str, code: str = "", **configs: str) -> None:
    """Write a package of one module and, by `group__option`, its yaml files."""
    Path(name).mkdir()
    Path(name, "__init__.py").write_text(code)
    for path, text in configs.items():
        file = Path(name, "configs", *path.split("__")).with_suffix(".yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def train(command: Command, *arguments: str) -> Result:
    result = command("train", *arguments)
    assert result.code == 0, result.err
    return result


def test_all_parts_of_a_plugin_work_by_name(command: Command) -> None:
    """Dataset, network, loss, callback and logger; the run can then be evaluated, compared and loaded."""
    plugin = "plugins=[my_parts]"
    train(command, plugin, *DISKS, "output_dir=runs/teacher", "callbacks=[print_best]", "logger=[csv,json_lines]")
    teacher = ("model@teacher=tiny_net", "teacher.checkpoint=runs/teacher/student.safetensors")
    train(command, plugin, *DISKS, *teacher, "loss=[cross_entropy,feature_l1]", "output_dir=runs/distilled")
    train(command, plugin, *DISKS, "output_dir=runs/baseline")

    rows = [json.loads(line) for line in Path("runs/teacher/metrics.jsonl").read_text().splitlines()]
    assert any("val/miou" in row for row in rows)
    record = json.loads(Path("runs/distilled/environment.json").read_text())
    assert plugin in record["command"]
    assert record["distillation_terms"] == ["feature_l1"]

    assert command("evaluate", plugin, "run=runs/distilled", "workers=0").code == 0
    compared = command("compare", "runs=[runs/distilled,runs/baseline]")  # reads the name, and imports nothing
    assert compared.code == 0, compared.err
    assert "feature_l1" in compared.out
    assert "at equal steps" in compared.out


def test_a_run_of_a_plugin_says_which_to_name(command: Command) -> None:
    train(command, "plugins=[my_parts]", *DISKS, "output_dir=run")
    for verb in ("evaluate", "export"):
        result = command(verb, "run=run")
        assert result.code == 2
        assert result.err.count("\n") == 1
        assert "add plugins=[my_parts]" in result.err
    predicted = command("predict", "run=run", "split=val", "output=out")
    assert (predicted.code, "add plugins=[my_parts]" in predicted.err) == (2, True)


def test_the_environment_names_plugins_too(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGKD_PLUGINS", "my_parts")
    train(command, *DISKS, "output_dir=run")
    assert type(load_student("run")).__module__ == "my_parts.networks"
    assert json.loads(Path("run/environment.json").read_text())["plugins"] == {"my_parts": None}


@pytest.mark.process
def test_processes_of_one_run_share_the_plugins(tmp_path: Path) -> None:
    """Lightning starts the second process with the arguments of the first, from which the plugins are taken out."""
    arguments = ["plugins=[my_parts]", *DISKS, "trainer.devices=2", "output_dir=run"]
    result = subprocess.run(
        [sys.executable, "-m", "segkd.train", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run/student.safetensors").exists()


WRONG_NAMES = {
    "segkd": "segkd needs no plugin for its own parts",
    "segkd.losses": "segkd needs no plugin for its own parts",
    "os": "'os' belongs to Python",
    "nowhere": "Python finds no package 'nowhere'",
    "my_parts.nowhere": "Python finds no package 'my_parts.nowhere'",
    "my parts": "'my parts' is not the name of a package",
    "../my_parts": "'../my_parts' is not the name of a package",
    "_my_parts": "Python finds no package '_my_parts'",
}


@pytest.mark.parametrize("name", WRONG_NAMES)
def test_wrong_name_is_refused(command: Command, name: str) -> None:
    assert_refused(command("train", f"plugins=[{name}]", *QUICK), WRONG_NAMES[name])


@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("plugins=[a,b]", ["a", "b"]),
        ("++plugins=[ 'a' , \"b\" ]", ["a", "b"]),
        ("plugins=a", ["a"]),
        ("plugins=null", []),
        ("plugins_of=[a]", []),
        ("loss.plugins=[a]", []),
    ],
)
def test_plugins_are_read_from_an_override(override: str, names: list[str]) -> None:
    assert read_plugins(override) == names


@pytest.mark.parametrize(
    "override",
    ["plugins=a,b", "plugins=[a],[b]", "plugins=[[a]]", "plugins.0=a", "~plugins", "~plugins=[a]", "plugins"],
)
def test_other_forms_are_refused(override: str) -> None:
    """With -m they would be a sweep, whose jobs share one process."""
    with pytest.raises(UserError, match=r"write plugins=\[A,B\]"):
        read_plugins(override)


def test_variable_is_named_where_its_content_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGKD_PLUGINS", "my_parts other")
    with pytest.raises(UserError, match=r"^SEGKD_PLUGINS=my_parts other: .*SEGKD_PLUGINS=my_pkg,other"):
        add_plugins([])


def test_import_leaves_the_process_as_it_was(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    write_package("noisy", "import os, sys\nprint('hello')\nsys.argv = ['x']\nos.chdir('/')\n")
    arguments, folder = [*sys.argv], Path.cwd()
    load_plugins(["noisy"])
    assert (sys.argv, Path.cwd()) == (arguments, folder)
    assert "'noisy' changes sys.argv and the folder" in caplog.text
    out, err = capsys.readouterr()
    assert (out, "hello" in err) == ("", True)


def test_yaml_that_hydra_would_not_read_as_meant_is_refused() -> None:
    write_package("one", loss__mine="mine: {_target_: one.Loss}\n")
    write_package("two", loss__mine="mine: {_target_: two.Loss}\n")
    add_plugins(["one", "two"])
    with pytest.raises(UserError, match=r"two/configs/loss/mine\.yaml: there is .*one/configs/loss/mine\.yaml too"):
        register_plugin_configs()
    Path("two/configs/loss/mine.yaml").rename("two/configs/loss/mine.yml")
    with pytest.raises(UserError, match=r"mine\.yml: Hydra reads files that end with \.yaml"):
        register_plugin_configs()


BROKEN = {
    "raise RuntimeError('no GPU here')": ("RuntimeError: no GPU here", "__init__.py, line 1"),
    "\nimport not_installed": ("ModuleNotFoundError: No module named 'not_installed'", "__init__.py, line 2"),
    "def f(:\n": ("SyntaxError: ", "__init__.py, line 1"),
    "raise SystemExit(0)": ("SystemExit: 0", "__init__.py, line 1"),
}


@pytest.mark.parametrize("code", BROKEN)
def test_plugin_that_does_not_import_is_explained(command: Command, code: str) -> None:
    write_package("broken", code)
    assert_refused(
        command("train", "plugins=[broken]", *QUICK), "the plugin 'broken' cannot be imported", *BROKEN[code]
    )


NO_LOSS = "class Plain:\n    needs_teacher = False\n"
TARGETS = {
    "no such name": ("my_parts.losses.Nothing", "there is no 'my_parts.losses.Nothing'"),
    "no such module": ("my_parts.nothing.Loss", "there is no 'my_parts.nothing.Loss'"),
    "another kind": ("my_parts.datasets.Disks", "is no Loss; make it a subclass of segkd.losses.base.Loss"),
    "a class of another package": ("my_parts.losses.Tensor", "is not a class of the plugin 'my_parts'"),
    "a function": ("my_parts.losses.align_features", "is not a class of the plugin"),
    "private": ("my_parts._losses.Loss", "is not allowed as _target_"),
    "of Python": ("os.system", "'os.system' is not allowed as _target_"),
    "prefix": ("my_parts_evil.Loss", "'my_parts_evil.Loss' is not allowed as _target_"),
    "Lightning": ("pytorch_lightning.Trainer", "is not allowed as _target_"),
}


@pytest.mark.parametrize("name", TARGETS)
def test_target_that_is_no_part_is_refused(command: Command, name: str) -> None:
    write_package("my_parts_evil", PAYLOAD)
    path, phrase = TARGETS[name]
    result = command("train", "plugins=[my_parts]", *DISKS, f"+loss.mine._target_={path}", "output_dir=run")
    assert_refused(result, phrase)


def test_loss_that_breaks_the_types_is_explained(command: Command) -> None:
    abstract = "from segkd.losses.base import Loss\nclass Mine(Loss):\n    pass\n"
    write_package("mine", abstract, loss__mine="mine: {_target_: mine.Mine}\n")
    result = command("train", "plugins=[mine]", *QUICK, "loss=[cross_entropy,mine]", "output_dir=run")
    assert_refused(
        result, "'mine.Mine' is not a class of the plugin 'mine' that can be built; it does not define forward"
    )


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        (
            ("~schedule.power", "~schedule.warmup", "schedule._target_=mine.Danger"),
            "schedule: mine.Danger cannot be called",
        ),
        (("adversary=holistic", "adversary._target_=mine.Danger"), "adversary: mine.Danger is no Adversary"),
        (("adversary=holistic", "adversary.gan_loss._target_=mine.Danger"), "must be of type GANLoss, not Danger"),
    ],
)
def test_part_of_another_kind_is_not_built(command: Command, arguments: tuple[str, ...], phrase: str) -> None:
    """A stranger's experiment may name the classes of a plugin, each only as what it is."""
    write_package("mine", "class Danger:\n    def __init__(self, **keys):\n        open('executed', 'w')\n")
    theirs = ("experiment=quickstart", "model@teacher=none", "loss=[cross_entropy]", "adversary=none")
    kept = theirs[: -1 if "adversary=holistic" in arguments else None]
    assert_refused(command("train", "plugins=[mine]", *QUICK, *kept, *arguments, "output_dir=run"), phrase)


def test_yaml_that_shadows_one_of_segkd_is_refused(command: Command) -> None:
    write_package("mine", loss__pixelwise="pixelwise: {_target_: mine.Loss}\n")
    assert_refused(command("train", "plugins=[mine]", *QUICK), "segkd has a loss/pixelwise.yaml of its own")


def test_empty_file_is_refused(command: Command) -> None:
    write_package("mine", loss__mine="# loss: mine\n")
    result = command("train", "plugins=[mine]", *QUICK, "loss=[cross_entropy,mine]", "output_dir=run")
    assert_refused(result, "mine.yaml is empty")


MISPLACED = {
    "loss": ("loss__mine", "_target_: mine.Part", "loss=[cross_entropy,mine]", "a loss's file has one key, its name"),
    "callback": ("callbacks__mine", "_target_: mine.Part", "callbacks=[mine]", "a callback's file has one key, its name"),
    "logger": ("logger__mine", "_target_: mine.Part", "logger=[csv,mine]", "a logger's file has one key, its name"),
    "student": ("model__mine", "mine: {_target_: mine.Part}", "model@student=mine", "student: _target_ stands below 'mine'"),
    "teacher": ("model__mine", "mine: {_target_: mine.Part}", "model@teacher=mine", "teacher: _target_ stands below 'mine'"),
    "dataset": ("dataset__mine", "mine: {_target_: mine.Part}", "dataset=mine", "dataset: _target_ stands below 'mine'"),
    "optimizer": ("optimizer__mine", "mine: {_target_: mine.Part}", "optimizer@optimizers.student=mine", "_target_ stands below"),
    "schedule": ("schedule__mine", "mine: {_target_: mine.Part}", "schedule=mine", "schedule: _target_ stands below 'mine'"),
    "module": ("model__mine", "_target_: mine.Module", "model@student=mine", "wrap it, model=adapter network=mine.Module"),
}  # fmt: skip
"""Part → its file, the content, the override, and what is said."""


@pytest.mark.parametrize("part", MISPLACED)
def test_file_of_another_form_is_explained(command: Command, part: str) -> None:
    file, content, override, phrase = MISPLACED[part]
    code = "from torch import nn\n\nclass Module(nn.Module):\n    def __init__(self, outputs):\n        super().__init__()\n"
    write_package("mine", code, **{file: content + "\n"})
    given = ("experiment=quickstart", "model@teacher=none", "loss=[cross_entropy]", "adversary=none")
    assert_refused(command("train", "plugins=[mine]", *QUICK, *given, override, "output_dir=run"), phrase)


def test_unknown_option_names_the_way_to_ones_own(command: Command) -> None:
    assert_refused(command("train", *QUICK, "loss=[feature_l1]"), "name its package, plugins=[my_pkg]")


# Files of strangers: each names the package `evil`, whose import leaves a file.


def plant_in_experiment() -> tuple[str, ...]:
    Path("mine/experiment").mkdir(parents=True)
    Path("mine/experiment/theirs.yaml").write_text("# @package _global_\nplugins: [evil]\n")
    return ("train", *QUICK, "--config-dir", "mine", "experiment=theirs", "output_dir=run")


def plant_in_search_path() -> tuple[str, ...]:
    Path("mine/experiment").mkdir(parents=True)
    text = "# @package _global_\nhydra: {searchpath: ['pkg://evil.configs']}\n"
    Path("mine/experiment/theirs.yaml").write_text(text)
    return ("train", *QUICK, "--config-dir", "mine", "experiment=theirs", "output_dir=run")


def plant_in_environment() -> tuple[str, ...]:
    Path("mine/experiment").mkdir(parents=True)
    text = "# @package _global_\nhydra: {job: {env_set: {SEGKD_PLUGINS: evil}}}\n"
    Path("mine/experiment/theirs.yaml").write_text(text)
    return ("train", *QUICK, "--config-dir", "mine", "experiment=theirs", "output_dir=run")


def plant_in_plan() -> tuple[str, ...]:
    Path("mine/plan").mkdir(parents=True)
    text = Path(CONFIGS / "plan/streets.yaml").read_text() + "overrides: ['plugins=[evil]']\n"
    Path("mine/plan/theirs.yaml").write_text(text)
    return ("study", "--config-dir", "mine", "plan=theirs", "runs=run")


def plant_in_interpolation() -> tuple[str, ...]:
    return ("train", *QUICK, "+plugin=evil", "+loss.mine._target_=${plugin}.Loss", "output_dir=run")


def plant_in_config() -> tuple[str, ...]:
    change_run("config.yaml", lambda config: {**config, "plugins": ["evil"]})
    return ("evaluate", "run=theirs", "workers=0")


def plant_in_dataset_of_config() -> tuple[str, ...]:
    change_run("config.yaml", lambda config: {**config, "dataset": {"_target_": "evil.Data"}})
    return ("evaluate", "run=theirs", "workers=0")


def plant_in_teacher_of_config() -> tuple[str, ...]:
    change_run("config.yaml", lambda config: {**config, "teacher": {"_target_": "evil.Net", "checkpoint": "x"}})
    return ("predict", "run=theirs", "split=val", "outputs=[side_by_side]", "output=out.png")


def plant_in_student() -> tuple[str, ...]:
    change_run("student.yaml", lambda spec: {**without_hash(spec), "plugins": ["evil"]})
    return ("evaluate", "run=theirs", "workers=0")


def plant_in_network_of_student() -> tuple[str, ...]:
    change_run("student.yaml", lambda spec: {**without_hash(spec), "network": "evil.Net"})
    return ("evaluate", "run=theirs", "workers=0")


def plant_in_adapter_of_student() -> tuple[str, ...]:
    adapter = {"network": "segkd.models.adapter.Adapter", "arguments": {"network": "evil.Net"}}
    change_run("student.yaml", lambda spec: {**without_hash(spec), **adapter})
    return ("evaluate", "run=theirs", "workers=0")


def plant_in_program_of_student() -> tuple[str, ...]:
    """A package that is named may still hold programs, which nothing but the user starts."""
    Path("my_program").mkdir()
    Path("my_program/__init__.py").touch()
    Path("my_program/__main__.py").write_text(PAYLOAD)
    change_run("student.yaml", lambda spec: {**without_hash(spec), "network": "my_program.__main__.Net"})
    return ("evaluate", "run=theirs", "workers=0", "plugins=[my_program]")


def plant_in_classes() -> tuple[str, ...]:
    Path("farm/images/train").mkdir(parents=True)
    Path("farm/classes.yaml").write_text("classes: [{name: a}, {name: b}]\nsize: [4, 4]\nplugins: [evil]\n")
    return ("check", "dataset=folder", "dataset.root=farm")


def without_hash(spec: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in spec.items() if key != "sha256"}


def change_run(file: str, change: Callable[[dict[str, object]], dict[str, object]]) -> None:
    path = Path("theirs", file)
    path.write_text(yaml.safe_dump(change(yaml.safe_load(path.read_text()))))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, command: Command) -> Path:
    folder = tmp_path_factory.mktemp("theirs")
    arguments = ("experiment=quickstart", "model@teacher=none", "loss=[cross_entropy]", "adversary=none")
    train(command, *QUICK, *arguments, f"output_dir={folder / 'run'}")
    return folder / "run"


@pytest.mark.parametrize(
    ("plant", "phrase"),
    [
        (plant_in_experiment, "a file cannot name plugins"),
        (plant_in_search_path, "searchpath"),
        (plant_in_environment, "hydra.job.env_set: a file cannot name plugins"),
        (plant_in_plan, "a file cannot name plugins"),
        (plant_in_interpolation, "add plugins=[evil]"),
        (plant_in_config, "a file cannot name plugins"),
        (plant_in_dataset_of_config, "add plugins=[evil]"),
        (plant_in_teacher_of_config, "add plugins=[evil]"),
        (plant_in_student, "a file cannot name plugins"),
        (plant_in_network_of_student, "add plugins=[evil]"),
        (plant_in_adapter_of_student, "add plugins=[evil]"),
        (plant_in_program_of_student, "the plugin has no network of that name"),
        (plant_in_classes, "a file cannot name plugins"),
    ],
)
def test_no_file_makes_a_package_run(
    command: Command, run_folder: Path, plant: Callable[[], tuple[str, ...]], phrase: str
) -> None:
    write_package("evil", PAYLOAD, loss__evil="evil: {_target_: evil.Loss}\n")
    Path("theirs").mkdir()
    for path in run_folder.iterdir():
        if path.is_file():
            Path("theirs", path.name).write_bytes(path.read_bytes())
    result = command(*plant())
    assert result.code == 2, result
    assert phrase in result.err
    assert "Traceback" not in result.err
    assert not Path("executed").exists()


def test_a_package_that_the_user_names_runs(command: Command) -> None:
    """The negative control: the payload leaves its file where the package is imported."""
    write_package("evil", PAYLOAD)
    command("train", "plugins=[evil]", *QUICK, "dry_run=true")
    assert Path("executed").exists()
