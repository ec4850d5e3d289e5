"""`archbench list`, `show`, `fits`, `pick`, `report`, `site`, `doctor`, `schema`: what is known, nothing measured."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from archbench.cli.console import AsJson, DeviceOption, NetworkArgument, answer, column_names, completing, taking
from archbench.model.derived import RANKING_KEYS
from archbench.model.errors import UnfitError, UsageError, did_you_mean
from archbench.options import FitsOptions, ShowOptions


def catalogue_columns() -> Iterable[str]:
    """What a condition on the catalogue can name."""
    from archbench.catalog.card import COUNTED, LISTED

    return (*LISTED, *COUNTED)


def _columns(help: str, words: Callable[[], Iterable[str]] = column_names, metavar: str = "COLUMN") -> Any:
    return typer.Option(metavar=metavar, help=help, autocompletion=completing(words))


_where = partial(_columns, metavar="EXPR")


def list_command(
    family: Annotated[str | None, typer.Option(help="Only this family: resnet, densenet, ...")] = None,
    source: Annotated[str | None, typer.Option(help="Only from torchvision, timm or archbench.")] = None,
    where: Annotated[
        list[str] | None, _where("A condition: 'year >= 2020', 'params < 10M and top1 >= 75'.", catalogue_columns)
    ] = None,
    sort: Annotated[str | None, _columns("Smallest first; -COLUMN: largest first.", catalogue_columns)] = None,
    as_json: AsJson = False,
) -> None:
    """List the catalogue: family, year, parameters, GMACs and published top-1 of every named network."""
    from archbench import catalog
    from archbench.catalog.card import matching, summary
    from archbench.rendering.catalogue import catalogue_report

    if source is not None and source not in catalog.SOURCES:
        near = did_you_mean(source, catalog.SOURCES)
        raise UsageError(f"unknown source {source!r}{near or '; there are ' + ', '.join(catalog.SOURCES)}")
    chosen = catalog.entries().values() if family is None else catalog.family(family)
    entries = (entry for entry in chosen if source in (None, entry.source))
    listed = [summary(entry) for entry in matching(entries, where or (), sort)]
    answer(listed, catalogue_report, as_json)
    if not as_json:
        _hint(source)


def _hint(source: str | None) -> None:
    """How to name what is not listed; on stderr, since it is no row of the table."""
    from archbench.catalog.names import LIBRARIES, families_by_name

    for library in LIBRARIES:
        if source == library:
            number = len(families_by_name(library))
            print(f"Any of {library}'s {number:,} classification networks goes by {library}:NAME.", file=sys.stderr)
    if source is None:
        print("Any classification network of these libraries goes by torchvision:NAME or timm:NAME.", file=sys.stderr)


@taking(ShowOptions)
def show_command(
    name: NetworkArgument,
    bibtex: Annotated[bool, typer.Option("--bibtex", help="Print the paper's entry for a bibliography.")] = False,
    as_json: AsJson = False,
    **given: Any,
) -> None:
    """Show one network: size counted and published, accuracy with its protocol, stages; memory where it is built."""
    from archbench.known import show
    from archbench.rendering.catalogue import card_report

    shown = show(name, **given)
    if bibtex:
        if shown.bibtex is None:
            raise UsageError(f"--bibtex: the catalogue names no paper of {name}")
        print(shown.bibtex)
    else:
        answer(shown, card_report, as_json)


@taking(FitsOptions)
def fits_command(name: NetworkArgument, as_json: AsJson = False, **given: Any) -> None:
    """Tell the largest batch that fits into a memory, by the network's predicted memory; --verify tries it."""
    from archbench.known import fits
    from archbench.rendering.catalogue import fits_report

    answer(fits(name, **given), fits_report, as_json)


def pick_command(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Runs' directories or results files; several are merged.")
    ],
    where: Annotated[
        list[str] | None, _where("A condition: 'latency_p99 <= 5ms', 'year >= 2020', 'family in (resnet, densenet)'.")
    ] = None,
    minimize: Annotated[list[str] | None, _columns("Smallest first.")] = None,
    maximize: Annotated[list[str] | None, _columns("Largest first. Several goals give the Pareto front.")] = None,
    across: Annotated[
        list[str] | None, _columns("Rank rows together that differ in batch_size, precision, ...", lambda: RANKING_KEYS)
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Rows of a shortlist to print.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Pick a network: a ranked shortlist with settings, margins and intervals, and why each other is left out.

    Without a goal the smallest latency_median comes first. Exits with 0 also where nothing satisfies the conditions.
    """
    from archbench.api import pick
    from archbench.rendering.decisions import picked_report

    picked = pick(runs, where=where or (), minimize=minimize or (), maximize=maximize or (), across=across or ())
    answer(picked, lambda one: picked_report(one, top), as_json)


def report_command(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Directories of runs, finished or not; several side by side.")
    ],
    format: Annotated[str, typer.Option("--format", metavar="FORMAT", help="md, html or latex")] = "md",
    out: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="Where to write, - for stdout; else report.FORMAT in RUN, of several archbench-report.FORMAT here.",
        ),
    ] = "",
    only: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Cells to show: resnet*, resnet50@batch_size=1.")
    ] = None,
    table: Annotated[
        str, typer.Option(metavar="WORDS", help="Only the tables with these words in their caption, such as matrix.")
    ] = "",
    label: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Networks that plots name; else all that have room.")
    ] = None,
    plots: Annotated[
        str, typer.Option(metavar="KINDS", help="Store plots as svg, png, pdf (several: png,pdf), beside the report.")
    ] = "",
) -> None:
    """Render stored results as a report; prints where it is."""
    from archbench.api import report
    from archbench.rendering.report import check_format, usual_place

    kinds = [word.strip() for word in plots.split(",")] if plots else []
    check_format(format, kinds)
    if kinds and out == "-":
        raise UsageError("--plots needs a place to lie beside: give --out a file")
    place = None if out == "-" else out or usual_place(runs, format)
    # Hardly anything is thrown away before the end, and looking for it takes a tenth of a large run's time.
    gc.disable()
    try:
        found = report(runs, format=format, out=place, only=only or (), label=label or "*", table=table, plots=kinds)
        print(found, end="" if place is None else "\n")
    finally:
        gc.enable()


def site_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Runs: directories, exported files or URLs.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to write it.")] = Path("site"),
) -> None:
    """Put any number of machines side by side as a static site, to be published as it is; prints its index."""
    from archbench.api import site

    print(site(runs, out=out))


def doctor_command(device: DeviceOption = "auto", as_json: AsJson = False) -> None:
    """Judge whether this machine is fit to measure: each finding with its remedy; exit 3 when it is not."""
    from archbench.device import examine, resolve_device
    from archbench.rendering.content import report, table

    examined = examine(resolve_device(device))
    here = examined.environment
    rows = (
        (one.severity, one.code, f"{one.what}. {one.remedy}" if one.remedy else one.what) for one in examined.findings
    )
    title = f"{here.hardware_class}, measured as {here.device}"
    answer(examined, lambda _: report(title, table(("", "", ""), rows)), as_json)
    if not examined.fit:
        reasons = dict.fromkeys(finding.code for finding in examined.findings if finding.severity == "unfit")
        raise UnfitError(f"this machine is not fit to measure on {here.device}: {', '.join(reasons)}")


def schema_command() -> None:
    """Print the JSON Schema of a suite file, so that an editor completes and checks suites."""
    from archbench.suite import json_schema

    print(json.dumps(json_schema(), indent=2))
