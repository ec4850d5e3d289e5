"""Stored results as something to read: content is made once (`build_report`), free of any format, and rendered.

A further format is a function from `Report` to text, and a line in `FORMATS`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from archbench.model.errors import UsageError, did_you_mean
from archbench.rendering.batches import batches, predictors
from archbench.rendering.content import Dataset, Paragraph, Report, Section, sections
from archbench.rendering.decisions import decisions
from archbench.rendering.drawing import DRAWN_BY, draw, load_converter
from archbench.rendering.figures import networks, phase_sections, stage_times, training_memory
from archbench.rendering.html import load_scripts, render_html
from archbench.rendering.latex import render_latex
from archbench.rendering.machine import accuracy, lead, machine, reproduce, scope
from archbench.rendering.markdown import render_markdown
from archbench.rendering.pareto import pareto
from archbench.rendering.plots import plotted
from archbench.rendering.run_data import RunData, read_run, read_several
from archbench.rendering.side_by_side import named, overview, side_by_side, together
from archbench.rendering.summary import write_summary
from archbench.rendering.toggles import toggles
from archbench.rendering.trust import failures, trust

__all__ = [
    "FORMATS",
    "Report",
    "RunData",
    "build_merged",
    "build_report",
    "check_format",
    "file_name",
    "get_ready",
    "read_run",
    "read_several",
    "render_markdown",
    "write_merged",
    "write_report",
    "write_reports",
]

log = logging.getLogger(__name__)

FORMATS: dict[str, Callable[[Report], str]] = {"md": render_markdown, "html": render_html, "latex": render_latex}
_SUFFIXES = {"latex": "tex"}
"""Of formats whose files do not end in the format's name."""


def check_format(format: str) -> None:
    """Raises `UsageError` for a format that is none of `FORMATS`."""
    if format not in FORMATS:
        raise UsageError(
            f"--format {format}: no such format, known: {', '.join(FORMATS)}{did_you_mean(format, FORMATS)}"
        )


def build_report(run: RunData) -> Report:
    """All that a report says of one run, in the order in which it is read."""
    cells = plotted(run.cells, run.suite.settings)
    return Report(
        title=f"{run.suite.suite} on {run.environment.hardware_class}",
        lead=lead(run),
        sections=sections(decisions(run), _plots(cells), *_figures(run), *_footnotes(run)),
        dataset=cells,
        trust=run.trust.statement,
    )


def build_merged(runs: Sequence[RunData]) -> Report:
    """Two runs or more in one report: side by side by hardware class, then each by itself."""
    each = named(runs)
    settings = dict.fromkeys(name for one in each for name in one.run.suite.settings)
    cells = plotted(together(each), settings)
    alone = (
        Section(
            title=f"Run {one.letter}: {one.label}",
            blocks=(*lead(one.run), *sections(decisions(one.run), *_figures(one.run), *_footnotes(one.run))),
        )
        for one in each
    )
    suites = ", ".join(dict.fromkeys(one.run.suite.suite for one in each))
    return Report(
        title=f"{len(each)} runs of {suites}",
        lead=overview(each),
        sections=sections(_plots(cells), *side_by_side(each), *alone),
        dataset=cells,
        trust=" ".join(f"{one.letter}: {one.run.trust.statement}" for one in each),
    )


def _figures(run: RunData) -> tuple[Section | None, ...]:
    return (
        pareto(run),
        toggles(run),
        batches(run),
        predictors(run),
        training_memory(run),
        stage_times(run),
        networks(run),
        *phase_sections(run),
        failures(run),
    )


def _footnotes(run: RunData) -> tuple[Section | None, ...]:
    return (trust(run), machine(run), scope(run), accuracy(run), reproduce(run))


def _plots(cells: Dataset | None) -> Section | None:
    """The plots; a report without them is complete, so one is written even where their library cannot be imported."""
    try:
        from archbench.rendering.plots import plots

        return plots(cells) if cells else None
    except ImportError as error:
        log.warning("plots are left out: %s; %s", error, DRAWN_BY)
        return Section(title="Plots", blocks=(Paragraph(f"No plots in this report: {DRAWN_BY}."),))


def write_report(run_dir: Path, format: str = "md", out: Path | None = None) -> Path:
    """Render a run and store it as `out`, or as `report.<format>` in the run's directory; returns where it is.

    Markdown's plots lie in a folder beside it, and in the run's directory what it prints as tables (`write_summary`).
    Raises `UsageError` for what is not a run, and `UnfitError` where the place cannot be written.
    """
    run = read_run(run_dir)
    place = out or run.path / file_name(format)
    if os.path.realpath(place.parent) == os.path.realpath(run.path):
        write_summary(run)
    return _write(build_report(run), format, place)


def write_merged(runs: Sequence[Path], format: str, out: Path | None = None) -> Path:
    """Render several runs together and store them as `out`, or as `archbench-report.<format>` in this directory.

    A run that cannot be read is named in a warning and left out. Raises `UsageError` where a place does not exist, a
    run is named twice or none can be read, and `UnfitError` where the report cannot be written.
    """
    report = build_merged(read_several(runs))
    return _write(report, format, out or Path(f"archbench-{file_name(format)}"))


def write_reports(run_dir: Path) -> list[Path]:
    """What a run leaves when it ends: `report.md` with its plots, `report.html`, and the tables of `write_summary`.

    Errors as for `write_report`.
    """
    run = read_run(run_dir)
    write_summary(run)
    report = build_report(run)
    return [_write(report, format, run.path / f"report.{format}") for format in ("md", "html")]


def get_ready() -> None:
    """Load what `write_reports` needs, which takes two seconds: for a moment at which nothing is being measured."""
    with suppress(ImportError):  # what is missing is told when it is needed
        for name in ("pandas", "scipy.special", "archbench.rendering.charts"):
            import_module(name)
        load_scripts()
        load_converter()


def file_name(format: str) -> str:
    """`report.md`, `report.html`, `report.tex`: what a report is called in its run's directory."""
    return f"report.{_SUFFIXES.get(format, format)}"


def _write(report: Report, format: str, place: Path) -> Path:
    from archbench.results.files import write_bytes

    text = _with_plots(report, place) if format == "md" else FORMATS[format](report)
    write_bytes(place, text.encode())
    return place


def _with_plots(report: Report, place: Path) -> str:
    """Markdown, after its plots have been drawn into the folder that it refers to."""
    # Reports under other names may share a directory, and must not share their plots.
    folder = "plots" if place.name == "report.md" else f"{place.stem}_plots"
    return render_markdown(report, folder if draw(report, place.parent / folder) else None)
