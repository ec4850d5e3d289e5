"""`archbench run`, `plan`, `merge`, `export`, `profile`: the main job, what it would be, and what becomes of it."""

from __future__ import annotations

import math
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archbench.cli.console import (
    INTERRUPTED,
    AsJson,
    NetworkArgument,
    WhatArgument,
    answer,
    print_json,
    stop_as_by_ctrl_c,
    taking,
)
from archbench.model.cell import sides_of
from archbench.model.errors import Interrupted, UnfitError, UsageError, escaped
from archbench.model.reasons import REASONS
from archbench.model.record import FAILED
from archbench.model.units import NULL, counted, listed
from archbench.options import PlanOptions, ProfileOptions, RunOptions

if TYPE_CHECKING:
    from archbench.api import Run
    from archbench.model.cell import Cell, Plan
    from archbench.model.suite import Suite
    from archbench.rendering.content import Report, Table
    from archbench.suite.duration import Prediction


@taking(RunOptions)
def run_command(what: WhatArgument, as_json: AsJson = False, **given: Any) -> None:
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


def _tell(run: Run, as_json: bool) -> None:
    from archbench.rendering.run_data import read_run

    reports = [run.path / "report.md", run.path / "report.html"]
    found = read_run(run.path)
    if as_json:
        # Cells are counted once, whatever the rounds and visits; statuses are of rows.
        summary = {
            "run": str(run.path),
            "report": str(reports[0]),
            "suite": run.suite,
            "device": run.environment.device,
            "extent": found.extent(),
            "cells_measured": found.measured,
            "cells_planned": found.planned,
            "statuses": run.statuses,
            "verdicts": run.verdicts,
            "trust": found.trust.statement,
            "rows": run.rows,
        }
        print_json(summary, indent=False)
        return
    from archbench.rendering.content import report
    from archbench.rendering.figures import results_report
    from archbench.rendering.provenance import outcome
    from archbench.rendering.terminal import print_report

    print_report(results_report(found))
    print_report(report("", f"{outcome(found)}.", found.trust.statement))
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


@taking(PlanOptions)
def plan_command(
    what: WhatArgument,
    predict: Annotated[bool, typer.Option("--predict", help="Show the expected duration by phase.")] = False,
    as_json: AsJson = False,
    **given: Any,
) -> None:
    """Show what a run would measure, how long it would take, what it would skip and why; cuda where there is none."""
    from archbench.rendering.terminal import print_report
    from archbench.session import foreseen

    suite, plan, prediction = foreseen(what, PlanOptions(**given))
    if as_json:
        print_json(_document(suite, plan, prediction))
    else:
        print_report(_report(suite, plan, prediction, by_phase=predict))


def _document(suite: Suite, plan: Plan, prediction: Prediction) -> dict[str, object]:
    """`cells` and `groups` count each once, whatever the rounds and the twin's visits; `predicted_s` is by phase."""
    seconds = {name: round(seconds, 1) for name, seconds in prediction.phases.items()}
    return {
        "suite": suite.suite,
        "description": suite.description,
        "device": plan.device,
        "seed": plan.seed,
        "twin": suite.twin,
        "cells": len(plan.cells),
        "groups": _distinct_groups(plan),
        "skipped": [{"cell_id": skip.cell.cell_id, "reason": skip.reason} for skip in plan.skipped],
        "rounds": [
            [
                {"group_id": one.group_id, "visit": one.visit, "cells": [cell.cell_id for cell in one.cells]}
                for one in groups
            ]
            for groups in plan.rounds
        ],
        "predicted_s": seconds | {"total": round(prediction.total, 1)},
        "predicted_from": prediction.basis,
    }


def _distinct_groups(plan: Plan) -> int:
    return len({group.group_id for group in plan.rounds[0]})


