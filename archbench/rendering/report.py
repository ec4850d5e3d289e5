"""Stored results as something to read: content is made once (`build_report`), free of any format, and rendered.

A further format is a function from `Report` to text, and a line in `FORMATS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from archbench.model.errors import UsageError, did_you_mean
from archbench.rendering.batches import batches, predictors
from archbench.rendering.charts import plots
from archbench.rendering.content import Report, Section, Table, every, sections, slug
from archbench.rendering.decisions import decisions
from archbench.rendering.devices import devices
from archbench.rendering.drawing import KINDS, draw, load_converter
from archbench.rendering.figures import networks, phase_sections, shared_by, stage_times, training_memory
from archbench.rendering.folklore import folklore
from archbench.rendering.html import load_scripts, render_html
from archbench.rendering.markup import render_latex, render_markdown
from archbench.rendering.pareto import pareto
from archbench.rendering.plots import plotted
from archbench.rendering.provenance import accuracy, failures, lead, machine, reproduce, scope, trust
from archbench.rendering.run_data import RunData, read_run, read_several
from archbench.rendering.side_by_side import named, overview, side_by_side, together
from archbench.rendering.summary import write_summary
from archbench.rendering.toggles import toggles
from archbench.results import RunStore, is_here
from archbench.results.files import write_bytes

__all__ = [
    "FORMATS",
    "Report",
    "RunData",
    "build_merged",
    "build_report",
    "check_format",
    "get_ready",
    "read_report",
    "read_run",
    "read_several",
    "render_markdown",
    "usual_place",
    "write_report",
    "write_reports",
]

FORMATS: dict[str, Callable[[Report], str]] = {"md": render_markdown, "html": render_html, "latex": render_latex}
EVERY = ("*",)
"""A pattern that every network matches."""
_SUFFIXES = {"latex": "tex"}
"""Of formats whose files do not end in the format's name."""


def check_format(format: str, plots: Collection[str] = ()) -> None:
    """Raises `UsageError` for a format that is none of `FORMATS`, and for plots that are none of `drawing.KINDS`."""
    for option, given, known in (("format", [format], FORMATS), ("plots", plots, KINDS)):
        for word in given:
            if word not in known:
                raise UsageError(
                    f"--{option} {word}: no such format, known: {', '.join(known)}{did_you_mean(word, known)}"
                )


def build_report(run: RunData, label: Sequence[str] = EVERY) -> Report:
    """All that a report says of one run, in the order in which it is read; plots name the networks of `label`."""
    cells = plotted(run.cells, run.suite.settings, label)
    return Report(
        title=f"{run.suite.suite} on {run.environment.hardware_class}",
        lead=lead(run),
        sections=sections(decisions(run), plots(cells) if cells else None, *_figures(run), *_footnotes(run)),
        dataset=cells,
        trust=run.trust.statement,
        shared=shared_by(run.cells),
    )


def build_merged(runs: Sequence[RunData], label: Sequence[str] = EVERY) -> Report:
    """Two runs or more in one report: side by side by hardware class, then each by itself."""
    each = named(runs)
    settings = dict.fromkeys(name for one in each for name in one.run.suite.settings)
    cells = plotted(together(each), settings, label)
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
        sections=sections(plots(cells) if cells else None, *side_by_side(each), *alone),
        dataset=cells,
        trust=" ".join(f"{one.letter}: {one.run.trust.statement}" for one in each),
        shared=shared_by(together(each)),
    )


def _figures(run: RunData) -> tuple[Section | None, ...]:
    return (
        pareto(run),
        toggles(run),
        batches(run),
        predictors(run),
        training_memory(run),
        stage_times(run),
        folklore(run),
        networks(run),
        *phase_sections(run),
        failures(run),
    )


def _footnotes(run: RunData) -> tuple[Section | None, ...]:
    return (trust(run), devices(run), machine(run), scope(run), accuracy(run), reproduce(run))


def read_report(
    runs: Sequence[Path], *, only: Sequence[str] = (), label: Sequence[str] = EVERY, table: str = ""
) -> Report:
    """The report of a run, or of several side by side, where one that cannot be read is named in a warning.

    `only`: patterns of cells, as of `archbench run`; `label`: patterns of the networks that plots name; `table`: a word
    of the caption of the tables that are wanted alone. Raises `UsageError` for what is not a run, a run that is named
    twice, a pattern that matches nothing, and a table that the report does not have.
    """
    return _built(_read(runs, only), label, table)


def _read(runs: Sequence[Path], only: Sequence[str]) -> list[RunData]:
    return [read_run(runs[0], only)] if len(runs) == 1 else read_several(runs, only)


def _built(runs: Sequence[RunData], label: Sequence[str], table: str) -> Report:
    report = build_report(runs[0], label) if len(runs) == 1 else build_merged(runs, label)
    return _alone(report, table) if table else report


def _alone(report: Report, wanted: str) -> Report:
    """The tables whose caption is `wanted`, or else has it in it."""
    tables = {slug(one.caption): one for one in every(Table, report.blocks) if one.caption}
    exact = {slug(wanted)} & tables.keys()
    found = [one for name, one in tables.items() if (name in exact if exact else slug(wanted) in name)]
    if not found:
        raise UsageError(f"--table {wanted}: no such table; there are {', '.join(tables)}")
    return Report(
        title=report.title, lead=(), sections=tuple(Section(title=one.caption, blocks=(one,)) for one in found)
    )


def write_report(
    runs: Path | Sequence[Path],
    format: str = "md",
    out: Path | None = None,
    *,
    only: Sequence[str] = (),
    label: Sequence[str] = EVERY,
    table: str = "",
    plots: Collection[str] = (),
) -> Path:
    """Render runs and store the report as `out` or at the `usual_place`; returns where it is.

    Parameters and errors as of `read_report`. Plots of the kinds `plots` lie in a folder beside it, those of markdown
    as SVG whatever is asked for; in the directory of a whole run what it prints as tables (`write_summary`). Raises
    `UnfitError` where the place cannot be written.
    """
    paths = [runs] if isinstance(runs, Path) else runs
    read = _read(paths, only)
    place = out or usual_place(paths, format)
    if len(read) == 1 and not only and os.path.realpath(place.parent) == os.path.realpath(read[0].path):
        write_summary(read[0])
    return _write(_built(read, label, table), format, place, plots)


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
        for name in ("pandas", "scipy.special"):
            import_module(name)
        load_scripts()
        load_converter()


def usual_place(runs: Sequence[Path], format: str) -> Path:
    """`report.md`, `report.html`, `report.tex` in a run's directory; of other places, `archbench-report.md` here."""
    name = f"report.{_SUFFIXES.get(format, format)}"
    if len(runs) > 1 or not is_here(runs[0]):
        return Path(f"archbench-{name}")
    return RunStore.open(runs[0]).path / name


def store(report: Report, place: Path) -> Path:
    """Write a report that is of no run: markdown with its plots beside it, or HTML, as the place's name ends."""
    return _write(report, place.suffix.removeprefix("."), place)


def _write(report: Report, format: str, place: Path, plots: Collection[str] = ()) -> Path:
    """Markdown, after its plots have been drawn into the folder that it refers to."""
    kinds = {*plots, "svg"} if format == "md" else {*plots}
    # Reports under other names may share a directory, and must not share their plots.
    folder = "plots" if place.stem == "report" else f"{place.stem}_plots"
    drawn = bool(kinds) and draw(report, place.parent / folder, sorted(kinds))
    text = render_markdown(report, folder if drawn else None) if format == "md" else FORMATS[format](report)
    write_bytes(place, text.encode())
    return place
