"""Stored results as something to read: content is made once (`build_report`), free of any format, and rendered.

A further format is a function from `Report` to text, and a line in `FORMATS`. Any number of machines side by side are a
static site (`write_site`): an index, a report and a file to take away for each run. Times of different classes of
hardware are never put in one ranking: a class has its own decision matrix, and what stands beside each other are
ratios, of each cell's time to that of the reference on the very device that measured it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from html import escape
from importlib import import_module
from pathlib import Path
from threading import Event, Thread

from archbench.folklore.claims import own_claims
from archbench.model.errors import UnfitError, UsageError
from archbench.rendering import provenance
from archbench.rendering.content import Part, Report, Section, Table, body, every, known_format, report, section, slug
from archbench.rendering.decisions import decisions
from archbench.rendering.drawing import KINDS, START_S, STARTING, draw, load_converter
from archbench.rendering.figures import networks, phase_sections, shared_by, stage_times, training_memory
from archbench.rendering.folklore import folklore
from archbench.rendering.html import render_html
from archbench.rendering.plots import plots, plotted
from archbench.rendering.run_data import RunData, read_run, read_several, write_summary
from archbench.rendering.side_by_side import Named, against_reference, named, overview, side_by_side, together
from archbench.rendering.text import render_latex, render_markdown
from archbench.rendering.toggles import toggles
from archbench.rendering.tradeoffs import batches, pareto, predictors
from archbench.results import RunStore, export, is_here
from archbench.results.files import remove_leftovers, write_bytes

FORMATS: dict[str, Callable[[Report], str]] = {"md": render_markdown, "html": render_html, "latex": render_latex}
EVERY = ("*",)
"""A pattern that every network matches."""
_SUFFIXES = {"latex": "tex"}
"""Of formats whose files do not end in the format's name."""


def check_format(format: str, plots: Collection[str] = ()) -> None:
    """Raises `UsageError` for a format that is none of `FORMATS`, and for plots that are none of `drawing.KINDS`."""
    known_format(format, FORMATS)
    for word in plots:
        known_format(word, KINDS, "--plots")


def build_report(run: RunData, label: Sequence[str] = EVERY) -> Report:
    """All that a report says of one run, in the order in which it is read; plots name the networks of `label`."""
    cells = plotted(run.cells, run.suite.settings, label)
    return report(
        f"{run.suite.suite} on {run.environment.hardware_class}",
        _all_of(run, plots(cells)),
        dataset=cells,
        trust=run.trust.statement,
        shared=shared_by(run.cells),
    )


def build_merged(runs: Sequence[RunData], label: Sequence[str] = EVERY) -> Report:
    """Two runs or more in one report: side by side by hardware class, then each by itself."""
    each = named(runs)
    settings = dict.fromkeys(name for one in each for name in one.run.suite.settings)
    cells = plotted(together(each), settings, label)
    alone = (section(f"Run {one.letter}: {one.label}", _all_of(one.run)) for one in each)
    suites = ", ".join(dict.fromkeys(one.run.suite.suite for one in each))
    return report(
        f"{len(each)} runs of {suites}",
        overview(each),
        plots(cells),
        side_by_side(each),
        alone,
        dataset=cells,
        trust=" ".join(f"{one.letter}: {one.run.trust.statement}" for one in each),
        shared=shared_by(together(each)),
    )


def _all_of(run: RunData, drawn: Section | None = None) -> Part:
    return (
        provenance.lead(run),
        decisions(run),
        drawn,
        pareto(run),
        toggles(run),
        batches(run),
        predictors(run),
        training_memory(run),
        stage_times(run),
        folklore(run),
        networks(run),
        *phase_sections(run),
        provenance.failures(run),
        provenance.trust(run),
        provenance.devices(run),
        provenance.machine(run),
        provenance.scope(run),
        provenance.accuracy(run),
        provenance.reproduce(run),
    )


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


def _built(runs: Sequence[RunData], label: Sequence[str], wanted: str) -> Report:
    whole = build_report(runs[0], label) if len(runs) == 1 else build_merged(runs, label)
    if not wanted:
        return whole
    tables = {slug(one.caption): one for one in every(Table, whole.blocks) if one.caption}
    exact = tables.get(slug(wanted))
    found = [exact] if exact else [one for name, one in tables.items() if slug(wanted) in name]
    if not found:
        raise UsageError(f"--table {wanted}: no such table; there are {', '.join(tables)}")
    return Report(title=whole.title, parts=tuple(Section(title=one.caption, blocks=(one,)) for one in found))


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
    return store(_built(read, label, table), format, place, plots)


