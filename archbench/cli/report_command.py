"""`archbench report`: render stored results again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from archbench.model.errors import UsageError, did_you_mean


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's directory: finished, running or killed.")],
    format: Annotated[str, typer.Option("--format", metavar="FORMAT", help="md")] = "md",
    out: Annotated[
        str, typer.Option(metavar="PATH", help="Where to write, - for stdout; by default report.FORMAT in RUN.")
    ] = "",
) -> None:
    """Render a run's stored results as a report; prints where it is."""
    from archbench.report import FORMATS, build_report, read_measured, write_report

    if format not in FORMATS:
        raise UsageError(
            f"--format {format}: no such format, known: {', '.join(FORMATS)}{did_you_mean(format, FORMATS)}"
        )
    if out == "-":
        print(FORMATS[format](build_report(read_measured(run))), end="")
    else:
        print(write_report(run, format, Path(out) if out else None))