def _report(suite: Suite, plan: Plan, prediction: Prediction, *, by_phase: bool) -> Report:
    from archbench.rendering.content import report, table

    networks = len({cell.network.label for cell in plan.cells})
    counts = (
        f"{counted(len(plan.cells), 'cell')} of {counted(networks, 'network')} in "
        f"{counted(_distinct_groups(plan), 'group')}, {counted(len(plan.rounds), 'round')}, seed {plan.seed}"
    )
    said = [suite.description]
    twin = next((group for group in plan.rounds[0] if group.visit), None)
    if twin is not None:
        cell = twin.cells[0]
        what = f"{cell.network.label} ({cell.phase}, {_setting(cell)})"
        said.append(f"twin: {what} is measured first, in between and last in each round")
    for reason, number in Counter(skip.reason for skip in plan.skipped).items():
        said.append(f"skipped: {counted(number, 'cell')}: {reason}")
    rows = ((name, f"{seconds:.0f}") for name, seconds in prediction.phases.items() if seconds >= 0.5)
    part = f", shard {plan.shard.word}" if plan.shard else ""
    return report(
        f"{suite.suite} on {plan.device}{part}: {counts}",
        said,
        prediction.in_words,
        _table(suite, plan.cells) if plan.cells else None,
        table(("phase", ">seconds"), rows) if by_phase else None,
    )


def _table(suite: Suite, cells: tuple[Cell, ...]) -> Table:
    """Networks down, settings across; in each field the number of cells, inference/training where both occur."""
    from archbench.rendering.content import table

    numbers: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for cell in sorted(cells, key=lambda cell: _place(suite, cell)):
        numbers[cell.network.label, _setting(cell)][cell.phase] += 1
    phases = [phase for phase in ("inference", "training") if any(phase in count for count in numbers.values())]
    networks = list(dict.fromkeys(network for network, _ in numbers))
    settings = list(dict.fromkeys(_setting(cell) for cell in sorted(cells, key=lambda cell: _toggles(suite, cell))))

    def field(network: str, setting: str) -> str:
        found = numbers.get((network, setting))
        return "/".join(str(found[phase] or NULL) for phase in phases) if found else NULL

    headings = (f"cells ({'/'.join(phases)})", *(f">{setting}" for setting in settings))
    return table(headings, ((network, *(field(network, setting) for setting in settings)) for network in networks))


def _place(suite: Suite, cell: Cell) -> tuple[int, int, str]:
    """Where the cell's network stands in the suite, its sizes ascending."""
    position = next(n for n, network in enumerate(suite.architectures) if network.name == cell.network.name)
    return position, math.prod(sides_of(cell.network.input_size or 0)), cell.network.label


def _toggles(suite: Suite, cell: Cell) -> tuple[int, ...]:
    """Where the cell's setting stands in the suite; without one, its toggles, the plain ones first."""
    if cell.setting is not None:
        return (list(suite.settings).index(cell.setting), cell.threads or 0)
    return (len(suite.settings), *cell.toggles.order, cell.threads or 0)


def _setting(cell: Cell) -> str:
    """The setting's name; without one, the toggles that are not at their default."""
    label = cell.setting or cell.toggles.label
    return label if cell.threads is None else f"{label}, {counted(cell.threads, 'thread')}"


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


@taking(ProfileOptions)
def profile_command(
    name: NetworkArgument,
    depth: Annotated[int | None, typer.Option(min=0, help="Levels of modules to show; by default the stages.")] = None,
    top: Annotated[int, typer.Option(min=0, max=60, help="Operators or kernels to show.")] = 6,
    as_json: AsJson = False,
    **given: Any,
) -> None:
    """Show where one step's time and memory go: by module, operator and stage, under the roofline."""
    from archbench.profiling import profile
    from archbench.rendering.profile_screen import profile_screen

    if given["against"] and given["stage"]:
        raise UsageError("--stage shows the inside of one network; leave out --against, or --stage")
    found = profile(name, **given)
    answer(found, lambda one: profile_screen(one, depth=depth, stage=given["stage"], top=top), as_json, indent=False)
    for written in ("html", "trace", "snapshot"):
        if written in given:
            print(f"written: {given[written]}", file=sys.stderr)