def write_reports(run_dir: Path) -> list[Path]:
    """What a run leaves when it ends: `report.md` with its plots, `report.html`, and the tables of `write_summary`.

    Errors as for `write_report`.
    """
    run = read_run(run_dir)
    for folder in (run.path, run.path / "plots"):
        remove_leftovers(folder)  # of a run that was killed while it wrote its report
    write_summary(run)
    report = build_report(run)
    return [store(report, format, run.path / f"report.{format}") for format in ("md", "html")]


PIECES: tuple[Callable[[], object], ...] = (
    *(partial(import_module, name) for name in ("pandas", "scipy.special")),
    *(own_claims, load_converter),
)
"""What takes its time before a report can be written, each half a second at most."""


class GettingReady:
    """Loads what `write_reports` needs, in a thread, a piece after the other while it is allowed to; a second in all.

    Begins by being told that it may. Whatever is timed meanwhile would take longer, and so would the import of torch.
    """

    def __init__(self, pieces: Sequence[Callable[[], object]] = PIECES) -> None:
        self._pieces = pieces
        self._given_up = False
        self._allowed = Event()
        self._thread = Thread(target=self._load, daemon=True)

    def allow(self, allowed: bool = True) -> None:
        """From here on it may, or may not, begin with another piece."""
        if not allowed:
            self._allowed.clear()
            return
        self._allowed.set()
        if self._thread.ident is None:
            self._thread.start()

    def finish(self) -> None:
        """Wait for all of it, for as long as the plotting library may take to start."""
        self.allow()
        self._thread.join(START_S)

    def give_up(self) -> None:
        """What is left is loaded when it is needed."""
        self._given_up = True
        self._allowed.set()

    def _load(self) -> None:
        for piece in self._pieces:
            self._allowed.wait()
            if self._given_up:
                return
            with suppress(ImportError), STARTING:  # what is missing is told when it is needed
                piece()


def usual_place(runs: Sequence[Path], format: str) -> Path:
    """`report.md`, `report.html`, `report.tex` in a run's directory; of other places, `archbench-report.md` here."""
    name = f"report.{_SUFFIXES.get(format, format)}"
    if len(runs) > 1 or not is_here(runs[0]):
        return Path(f"archbench-{name}")
    return RunStore.open(runs[0]).path / name


def store(report: Report, format: str, place: Path, plots: Collection[str] = (), folder: str = "") -> Path:
    """Write a report as `place`; markdown after its plots have been drawn into the `folder` that it refers to."""
    kinds = {*plots, "svg"} if format == "md" else {*plots}
    # Reports under other names may share a directory, and must not share their plots.
    folder = folder or ("plots" if place.stem == "report" else f"{place.stem}_plots")
    drawn = bool(kinds) and draw(report, place.parent / folder, sorted(kinds))
    text = render_markdown(report, folder if drawn else None) if format == "md" else FORMATS[format](report)
    write_bytes(place, text.encode())
    return place


def write_site(places: Sequence[Path], out: Path) -> Path:
    """Write the site of some runs into `out`; returns its index. What lies there under other names is left alone.

    Raises `UsageError` as `read_several` does, and `UnfitError` where the place cannot be written.
    """
    runs = named(read_several(places))
    try:
        out.mkdir(parents=True, exist_ok=True)
        links = "".join(_page(one, out) for one in runs)
    except OSError as error:
        raise UnfitError(f"cannot write {out}: {error.strerror or error}") from error
    suites = ", ".join(dict.fromkeys(one.run.suite.suite for one in runs))
    matrices = (
        section(
            f"{one.letter}: {one.label}",
            one.run.trust.statement,
            provenance.about_devices(one.run),
            next(every(Table, body(decisions(one.run))), None),
        )
        for one in runs
    )
    index = report(
        f"{suites}: {len(runs)} machines" if len(runs) > 1 else f"{suites}: one machine",
        overview(runs),
        section("Against the reference", against_reference(runs)),
        section("Which network, class by class", matrices),
    )
    page = render_html(index).replace("</header>", f"<ul>{links}</ul>\n</header>", 1)
    write_bytes(out / "index.html", page.encode())
    return out / "index.html"


def _page(one: Named, out: Path) -> str:
    """Write what the site has of one run, and return an item of the index that leads there."""
    folder = f"{slug(one.letter)}-{slug(one.run.environment.hardware_class)}"
    (out / folder).mkdir(exist_ok=True)
    write_bytes(out / folder / "index.html", render_html(build_report(one.run)).encode())
    exported = export(one.run.path, out / folder / "run.archbench")
    return (
        f'<li><a href="{folder}/index.html">{escape(one.letter)}: {escape(one.label)}</a> '
        f'(<a href="{folder}/run.archbench" download>all of it as one file</a>, '
        f"SHA-256 <code>{exported.sha256}</code>)</li>"
    )
