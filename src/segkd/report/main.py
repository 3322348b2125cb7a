"""`python -m segkd.report`: write a self-contained HTML page that compares runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pydantic import Field

from segkd import __version__
from segkd.config.schema import RunFolders, Settings, load_settings
from segkd.errors import UserError
from segkd.report.comparison import MethodResult, compare_methods
from segkd.report.image_comparison import compare_images
from segkd.runs.comparable import load_comparable_runs
from segkd.runs.methods import group_by_method
from segkd.runs.run import Run
from segkd.utils.files import atomic_write, make_dir
from segkd.utils.packages import explain_install

TEMPLATE = Path(__file__).parent / "templates" / "report.html"


class ReportSettings(Settings):
    """Settings of `python -m segkd.report`."""

    runs: RunFolders = Field(
        description="folders of runs: one, or methods and seeds to compare",
        json_schema_extra={"values": "'GLOB'|[DIR,…]"},
    )
    output: Path = Field(
        description="the HTML file, which loads nothing from elsewhere", json_schema_extra={"values": "FILE"}
    )
    images: int = Field(ge=0, description="validation images in the comparison slider; 0: none")
    confidence: float = Field(gt=0, lt=1, description="confidence level of the intervals")
    teacher_seconds: float | None = Field(
        ge=0, description="training time of a teacher whose run is not beside its weights, in seconds"
    )


def report(cfg: DictConfig) -> None:
    """Write the page, and print its path as the last line of stdout."""
    settings = load_settings(cfg, ReportSettings)
    template, build_sections = _load_extra()
    runs, notes = load_comparable_runs(settings.runs)
    methods = compare_methods(group_by_method(runs), settings.confidence, settings.teacher_seconds)
    page = template.render(
        _describe_runs(runs, methods),
        sections=build_sections(methods),
        comparison=compare_images(methods, settings.images),
        notes=notes,
        confidence=f"{100 * settings.confidence:g}",
        version=__version__,
        written=f"{datetime.now():%Y-%m-%d %H:%M}",
    )
    make_dir(settings.output.parent, "output")
    with atomic_write(settings.output, "output") as part:
        part.write_text(page, encoding="utf-8")
    print(f"{len(runs)} runs of {len(methods)} methods → {settings.output}")


def _describe_runs(runs: Sequence[Run], methods: Sequence[MethodResult]) -> dict[str, Any]:
    assert runs[0].score is not None
    return {
        "title": ", ".join(dict.fromkeys(str(run.config["name"]) for run in runs)),
        "measured_on": runs[0].score.measured_on,
        "commands": list(dict.fromkeys(run.command for method in methods for run in method.runs)),
        "has_baseline": any(method.is_baseline for method in methods),
    }


def _load_extra() -> tuple[Any, Callable[[Sequence[MethodResult]], list[Any]]]:
    """Return the page's template, and the function that builds its sections.

    Raises:
        UserError: if a package of the extra `report` is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined

        from segkd.report.sections import build_sections
    except ImportError as error:
        raise UserError(f"a report needs {error.name}, which is not installed; {explain_install('report')}") from None
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")), build_sections
