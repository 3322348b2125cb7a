"""Specs: which classes a config may name, as which argument, and what is said where a class of a plugin cannot be built."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from segkd.config.instantiate import Spec, parse_spec
from segkd.errors import UserError
from segkd.losses.base import Loss
from segkd.models.base import Normalization

PLUGIN = """
from pathlib import Path
from typing import Any
from segkd.losses.base import Loss
from segkd.models.espnet import ESPNetC

class Danger:
    def __init__(self, path: str = "executed"):
        Path(path).touch()

class Part(Loss):
    def __init__(self, weight: float = 1.0, size: int | None = None, parts: dict[str, int] | None = None, anything: Any = None):
        super().__init__(weight)
        self.anything = anything
    def forward(self, step):
        return step.student.logits.mean()

class Counting(Part):
    def __init__(self, weight: float, num_classes: int):
        super().__init__(weight)
        self.num_classes = num_classes

class Positional(Part):
    def __init__(self, weight: float, /):
        super().__init__(weight)

class Forgetful(Part):
    def __init__(self, weight: float = 1.0):
        self.weight = weight

class Failing(Part):
    def __init__(self, weight: float = 1.0):
        raise RuntimeError("no GPU here")

class Unusual(Part):
    def __init__(self, weight: "float" = 1.0, other: "Missing" = None, **more):
        super().__init__(weight)
        self.more = more

class Net(ESPNetC):
    def __init__(self, num_classes: int):
        super().__init__(num_classes, None)

def make():
    class Inner(ESPNetC):
        pass
    return Inner

Inner = make()
"""


@pytest.fixture(autouse=True)
def _with_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SEGKD_PLUGINS", "own")


def build(node: Mapping[str, Any], **given: Any) -> Any:
    return parse_spec(node).build(**given)


DANGER = {"_target_": "own.Danger"}


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("weight", DANGER, "'weight' must be of type float, not Danger"),
        ("size", DANGER, "'size' must be of type int, not Danger"),
        ("parts", {"a": DANGER}, r"'parts\.a' must be of type int, not Danger"),
        ("parts", DANGER, "'parts' must be of type dict, not Danger"),
        ("size", [DANGER], "'size' must be a whole number"),
    ],
)
def test_class_hidden_in_an_argument_is_of_its_type(argument: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build({"_target_": "own.Part", argument: value})
    assert not Path("executed").exists()


def test_argument_of_any_type_may_be_any_object() -> None:
    """The negative control: the same node, where nothing says what is expected, is built."""
    assert type(build({"_target_": "own.Part", "anything": DANGER}).anything).__name__ == "Danger"
    assert Path("executed").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Positional", r"own\.Positional cannot be built: 'weight' parameter is positional.only"),
        ("Forgetful", r"its __init__ does not call super\(\).__init__\(\)"),
        ("Failing", r"own\.Failing cannot be built: RuntimeError: no GPU here \(.*own\.py, line \d+\)"),
    ],
)
def test_class_of_a_plugin_that_cannot_be_built_is_explained(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build({"_target_": f"own.{name}", "weight": 1.0})


def test_network_that_does_not_take_what_segkd_gives_is_explained() -> None:
    with pytest.raises(
        UserError, match=r"'normalization'; its constructor is called with .* num_classes, normalization"
    ):
        build({"_target_": "own.Net"}, num_classes=2, normalization=Normalization((0.0,) * 3, (1.0,) * 3))


def test_network_that_no_student_yaml_could_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'own\.make\.<locals>\.Inner' is not the name of a class"):
        parse_spec({"_target_": "own.Inner", "p": 1, "q": 1})


def test_unusual_constructors_are_taken() -> None:
    """Any keyword, annotations of names that only a type checker imports, and a loss's own number of classes."""
    assert build({"_target_": "own.Unusual", "weight": 2, "other": 1, "k": 3}).more == {"k": 3}
    assert build({"_target_": "own.Counting", "weight": 1, "num_classes": 7}).num_classes == 7


def test_fault_of_segkd_s_own_class_stays_a_crash() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        Spec(Broken, {}).build()


def test_kind_is_checked_before_anything_is_built() -> None:
    with pytest.raises(ValueError, match=r"'own\.Danger' is no Loss"):
        parse_spec(DANGER, kind=Loss)
    assert not Path("executed").exists()
