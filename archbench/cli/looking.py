"""What is known, and nothing measured, unless `claims` is asked to: `archbench list`, `show`, `fits`, `pick`, `report`,
`site`, `compare`, `history`, `claims`, `doctor`, `schema`.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from archbench.cli import console
from archbench.cli.console import answer, argument, option, switch, taking
from archbench.model.errors import UnfitError, UsageError, did_you_mean
from archbench.model.units import indented_json
from archbench.options import ClaimsOptions, CompareOptions, FitsOptions, PickOptions, ReportOptions, ShowOptions


def catalogue_columns() -> Iterable[str]:
    """What a condition on the catalogue can name."""
    from archbench.catalog.card import COUNTED, LISTED

    return (*LISTED, *COUNTED)


_COMPLETED = console.completing(catalogue_columns)


def list_command(
    family: Annotated[str | None, option("Only this family: resnet, densenet, ...")] = None,
    source: Annotated[str | None, option("Only from torchvision, timm or archbench.")] = None,
    where: Annotated[
        list[str] | None,
        option("A condition: 'year >= 2020', 'params < 10M and top1 >= 75'.", "EXPR", autocompletion=_COMPLETED),
    ] = None,
    sort: Annotated[
        str | None, option("Smallest first; -COLUMN: largest first.", "COLUMN", autocompletion=_COMPLETED)
    ] = None,
    as_json: console.AsJson = False,
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
    name: console.NetworkArgument,
    bibtex: Annotated[bool, switch("--bibtex", "Print the paper's entry for a bibliography.")] = False,
    as_json: console.AsJson = False,
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
def fits_command(name: console.NetworkArgument, as_json: console.AsJson = False, **given: Any) -> None:
    """Tell the largest batch that fits into a memory, by the network's predicted memory; --verify tries it."""
    from archbench.known import fits
    from archbench.rendering.catalogue import fits_report

    answer(fits(name, **given), fits_report, as_json)


@taking(PickOptions)
def pick_command(
    runs: Annotated[list[Path], argument("Runs' directories or results files; several are merged.", "RUN...")],
    top: Annotated[int, option("Rows of a shortlist to print.", min=1)] = 10,
    as_json: console.AsJson = False,
    **given: Any,
) -> None:
    """Pick a network: a ranked shortlist with settings, margins and intervals, and why each other is left out.

    Without a goal the smallest latency_median comes first. Exits with 0 also where nothing satisfies the conditions.
    """
    from archbench.api import pick
    from archbench.rendering.decisions import picked_report

    answer(pick(runs, **given), lambda one: picked_report(one, top), as_json)


@taking(ReportOptions)
def report_command(
    runs: Annotated[list[Path], argument("Directories of runs, finished or not; several side by side.", "RUN...")],
    **given: Any,
) -> None:
    """Render stored results as a report; prints where it is."""
    from archbench.api import report
    from archbench.rendering.report import check_format, usual_place

    check_format(given["format"])
    out = given.pop("out", None)
    if given.get("plots") and out == "-":
        raise UsageError("--plots needs a place to lie beside: give --out a file")
    place = None if out == "-" else out or usual_place(runs, given["format"])
    # Hardly anything is thrown away before the end, and looking for it takes a tenth of a large run's time.
    gc.disable()
    try:
        print(report(runs, out=place, **given), end="" if place is None else "\n")
    finally:
        gc.enable()


def site_command(
    runs: Annotated[list[Path], argument("Runs: directories, exported files or URLs.", "RUN...")],
    out: Annotated[Path, option("Where to write it.", "DIR")] = Path("site"),
) -> None:
    """Put any number of machines side by side as a static site, to be published as it is; prints its index."""
    from archbench.api import site

    print(site(runs, out=out))


@taking(CompareOptions)
def compare_command(
    base: Annotated[Path, argument("A run's directory, or a parquet file of results.", "BASE")],
    head: Annotated[Path, argument("The same, of what may have become slower.", "HEAD")],
    format: Annotated[
        str,
        option("text, md, json, junit, annotations, github-action-benchmark, pytest-benchmark", "FORMAT", "--format"),
    ] = "text",
    out: Annotated[Path | None, option("Write there instead of to stdout.", "PATH")] = None,
    strict: console.Strict = False,
    as_json: console.AsJson = False,
    **given: Any,
) -> None:
    """Say of every cell whether HEAD is slower than BASE, and of what is counted whether it grew."""
    from archbench.rendering.comparison_formats import check_format

    format = "json" if as_json else format
    check_format(format, out)

    from archbench.api import compare

    comparison = compare(base, head, **given)
    console.show_comparison(comparison, format, out)
    raise typer.Exit(comparison.exit_code(strict))


def history_command(
    place: Annotated[Path, argument("A directory that holds runs, at any depth.", "DIR")],
    format: Annotated[str, option("md or json", "FORMAT", "--format")] = "md",
    out: Annotated[Path | None, option("Write there, with the plot beside it; by default to stdout.", "PATH")] = None,
    as_json: console.AsJson = False,
) -> None:
    """Show trends and change points over many runs; advisory, so the exit code is 0 whatever it finds."""
    format = "json" if as_json else format
    from archbench.rendering.content import known_format

    known_format(format, ("md", "json"))

    from archbench.comparison import history, read_runs
    from archbench.rendering.comparison_report import history_report
    from archbench.results.files import write_bytes

    runs, left_out = read_runs(place)
    found = history(str(place), runs, left_out)
    if out is not None:
        if format == "json":
            write_bytes(out, indented_json(found).encode())
        else:
            from archbench.rendering.report import store

            store(history_report(found, plot=True), "md", out, folder=f"{out.stem}-plots")
        print(out)
    elif format == "md" and not sys.stdout.isatty():
        from archbench.rendering.text import render_markdown

        print(render_markdown(history_report(found, plot=False)), end="")
    else:
        answer(found, lambda one: history_report(one, plot=False), format == "json")


@taking(ClaimsOptions)
def claims_command(
    runs: Annotated[list[Path] | None, argument("Stored runs; else those of this machine here.", "RUN...")] = None,
    out: Annotated[Path | None, option("Write the report there: claims.md or claims.html.", "PATH")] = None,
    as_json: console.AsJson = False,
    **given: Any,
) -> None:
    """Judge what tutorials and papers say: confirmed, refuted, depends (on what), or not measurable here and why."""
    from archbench import claims
    from archbench.rendering.folklore import folklore_report
    from archbench.rendering.report import store

    if out is not None and out.suffix not in (".md", ".html"):
        raise UsageError(f"--out {out}: name a file that ends in .md or .html")
    try:
        found = claims(runs or (), **given)
    except KeyboardInterrupt:
        raise typer.Exit(console.INTERRUPTED) from None
    if out is not None and not as_json:
        print(store(folklore_report(found), out.suffix.removeprefix("."), out))
    else:
        answer(found, folklore_report, as_json)


def doctor_command(device: console.DeviceOption = "auto", as_json: console.AsJson = False) -> None:
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
