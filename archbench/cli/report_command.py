"""`archbench report`: render stored results again, of one run or of several side by side."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Annotated

import typer


def report_command(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Directories of runs, finished or not; several side by side."),
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
    from archbench.model.errors import UsageError
    from archbench.rendering import check_format, usual_place

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
