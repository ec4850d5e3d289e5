"""`archbench compare`: verdicts over two stored runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="A run's directory, or a parquet file of results.")],
    head: Annotated[Path, typer.Argument(metavar="HEAD", help="The same, of what may have become slower.")],
    format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="text, md, json, junit, annotations, github-action-benchmark, pytest-benchmark",
        ),
    ] = "text",
    out: Annotated[Path | None, typer.Option(metavar="PATH", help="Write there instead of to stdout.")] = None,
    allow_different: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN", help="Let torch_version, driver_version, suite, applied or threads differ; repeatable."
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Exit with 3 where a cell is undecided or invalid, or failed on both sides."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Say of every cell whether HEAD is slower than BASE, and of what is counted whether it grew."""
    from archbench.rendering.comparison import check_format, render_comparison, write_comparison
    from archbench.rendering.comparison.report import text_report
    from archbench.rendering.terminal import print_report

    format = "json" if as_json else format
    check_format(format, out)

    from archbench.api import compare

    comparison = compare(base, head, allow_different=allow_different or ())
    if out is None and format == "text":
        print_report(text_report(comparison))
    elif out is None:
        print(render_comparison(comparison, format), end="")
    else:
        for place in write_comparison(comparison, format, out):
            print(place)
    raise typer.Exit(comparison.exit_code(strict))
