"""`python -m segkd.report`: one self-contained page about one run or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pydantic import Field

from segkd import __version__
from segkd.cli import launch
from segkd.config import RunFolders, Settings, validate
from segkd.errors import UserError
from segkd.files import made, whole
from segkd.reports.comparison import Compared, comparable, compared
from segkd.reports.wipes import wipes
from segkd.runs import Run, methods

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
    settings = validate(cfg, ReportSettings)
    template, sections = _extra()
    scored, left_out = comparable(settings.runs)
    rows = compared(methods(scored), settings.confidence, settings.teacher_seconds)
    assert scored[0].score is not None
    page = template.render(
        title=_title(scored),
        measured_on=scored[0].score.measured_on,
        sections=sections(rows),
        wipes=wipes(rows, settings.images),
        commands=list(dict.fromkeys(run.command for row in rows for run in row.runs)),
        left_out=left_out,
        confidence=f"{100 * settings.confidence:g}",
        alone=any(not row.runs[0].terms for row in rows),
        version=__version__,
        written=f"{datetime.now():%Y-%m-%d %H:%M}",
    )
    made(settings.output.parent, "output")
    with whole(settings.output, "output") as part:
        part.write_text(page)
    print(f"{len(scored)} runs of {len(rows)} methods → {settings.output}")


def _extra() -> tuple[Any, Callable[[Sequence[Compared]], list[Any]]]:
    """The page's template, and what fills it.

    Raises:
        UserError: what draws the page is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined

        from segkd.reports.findings import sections
    except ImportError as error:
        raise UserError(f"a report needs {error.name}, which is not installed; pip install 'segkd[report]'") from None
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE.read_text()), sections


def _title(runs: Sequence[Run]) -> str:
    names = dict.fromkeys(str(run.config["name"]) for run in runs)
    return ", ".join(names)


if __name__ == "__main__":
    launch(report, "report")
