"""docs/reference/losses.md: what other codebases compute is what we compute, times what its table says; and what it says of ours."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from segkd.check_part.steps import make_step_from_maps
from segkd.config.instantiate import parse_spec
from segkd.losses.pixelwise import Pixelwise
from segkd.types import IGNORE_INDEX

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "reference" / "losses.md"


def read_table(head: str) -> list[list[str]]:
    """Return the cells of the rows of the table of docs/reference/losses.md whose head starts so."""
    lines = DOCUMENT.read_text().replace(r"\|", "∣").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(head)) + 2
    rows = takewhile(lambda line: line.startswith("|"), lines[start:])
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


ROWS = {name: (factor.strip("`"), float(number)) for name, _, _, factor, number in read_table("| as in |")}
"""By codebase: the factor, and its number for N = 8, C = 19, 64×128, T = 1."""


def compute_factor(name: str, **sizes: float) -> float:
    return float(eval(ROWS[name][0], {"__builtins__": {}}, sizes))


def compute_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return p (log p − log q) of every class and pixel, N C H W."""
    p, log_q = (teacher / temperature).softmax(1), (student / temperature).log_softmax(1)
    return p * (p.log() - log_q)


def compute_cirkd(student: Tensor, teacher: Tensor, temperature: float, mask: Tensor) -> Tensor:
    pixels = compute_divergence(student, teacher, temperature).movedim(1, 3).flatten(0, 2)
    return pixels.sum() / len(pixels) * temperature**2


def compute_skd(student: Tensor, teacher: Tensor, temperature: float, mask: Tensor) -> Tensor:
    """Return the cross-entropy with soft targets less the teacher's entropy, which has no gradient."""
    p = teacher.softmax(1)
    height, width = student.shape[2:]
    cross_entropy, entropy = (-(p * maps.log_softmax(1)).sum() / width / height for maps in (student, teacher))
    return cross_entropy - entropy


def compute_torchdistiller(student: Tensor, teacher: Tensor, temperature: float, mask: Tensor) -> Tensor:
    return compute_divergence(student, teacher, temperature).mean()


def compute_zh320(student: Tensor, teacher: Tensor, temperature: float, mask: Tensor) -> Tensor:
    return compute_divergence(student, teacher, temperature).mean() * temperature**2


def compute_paddleseg(student: Tensor, teacher: Tensor, temperature: float, mask: Tensor) -> Tensor:
    labeled = mask[:, None].to(student)
    masked = compute_divergence(student, teacher, temperature) * temperature**2 * labeled
    return masked.mean() / (labeled.mean() + 1e-8)


def compute_mmrazor(student: Tensor, teacher: Tensor, temperature: float, mask: Tensor) -> Tensor:
    return compute_divergence(student, teacher, temperature).sum() / len(student) * temperature**2


CODEBASES: dict[str, Callable[[Tensor, Tensor, float, Tensor], Tensor]] = {
    "CIRKD": compute_cirkd,
    "SKD": compute_skd,
    "TorchDistiller": compute_torchdistiller,
    "zh320": compute_zh320,
    "PaddleSeg": compute_paddleseg,
    "mmrazor": compute_mmrazor,
}
SIZES = {"N": 2, "C": 5, "H": 3, "W": 7}


def compute_both(name: str, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return our value, that of the codebase, and the student's logits."""
    shape = tuple(SIZES.values())
    student, teacher = torch.randn(shape, dtype=torch.float64, requires_grad=True), torch.randn(shape).double()
    target = torch.zeros(SIZES["N"], SIZES["H"], SIZES["W"], dtype=torch.int64)
    masked = name == "PaddleSeg"
    if masked:
        target[0, 1:] = IGNORE_INDEX
    step = make_step_from_maps(student, teacher, target=target)
    value = Pixelwise(temperature=temperature, mask_void=masked)(step)
    return value, CODEBASES[name](student, teacher, temperature, target != IGNORE_INDEX), student


def list_temperatures(name: str) -> tuple[float, ...]:
    return (1.0,) if name == "SKD" else (1.0, 4.0)


def test_table_lists_all_codebases() -> None:
    assert list(ROWS) == list(CODEBASES)


@pytest.mark.parametrize("name", CODEBASES)
def test_factor_converts_value_and_gradient(name: str) -> None:
    for temperature in list_temperatures(name):
        value, other_value, student = compute_both(name, temperature)
        factor = compute_factor(name, **SIZES, T=temperature)
        torch.testing.assert_close(other_value, factor * value)
        gradients = (torch.autograd.grad(v, student, retain_graph=True)[0] for v in (other_value, factor * value))
        torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", CODEBASES)
def test_factors_of_other_codebases_are_wrong(name: str) -> None:
    temperature = list_temperatures(name)[-1]
    value, other_value, _ = compute_both(name, temperature)
    own = compute_factor(name, **SIZES, T=temperature)
    others = {other: compute_factor(other, **SIZES, T=temperature) for other in CODEBASES}
    for factor in {factor for factor in others.values() if factor != own}:
        assert not torch.isclose(other_value, factor * value)
    assert len(set(others.values())) >= 5 if temperature != 1 else 4


@pytest.mark.parametrize("name", CODEBASES)
def test_factor_has_the_value_in_the_table(name: str) -> None:
    assert ROWS[name][1] == pytest.approx(compute_factor(name, N=8, C=19, H=64, W=128, T=1), rel=1e-3)


def test_factors_span_the_stated_range() -> None:
    numbers = [number for _, number in ROWS.values()]
    assert max(numbers) / min(numbers) == pytest.approx(155_000, rel=0.01)
    assert "155 000" in DOCUMENT.read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "loss").glob("*.yaml")), ids=lambda path: path.stem)
def test_defaults_are_in_the_table(path: Path) -> None:
    ((name, node),) = yaml.safe_load(path.read_text()).items()
    formulas, defaults, exempt = (
        {row[0].strip("`"): row for row in read_table(head)}
        for head in ("| loss | formula |", "| loss | default weight", "| loss | exempt from |")
    )
    assert name in formulas, f"docs/reference/losses.md has no row for {name} under 'All losses'"
    assert name in defaults, f"docs/reference/losses.md has no row for {name} under 'Default weights and features'"
    _, weight, feature, _ = defaults[name]
    if node["weight"] is not None:
        assert weight.split()[0].rstrip(",;:") == f"{node['weight']:g}"
    assert f"`{node.get('feature', 'auxiliary')}`" in feature
    assert set(exempt[name][1].split(", ") if name in exempt else []) == set(parse_spec(node).build().exemptions)
