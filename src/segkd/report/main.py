"""`python -m segkd.report`: one self-contained page about one run or several."""

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
from segkd.report.comparison import MethodResult, compare_methods, load_comparable_runs
from segkd.report.image_comparison import compare_images
from segkd.runs.methods import group_by_method
from segkd.runs.run import Run
from segkd.utils.files import atomic_write, make_dir

TEMPLATE = Path(__file__).parent / "templates" / "report.html"


class ReportSettings(Settings):
    """`python -m segkd.report`."""

    runs: RunFolders
    output: Path
    images: int = Field(ge=0)
    confidence: float = Field(gt=0, lt=1)
    teacher_seconds: float | None = Field(ge=0)


def report(cfg: DictConfig) -> None:
    """Write the page; the last line of stdout names it."""
    settings = load_settings(cfg, ReportSettings)
    template, sections = _extra()
    scored, left_out = load_comparable_runs(settings.runs)
    rows = compare_methods(group_by_method(scored), settings.confidence, settings.teacher_seconds)
    assert scored[0].score is not None
    page = template.render(
        title=_title(scored),
        measured_on=scored[0].score.measured_on,
        sections=sections(rows),
        wipes=compare_images(rows, settings.images),
        commands=list(dict.fromkeys(run.command for row in rows for run in row.runs)),
        left_out=left_out,
        confidence=f"{100 * settings.confidence:g}",
        alone=any(not row.runs[0].terms for row in rows),
        version=__version__,
        written=f"{datetime.now():%Y-%m-%d %H:%M}",
    )
    make_dir(settings.output.parent, "output")
    with atomic_write(settings.output, "output") as part:
        part.write_text(page)
    print(f"{len(scored)} runs of {len(rows)} methods → {settings.output}")


def _extra() -> tuple[Any, Callable[[Sequence[MethodResult]], list[Any]]]:
    """The page's template, and what fills it.

    Raises:
        UserError: what draws the page is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined

        from segkd.report.sections import build_sections
    except ImportError as error:
        raise UserError(f"a report needs {error.name}, which is not installed; pip install 'segkd[report]'") from None
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE.read_text()), build_sections


def _title(runs: Sequence[Run]) -> str:
    names = dict.fromkeys(str(run.config["name"]) for run in runs)
    return ", ".join(names)
