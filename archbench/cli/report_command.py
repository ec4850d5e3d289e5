"""`archbench report`: render stored results again, of one run or of several side by side."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Annotated

import typer

from archbench.model.errors import UsageError, did_you_mean


def command(
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
    from archbench.rendering import FORMATS

    if format not in FORMATS:
        raise UsageError(
            f"--format {format}: no such format, known: {', '.join(FORMATS)}{did_you_mean(format, FORMATS)}"
        )
    # Hardly anything is thrown away before the end, and looking for it takes a tenth of a large run's time.
    gc.disable()
    try:
        print(_rendered(runs, format, out), end="" if out == "-" else "\n")
    finally:
        gc.enable()


def _rendered(runs: list[Path], format: str, out: str) -> str | Path:
    """The report itself where it goes to stdout, else where it lies."""
    from archbench.rendering import (
        FORMATS,
        build_merged,
        build_report,
        read_run,
        read_several,
        write_merged,
        write_report,
    )

    if out == "-":
        return FORMATS[format](build_report(read_run(runs[0])) if len(runs) == 1 else build_merged(read_several(runs)))
    place = Path(out) if out else None
    return write_report(runs[0], format, place) if len(runs) == 1 else write_merged(runs, format, place)
