"""`archbench run`: the main job. Measure what a suite asks for, store every cell at once, render the report."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from archbench.cli.unfit import refuse_unfit
from archbench.model.errors import UsageError
from archbench.model.record import FAILED, Record

if TYPE_CHECKING:
    from archbench.model.calibration import Calibration
    from archbench.model.cell import Plan
    from archbench.model.environment import Environment
    from archbench.model.messages import Task
    from archbench.model.suite import Suite
    from archbench.results import RunStore

INTERRUPTED = 130
"""What shells report for a command that Ctrl-C ended."""


class RunSummary(Struct, frozen=True, kw_only=True):
    """What `--json` prints."""

    run: str
    report: str
    suite: str
    device: str
    statuses: dict[str, int]
    verdicts: dict[str, int]
    rows: tuple[Record, ...]


def command(
    what: Annotated[list[str], typer.Argument(metavar="SUITE_OR_NAMES...", help="A suite file, or networks.")],
    batch_size: Annotated[str | None, typer.Option(metavar="1,8", help="Batch sizes of the networks named.")] = None,
    phase: Annotated[str | None, typer.Option(help="inference, training")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, tf32, amp-bf16, ...")] = None,
    compile_mode: Annotated[str | None, typer.Option(help="off, default, reduce-overhead, ...")] = None,
    memory_format: Annotated[str | None, typer.Option(help="contiguous, channels_last")] = None,
    input_size: Annotated[str | None, typer.Option(help="Side of the square input, in pixels.")] = None,
    metrics: Annotated[str | None, typer.Option(help="static, latency, throughput, memory, energy, ...")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    only: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Cells to keep: resnet*, resnet50@batch_size=1.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds, in place of the suite's.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's directory; by default one under results/.")] = None,
    static: Annotated[
        bool, typer.Option("--static", help="Only what is counted, predicted and traced; nothing is run or timed.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin a new run even where one could be resumed.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Measure failed and invalid cells again.")
    ] = False,
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Accept module:function architectures.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Measure on a machine that the preflight calls unfit.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the run and its rows as JSON.")] = False,
) -> None:
    """Measure a suite, or a few networks; a second call resumes."""
    from archbench.device import collect_environment, resolve_device
    from archbench.suite.plan import make_plan, remaining
    from archbench.worker import device_lock, run_lock

    axes = {
        "batch_size": batch_size,
        "phase": phase,
        "precision": precision,
        "compile_mode": compile_mode,
        "memory_format": memory_format,
        "input_size": input_size,
    }
    if static and metrics:
        raise UsageError("--static stands for the metrics of a run that measures nothing; leave --metrics out")
    suite, text = _suite(what, {name: value for name, value in axes.items() if value}, metrics, allow_code)
    resolved = resolve_device(device)
    environment = collect_environment(resolved)
    if static:
        suite, text, environment = _static(suite, environment)
    plan = make_plan(suite, "cpu" if resolved == "cpu" else "cuda", only=only or (), rounds=rounds)
    if not static:
        refuse_unfit(resolved, force)
    with device_lock(environment.device_key):
        store = _store(suite, text, environment, out, fresh)
        with run_lock(store.path):
            _append_skipped(store, plan, environment)
            left = remaining(plan, store.finished(retry_failed=retry_failed))
            interrupted = _measure(store, suite, plan, left, environment, allow_code)
            store.merge()
            if store.finished():
                _conclude(store, plan, as_json)
    if interrupted:
        print(f"archbench: interrupted; the same command resumes {store.path}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED)
    if any(record.status in FAILED for record in store.records()):
        raise typer.Exit(1)


def _suite(words: list[str], axes: dict[str, str], metrics: str | None, allow_code: bool) -> tuple[Suite, str]:
    """The suite that was named, or made of names, and its text as YAML."""
    import msgspec

    from archbench.suite import is_suite_path, read_suite, suite_from_names

    files = [word for word in words if is_suite_path(word)]
    if not files:
        suite = suite_from_names(words, axes, metrics=metrics, allow_code=allow_code)
        return suite, msgspec.json.encode(suite).decode()  # JSON is YAML
    if len(words) > 1:
        raise UsageError(f"{files[0]} is a suite file; run one suite at a time, or networks by name")
    given = [*axes, *(["metrics"] if metrics else [])]
    if given:
        option = given[0].replace("_", "-")
        raise UsageError(f"--{option} goes with networks by name; a suite has its own: edit it, or choose with --only")
    return read_suite(files[0], allow_code=allow_code)


def _static(suite: Suite, environment: Environment) -> tuple[Suite, str, Environment]:
    """The suite without anything that a machine could decide, its text, and the environment that says so."""
    import msgspec

    from archbench.model.axes import STATIC
    from archbench.model.environment import ANY_HARDWARE

    bare = msgspec.structs.replace(suite, metrics=STATIC, rounds=1, twin=None)
    text = msgspec.json.encode(bare).decode()  # JSON is YAML
    return bare, text, msgspec.structs.replace(environment, hardware_class=ANY_HARDWARE)


def _store(suite: Suite, text: str, environment: Environment, out: Path | None, fresh: bool) -> RunStore:
    """The run to continue, or a new one."""
    from archbench.results import RunStore, find_run, new_run_id, run_identity

    results = Path("results")
    found = (
        find_run(results, suite, environment) if out is None else (out if (out / "environment.json").exists() else None)
    )
    if found is None or (fresh and out is None):
        path = out or results / suite.suite / new_run_id(suite, environment)
        return RunStore.create(path, suite, environment, text)
    store = RunStore.open(found)
    if store.suite.suite != suite.suite:
        raise UsageError(f"{found} holds a run of suite {store.suite.suite!r}, not {suite.suite!r}; give another --out")
    if fresh:
        raise UsageError(f"{found} holds a run already; --fresh needs another --out")
    if store.identity != run_identity(suite, environment):
        raise UsageError(
            f"{found} holds a run of {suite.suite!r} of other content, machine or libraries; give another --out"
        )
    store.adopt(suite, text)
    return store


def _append_skipped(store: RunStore, plan: Plan, environment: Environment) -> None:
    """A cell that cannot be measured here is a row too, with the reason."""
    from archbench.catalog import facts
    from archbench.model.empty_record import RunContext, failed_record

    finished = store.finished()
    context = RunContext(run_id=store.run_id, round=0, environment=environment)
    for skip in plan.skipped:
        if (skip.cell.cell_id, 0, 0) not in finished:
            store.append(failed_record(skip.cell, context, facts(skip.cell.network), "unsupported", skip.reason))


def _measure(store: RunStore, suite: Suite, plan: Plan, left: Plan, environment: Environment, allow_code: bool) -> bool:
    """Run what is left; return whether it was interrupted. Every finished cell is on disk before the next begins."""
    from archbench.cli.progress import RunProgress
    from archbench.model.messages import Calibrated, CellFinished
    from archbench.worker import WorkerClient, run_tasks

    total, to_do = _visits(plan), _visits(left)
    if not total:
        return False
    if not to_do:
        print(f"archbench: {store.path} is complete; --fresh measures anew", file=sys.stderr)
        return False
    if to_do < total:
        print(f"archbench: resuming {store.path}: {total - to_do} of {total} cells are done", file=sys.stderr)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's stop is as good as Ctrl-C
    queue = _TaskQueue(store, suite, left, environment, allow_code)
    try:
        with (
            WorkerClient(device=environment.device, log=store.path / "worker.log") as worker,
            RunProgress(total, total - to_do) as progress,
        ):
            # The worker's imports take longer than these, and nothing is measured before they are done.
            getting_ready = Thread(target=_load_report, daemon=True)
            getting_ready.start()
            worker.start()
            getting_ready.join()
            for event in run_tasks(worker, queue.tasks()):
                progress.show(event)
                if isinstance(event, CellFinished):
                    store.append(event.record, event.samples, event.profile)
                elif isinstance(event, Calibrated):
                    queue.calibration = event.calibration
                    store.calibrate(event.calibration)
    except KeyboardInterrupt:
        return True
    return False


def _load_report() -> None:
    from archbench.rendering import get_ready

    get_ready()


class _TaskQueue:
    """Makes tasks as they are needed, so that later ones carry what the first one found out about the device."""

    def __init__(self, store: RunStore, suite: Suite, left: Plan, environment: Environment, allow_code: bool) -> None:
        self._store = store
        self._suite = suite
        self._left = left
        self._environment = environment
        self._allow_code = allow_code
        self.calibration: Calibration | None = store.calibration

    def tasks(self) -> Iterator[Task]:
        from archbench.model.empty_record import RunContext
        from archbench.model.messages import Task
        from archbench.model.protocol import protocol_for

        first = True
        for number, groups in enumerate(self._left.rounds):
            for group in groups:
                yield Task(
                    group=group,
                    context=RunContext(
                        run_id=self._store.run_id,
                        round=number,
                        visit=group.visit,
                        environment=self._environment,
                        calibration=self.calibration,
                    ),
                    protocol=protocol_for(self._left.device, self._suite.protocol),
                    metrics=self._suite.metrics,
                    percentiles=self._suite.percentiles,
                    seed=self._suite.seed,
                    allow_code=self._allow_code,
                    calibrate=first and self._ceilings_are_used(),
                )
                first = False

    def _ceilings_are_used(self) -> bool:
        """Whether calibrating is worth it: for a figure, or, in a resumed session too, for a GPU to settle."""
        from archbench.model.axes import STATIC

        wanted = set(self._suite.metrics)
        return bool(wanted & {"throughput", "profile"}) or (self._left.device == "cuda" and wanted != set(STATIC))


def _visits(plan: Plan) -> int:
    return sum(len(group.cells) for groups in plan.rounds for group in groups)


def _conclude(store: RunStore, plan: Plan, as_json: bool) -> None:
    """Write the reports, and tell how it went."""
    import msgspec

    from archbench.rendering import write_reports

    reports = write_reports(store.path)
    records = store.judged_records()
    statuses: Counter[str] = Counter(record.status for record in records)
    verdicts: Counter[str] = Counter(record.verdict for record in records if record.verdict is not None)
    if as_json:
        summary = RunSummary(
            run=str(store.path),
            report=str(reports[0]),
            suite=plan.suite,
            device=store.environment.device,
            statuses=dict(statuses),
            verdicts=dict(verdicts),
            rows=tuple(records),
        )
        print(msgspec.json.encode(summary).decode())
        return
    counts = ", ".join(f"{number} {status}" for status, number in sorted(statuses.items()))
    trust = ", ".join(f"{number} {verdict}" for verdict, number in sorted(verdicts.items()))
    print(f"{store.path}: {counts}" + (f" ({trust})" if trust else ""))
    unsupported = [record.error_message for record in records if record.status == "unsupported"]
    if unsupported and len(unsupported) == len(records):
        print(f"archbench: nothing could be measured here: {unsupported[0]}", file=sys.stderr)
    if verdicts["invalid"]:
        print("archbench: invalid rows are not to be used; --retry-failed measures them again", file=sys.stderr)
    print(f"report: {' and '.join(map(str, reports))}")
