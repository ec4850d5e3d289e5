"""`archbench pick`: which network satisfies these conditions, and why the others do not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from archbench.cli.console import print_json

_TOP = 10


def command(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Runs' directories or results files; several are merged.")
    ],
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="EXPR", help="A condition: 'latency_p99 <= 5ms', 'family in (resnet, densenet)'."),
    ] = None,
    minimize: Annotated[list[str] | None, typer.Option(metavar="COLUMN", help="Smallest first.")] = None,
    maximize: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Largest first. Several goals give the Pareto front.")
    ] = None,
    across: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Rank rows together that differ in batch_size, precision, ..."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Rows of a shortlist to print.")] = _TOP,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one object.")] = False,
) -> None:
    """Pick a network: a ranked shortlist with settings, margins and intervals, and why each other is left out.

    Without a goal the smallest latency_median comes first. Exits with 0 also where nothing satisfies the conditions.
    """
    from archbench.api import pick
    from archbench.rendering.picked import picked_report
    from archbench.rendering.terminal import print_report

    picked = pick(runs, where=where or (), minimize=minimize or (), maximize=maximize or (), across=across or ())
    if as_json:
        print_json(picked)
    else:
        print_report(picked_report(picked, top))
