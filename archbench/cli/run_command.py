"""`archbench run`: the main job. Measure what a suite asks for, store every cell at once, render the report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from archbench.cli.console import (
    INTERRUPTED,
    AllowCode,
    AsJson,
    CheckpointingOption,
    DeployOption,
    DeviceOption,
    Force,
    HeadOption,
    InputsOption,
    OnlyOption,
    OptimizerOption,
    ShardOption,
    TrainOption,
    networks_and_suites,
    print_json,
    stop_as_by_ctrl_c,
)
from archbench.model.errors import Interrupted, UnfitError, escaped
from archbench.model.record import FAILED, Record

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


def run_command(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="SUITE_OR_NAMES...", help="A suite file, or networks.", autocompletion=networks_and_suites
        ),
    ],
    batch_size: Annotated[str | None, typer.Option(metavar="1,8", help="Batch sizes of the networks named.")] = None,
    phase: Annotated[str | None, typer.Option(help="inference, training")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, tf32, amp-bf16, ...")] = None,
    compile_mode: Annotated[str | None, typer.Option(help="off, default, reduce-overhead, ...")] = None,
    memory_format: Annotated[str | None, typer.Option(help="contiguous, channels_last")] = None,
    runtime: Annotated[str | None, typer.Option(help="torch, onnxruntime, openvino, aot-inductor, tensorrt")] = None,
    quantize: Annotated[str | None, typer.Option(help="off, int8-dynamic, int8-static, ...")] = None,
    input_size: Annotated[str | None, typer.Option(help="Side of the image in pixels, or 640x480.")] = None,
    threads: Annotated[str | None, typer.Option(metavar="1,2", help="Threads of one operator, on the CPU.")] = None,
    inputs: InputsOption = None,
    head: HeadOption = None,
    deploy: DeployOption = None,
    train: TrainOption = None,
    optimizer: OptimizerOption = None,
    checkpointing: CheckpointingOption = None,
    metrics: Annotated[str | None, typer.Option(help="static, latency, throughput, memory, energy, ...")] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Labelled images, a folder a class, to measure top-1 on.")
    ] = None,
    device: DeviceOption = "auto",
    only: OnlyOption = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds, in place of the suite's.")] = None,
    shard: ShardOption = None,
    executor: Annotated[str, typer.Option(help="local, or ray: the devices of a Ray cluster.")] = "local",
    address: Annotated[str, typer.Option(metavar="HOST:PORT", help="Of the Ray cluster.")] = "auto",
    resource: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What a device is in the cluster; else a GPU, or all CPUs of a node."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's directory; by default one under results/.")] = None,
    static: Annotated[
        bool, typer.Option("--static", help="Only what is counted, predicted and traced; nothing is run or timed.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin a new run even where one could be resumed.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Measure failed and invalid cells again.")
    ] = False,
    retry_suspect: Annotated[
        bool, typer.Option("--retry-suspect", help="Measure suspect cells again; of two rows the better counts.")
    ] = False,
    budget: Annotated[
        str | None, typer.Option(metavar="10m", help="End after this time, with what decides most until then.")
    ] = None,
    allow_code: AllowCode = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Measure a suite, or a few networks; a second call resumes."""
    from archbench.api import Run, run
    from archbench.session import is_always_shared

    stop_as_by_ctrl_c()
    try:
        done = run(
            what,
            batch_size=batch_size,
            phase=phase,
            precision=precision,
            compile_mode=compile_mode,
            runtime=runtime,
            quantize=quantize,
            memory_format=memory_format,
            input_size=input_size,
            threads=threads,
            inputs=inputs,
            head=head,
            deploy=deploy,  # type: ignore[arg-type]
            train=train,
            optimizer=optimizer,
            checkpointing=checkpointing,  # type: ignore[arg-type]
            metrics=metrics,
            images=images,
            device=device,
            out=out,
            rounds=rounds,
            shard=shard,
            executor=executor,
            address=address,
            resource=resource,
            only=only or (),
            static=static,
            fresh=fresh,
            retry_failed=retry_failed,
            retry_suspect=retry_suspect,
            allow_code=allow_code,
            force=force,
            budget=budget,
        )
    except Interrupted as interrupted:
        so_far = Run(interrupted.path)
        if so_far.rows:
            _tell(so_far, as_json)
        print(f"archbench: {interrupted}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    _tell(done, as_json)
    if any(row.status in FAILED for row in done.rows):
        raise typer.Exit(1)
    if set(done.verdicts) == {"invalid"}:
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
    from archbench.rendering import read_run

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
    from archbench.rendering.provenance import outcome
    from archbench.rendering.results_table import results_report
    from archbench.rendering.terminal import print_report

    tail = (f"{outcome(found)}.", found.trust.statement)
    print_report(results_report(found))
    print_report(Report(title="", lead=tuple(map(Paragraph, tail)), sections=()))
    print(f"report: {' and '.join(map(str, reports))}")  # on one line, to be copied
    unsupported = [row.error_message or "" for row in run.rows if row.status == "unsupported"]
    if unsupported and len(unsupported) == len(run.rows):
        print(f"archbench: nothing could be measured here: {escaped(unsupported[0])}", file=sys.stderr)
    if "invalid" in run.verdicts:
        print("archbench: invalid rows are not to be used; --retry-failed measures them again", file=sys.stderr)
