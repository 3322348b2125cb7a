"""Files are UTF-8 whatever the locale, and output that an encoding lacks is escaped."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from segkd.cli.logs import configure_streams
from tests.helpers.fake_datasets import write_folder
from tests.helpers.run_folders import PIXELWISE, write_run_folder

SOURCE = Path(__file__).parents[1] / "src" / "segkd"
TEXT_METHODS = ("read_text", "write_text", "open")


def find_calls_without_encoding(source: str) -> list[int]:
    """Return the lines of calls that read or write text in the encoding of the locale."""
    lines = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        keywords = {keyword.arg: keyword.value for keyword in call.keywords}
        if name in ("run", "Popen", "check_output"):
            is_text = "text" in keywords
        elif name == "open":
            arguments = call.args if isinstance(call.func, ast.Attribute) else call.args[1:]
            mode = arguments[0] if arguments else ast.Constant("r")
            is_text = isinstance(mode, ast.Constant) and mode.value in ("r", "w", "a", "x")
        else:
            is_text = name in TEXT_METHODS
        if is_text and "encoding" not in keywords:
            lines.append(call.lineno)
    return lines


@pytest.mark.parametrize(
    "call",
    [
        "p.read_text(%s)",
        "p.write_text(x, %s)",
        "p.open(%s)",
        "p.open('w', %s)",
        "open(p, 'a', %s)",
        "run([], text=True, %s)",
    ],
)
def test_a_call_without_encoding_is_found(call: str) -> None:
    assert find_calls_without_encoding(call.replace("%s", "")) == [1]
    assert not find_calls_without_encoding(call.replace("%s", "encoding='utf-8'"))


def test_every_text_file_names_its_encoding() -> None:
    found = {path: find_calls_without_encoding(path.read_text("utf-8")) for path in SOURCE.rglob("*.py")}
    assert not {path: lines for path, lines in found.items() if lines}


def test_streams_escape_what_their_encoding_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", out)
    with pytest.raises(UnicodeEncodeError):
        print("läufer → 1", flush=True)
    configure_streams()
    print("läufer → 1", end="", flush=True)
    assert out.buffer.getvalue() == b"l\xe4ufer \\u2192 1"


@pytest.mark.process
@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["ascii output", "C locale"],
)
def test_a_class_and_a_sign_that_ascii_lacks(tmp_path: Path, environment: dict[str, str]) -> None:
    for seed in (0, 1):
        write_run_folder(tmp_path, 0.4, PIXELWISE, seed=seed, iou={"läufer": 0.5})
    for arguments in ("classes=true", "classes=false"):
        result = subprocess.run(
            [sys.executable, "-m", "segkd", "compare", f"runs={tmp_path}/*", arguments],
            env={**os.environ, **environment},
            capture_output=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        assert (b"l\\xe4ufer" if arguments == "classes=true" else b"\\xb1") in result.stdout


@pytest.mark.process
def test_a_training_ends_well_where_nothing_can_be_printed(tmp_path: Path) -> None:
    """The arrow of the last line and the class's name, on ASCII output and in files of an ASCII locale."""
    write_folder(tmp_path / "data")
    classes = tmp_path / "data" / "classes.yaml"
    classes.write_text(classes.read_text().replace("soil", "'läufer [b]'"), encoding="utf-8")
    short = ("data.crop_size=[32,32]", "data.batch_size=2", "data.workers=0", "trainer.max_epochs=1", "trainer=cpu")
    result = subprocess.run(
        [sys.executable, "-m", "segkd.train", "dataset=folder", "dataset.root=data", "output_dir=run", *short],
        cwd=tmp_path,
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert rb"\u2192 " in result.stdout.splitlines()[-1]
    assert "val/iou/läufer [b]" in (tmp_path / "run" / "metrics.csv").read_text(encoding="utf-8")
