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
) -> None:
    """Render stored results as a report; prints where it is."""
    from archbench.api import Run, report
    from archbench.rendering import check_format, file_name

    check_format(format)
    # Hardly anything is thrown away before the end, and looking for it takes a tenth of a large run's time.
    gc.disable()
    try:
        if out == "-":
            print(report(runs, format=format), end="")
            return
        own = Run(runs[0]).path if len(runs) == 1 else None
        name = file_name(format)
        print(report(runs, format=format, out=out or (own / name if own else f"archbench-{name}")))
    finally:
        gc.enable()
