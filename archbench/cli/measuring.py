"""What measures, and what becomes of it: `archbench run`, `plan`, `merge`, `export`, `profile`, `gate`, `duel`,
`train-probe`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archbench.cli import console
from archbench.cli.console import answer, argument, option, switch, taking
from archbench.model.errors import Interrupted, UnfitError, UsageError, escaped
from archbench.model.reasons import REASONS
from archbench.model.record import FAILED
from archbench.model.units import listed
from archbench.options import DuelOptions, GateOptions, PlanOptions, ProbeOptions, ProfileOptions, RunOptions

if TYPE_CHECKING:
    from archbench.api import Run
    from archbench.model.cell import Plan
    from archbench.model.suite import Suite
    from archbench.suite.duration import Prediction
    from archbench.training.probe import Probe


@taking(RunOptions)
def run_command(what: console.WhatArgument, as_json: console.AsJson = False, **given: Any) -> None:
    """Measure a suite, or a few networks; a second call resumes."""
    from archbench.api import Run, run
    from archbench.session import is_always_shared

    console.stop_as_by_ctrl_c()
    try:
        done = run(what, **given)
    except Interrupted as interrupted:
        so_far = Run(interrupted.path)
        if so_far.rows:
            _tell(so_far, as_json)
        print(f"archbench: {interrupted}", file=sys.stderr)
        raise typer.Exit(console.INTERRUPTED) from None
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
        console.print_json(summary, indent=False)
        return
    from archbench.rendering.content import report
    from archbench.rendering.figures import results_report
    from archbench.rendering.provenance import outcome
    from archbench.rendering.text import print_report

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
    what: console.WhatArgument,
    predict: Annotated[bool, switch("--predict", "Show the expected duration by phase.")] = False,
    as_json: console.AsJson = False,
    **given: Any,
) -> None:
    """Show what a run would measure, how long it would take, what it would skip and why; cuda where there is none."""
    from archbench.rendering.catalogue import plan_report
    from archbench.rendering.text import print_report
    from archbench.session import foreseen

    suite, plan, prediction = foreseen(what, PlanOptions(**given))
    if as_json:
        console.print_json(_document(suite, plan, prediction))
    else:
        print_report(plan_report(suite, plan, prediction, by_phase=predict))


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
        "groups": len({group.group_id for group in plan.rounds[0]}),
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


def merge_command(
    runs: Annotated[list[Path], argument("Directories of runs: all shards of a suite.", "DIR...")],
    out: Annotated[Path | None, option("The new run's directory; by default one under results/.", "DIR")] = None,
    partial: Annotated[
        bool, switch("--partial", "Though a shard is missing or unfinished, which is then only said.")
    ] = False,
) -> None:
    """Unite the shards that machines measured into one run, and one for each hardware class where there are several."""
    from archbench.api import merge

    for run in merge(runs, out=out, partial=partial):
        environment, machines = run.environment, run.machines
        print(f"{run.path}: {len(run.rows):,} rows of {len(machines)} devices of {environment.hardware_class}")


def export_command(
    run: Annotated[Path, argument("A run's directory, finished or not.", "RUN")],
    out: Annotated[Path | None, option("Ends in .archbench; by default SUITE-RUN.archbench here.", "FILE")] = None,
) -> None:
    """Write a run as one file that `report`, `compare` and `pick` read; prints its hash and where it is."""
    from archbench.api import export

    made = export(run, out=out)
    print(f"{made.sha256}  {made.path}")


@taking(ProfileOptions)
def profile_command(
    name: console.NetworkArgument,
    depth: Annotated[int | None, option("Levels of modules to show; by default the stages.", min=0)] = None,
    top: Annotated[int, option("Operators or kernels to show.", min=0, max=60)] = 6,
    as_json: console.AsJson = False,
    **given: Any,
) -> None:
    """Show where one step's time and memory go: by module, operator and stage, under the roofline."""
    from archbench.profiling import profile
    from archbench.rendering.profile_report import profile_screen

    if given["against"] and given["stage"]:
        raise UsageError("--stage shows the inside of one network; leave out --against, or --stage")
    found = profile(name, **given)
    answer(found, lambda one: profile_screen(one, depth=depth, stage=given["stage"], top=top), as_json, indent=False)
    for written in ("html", "trace", "snapshot"):
        if written in given:
            print(f"written: {given[written]}", file=sys.stderr)


@taking(GateOptions)
def gate_command(
    what: Annotated[str, argument("A suite file.", "SUITE")],
    format: Annotated[str, option("text, md, json, junit, or another of `compare`.", "FORMAT", "--format")] = "text",
    strict: console.Strict = False,
    as_json: console.AsJson = False,
    **given: Any,
) -> None:
    """Say of every cell whether HEAD is slower than BASE, by processes that take turns here and now."""
    from archbench.rendering.comparison_formats import check_format

    format = "json" if as_json else format
    check_format(format, Path())

    from archbench.gating import gate
    from archbench.rendering.comparison_formats import SEVERAL_FILES

    with console.interruptible():
        comparison = gate(what, **given)
    if format in SEVERAL_FILES:
        console.show_comparison(comparison, format, Path(comparison.place or "") / f"{format}.json")
    else:
        console.show_comparison(comparison, format, None)
        print(f"archbench: {comparison.place}", file=sys.stderr)
        if comparison.regressed:
            print('archbench: if this is meant: the same command with --accept "REASON"', file=sys.stderr)
    raise typer.Exit(comparison.exit_code(strict))


@taking(DuelOptions)
def duel_command(
    cells: Annotated[list[str], argument("resnet50@batch_size=1,precision=amp-bf16", "CELL CELL...")],
    as_json: console.AsJson = False,
    **given: Any,
) -> None:
    """Settle a close call: cells take turns block by block, and the ratio of their times gets an interval."""
    from archbench.gating import duel
    from archbench.rendering.comparison_report import duel_report

    with console.interruptible():
        found = duel(*cells, **given)
    answer(found, duel_report, as_json, indent=False)


@taking(ProbeOptions)
def train_probe_command(
    networks: Annotated[
        list[str] | None, argument("plain56, resnet56, relu-bn-he, ...; else all.", "NETWORK...")
    ] = None,
    as_json: console.AsJson = False,
    **given: Any,
) -> None:
    """Train plain and residual networks, and chains of layers, and keep their curves; a second call resumes."""
    from archbench.rendering.folklore import probe_report
    from archbench.rendering.report import store
    from archbench.rendering.text import print_report
    from archbench.training.probe import train_probe

    with console.interruptible():
        found = train_probe(networks or (), told=_told, **given)
    report = probe_report(found)
    for format in ("md", "html"):
        store(report, format, found.path / f"report.{format}")
    if as_json:
        console.print_json({"path": str(found.path), "about": found.about, "points": found.points})
    else:
        print_report(report)
        print(found.path)


def _told(probe: Probe, network: str, seed: int) -> None:
    from archbench.training.probe import asked

    end = next(one for one in probe.last if (one.network, one.seed) == (network, seed))
    seconds = probe.about.seconds[f"{network} {seed}"]
    print(
        f"archbench: {len(probe.last)} of {len(asked(probe.about.settings))}: {network}, seed {seed}: "
        f"training loss {end.train_loss:.3g}, accuracy {end.train_accuracy:.1f} %, {seconds:.0f} s",
        file=sys.stderr,
    )
