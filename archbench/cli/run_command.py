"""`archbench run`: the main job. Measure what a suite asks for, store every cell at once, render the report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import Struct

from archbench.cli.console import (
    INTERRUPTED,
    AsJson,
    WhatArgument,
    print_json,
    stop_as_by_ctrl_c,
    taking,
)
from archbench.model.errors import Interrupted, UnfitError, escaped
from archbench.model.reasons import REASONS
from archbench.model.record import FAILED, Record
from archbench.model.units import listed
from archbench.options import RunOptions

if TYPE_CHECKING:
    from archbench.api import Run


class RunSummary(Struct, frozen=True, kw_only=True):
    """What `--json` prints."""

    run: str
    report: str
    suite: str
    device: str
    extent: str
    """`28 of 36 cells measured`; of a run that was stopped `18 of 32 planned cells measured; unfinished`."""
    cells_measured: int
    cells_planned: int
    """Each counted once, whatever the rounds and visits; those with a row that says why there are no figures, too."""
    statuses: dict[str, int]
    """Of rows: one for each cell, round and visit."""
    verdicts: dict[str, int]
    trust: str
    rows: tuple[Record, ...]


@taking(RunOptions)
def run_command(
    what: WhatArgument,
    as_json: AsJson = False,
    **given: Any,
) -> None:
    """Measure a suite, or a few networks; a second call resumes."""
    from archbench.api import Run, run
    from archbench.session import is_always_shared

    stop_as_by_ctrl_c()
    try:
        done = run(what, **given)
    except Interrupted as interrupted:
        so_far = Run(interrupted.path)
        if so_far.rows:
            _tell(so_far, as_json)
        print(f"archbench: {interrupted}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    runs = (done, *done.alongside)
    for one in runs:
        _tell(one, as_json)
    if any(row.status in FAILED for one in runs for row in one.rows):
        raise typer.Exit(1)
    if all(set(one.verdicts) == {"invalid"} for one in runs):
        unfit = UnfitError("every row is invalid: this machine was not fit to measure; `archbench doctor` says why")
        if not is_always_shared():
            raise unfit
        print(f"archbench: {unfit}", file=sys.stderr)


def merge_command(
    runs: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Directories of runs: all shards of a suite.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The new run's directory; by default one under results/.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Though a shard is missing or unfinished, which is then only said.")
    ] = False,
) -> None:
    """Unite the shards that machines measured into one run, and one for each hardware class where there are several."""
    from archbench.api import merge

    for run in merge(runs, out=out, partial=partial):
        environment, machines = run.environment, run.machines
        print(f"{run.path}: {len(run.rows):,} rows of {len(machines)} devices of {environment.hardware_class}")


def export_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's directory, finished or not.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Ends in .archbench; by default SUITE-RUN.archbench here.")
    ] = None,
) -> None:
    """Write a run as one file that `report`, `compare` and `pick` read; prints its hash and where it is."""
    from archbench.api import export

    made = export(run, out=out)
    print(f"{made.sha256}  {made.path}")


def _tell(run: Run, as_json: bool) -> None:
    """How it went, and where the reports are."""
    from archbench.rendering.run_data import read_run

    reports = [run.path / "report.md", run.path / "report.html"]
    found = read_run(run.path)
    if as_json:
        summary = RunSummary(
            run=str(run.path),
            report=str(reports[0]),
            suite=run.suite,
            device=run.environment.device,
            extent=found.extent(),
            cells_measured=found.measured,
            cells_planned=found.planned,
            statuses=run.statuses,
            verdicts=run.verdicts,
            trust=found.trust.statement,
            rows=tuple(run.rows),
        )
        print_json(summary, indent=False)
        return
    from archbench.rendering.content import Paragraph, Report
    from archbench.rendering.figures import results_report
    from archbench.rendering.provenance import outcome
    from archbench.rendering.terminal import print_report

    tail = (f"{outcome(found)}.", found.trust.statement)
    print_report(results_report(found))
    print_report(Report(title="", lead=tuple(map(Paragraph, tail)), sections=()))
    print(f"report: {' and '.join(map(str, reports))}")  # on one line, to be copied
    unsupported = [row.error_message or "" for row in run.rows if row.status == "unsupported"]
    if unsupported and len(unsupported) == len(run.rows):
        print(f"archbench: nothing could be measured here: {escaped(unsupported[0])}", file=sys.stderr)
    for code in ("other_classes", "random_weights"):
        names = sorted({row.architecture for row in run.rows if f"top1_measured:{code}" in row.reasons})
        if names:
            why = f"{REASONS[code].meaning}; {REASONS[code].remedy}"
            print(f"archbench: top-1 of {escaped(listed(names, 6))} was not measured: {why}", file=sys.stderr)
    if "invalid" in run.verdicts:
        print("archbench: invalid rows are not to be used; --retry-failed measures them again", file=sys.stderr)
