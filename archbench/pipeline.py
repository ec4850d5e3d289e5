"""The whole way of a run, from what a user says to the report: suite -> plan -> execute -> store -> report.

`prepare` finds every mistake before anything is measured; `carry_out` is the way itself. The command, `archbench.run`
and whatever else measures a suite from end to end go through these two.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, structs

from archbench.fleets import WHOLE, Fleet, fleets_of
from archbench.labelled import labelled_images, require_readable
from archbench.model.axes import ASIDE, LAST, STATIC
from archbench.model.cell import Plan
from archbench.model.environment import ANY_HARDWARE, Environment
from archbench.model.errors import UsageError
from archbench.model.messages import Calibrated, CellFinished, Event, PhaseStarted
from archbench.model.protocol import protocol_for
from archbench.model.suite import Suite
from archbench.options import PathOrText, RunOptions, as_path, several
from archbench.query.quantity import seconds_of
from archbench.results import Remote, RunStore, class_folder, new_run_id, run_identity, runs_alike, url_of
from archbench.session import Tasks, Visit, describe, expected, followed, held, measured, shard_of
from archbench.suite import read_what
from archbench.suite.budget import Spending, Worth, refuse_unrankable
from archbench.suite.duration import Prediction
from archbench.suite.plan import CellVisit, Room, arranged, make_plan, remaining
from archbench.worker import WorkerClient, run_lock

if TYPE_CHECKING:
    from archbench.catalog.user_code import Packed
    from archbench.choose.matrix import Worths

RESULTS = Path("results")
NO_REPORT = "ARCHBENCH_NO_REPORT"
"""The environment variable under which a run leaves its rows alone, for another command to read."""
NETWORKS = "networks"
"""The folder of a run's directory with the networks that were passed as objects."""


class Job(Struct, frozen=True, kw_only=True):
    """A run that has been thought through, and not begun."""

    suite: Suite
    text: str
    """The suite as YAML."""
    environment: Environment
    plan: Plan
    options: RunOptions
    """`out` is this run's own."""
    networks: tuple[Packed, ...] = ()
    fleet: Fleet | None = None
    """The devices where there are several, of one class; `environment` is the first one's."""
    label: str = ""
    """What tells it from the others that are carried out at once; empty for one alone."""
    budget_s: float | None = None
    """Seconds, after which there is a report of whatever decides most until then."""

    @property
    def timed(self) -> bool:
        """False: only what is counted, predicted and traced."""
        return not self.options.static

    def held(self) -> AbstractContextManager[None]:
        """Hold the device, or all of them, once found fit. Raises `UnfitError`."""
        if self.fleet is not None:
            return self.fleet.held(force=self.options.force, timed=self.timed)
        return held(self.environment, force=self.options.force, timed=self.timed)

    def foreseen(self, left: Plan) -> tuple[Prediction, Spending | None]:
        """How long what is left will take, and how a budget is spent on it. Raises `UsageError` for one too short."""
        prediction = expected(left, self.suite, self.environment, waves=self.budget_s is None)
        return prediction, None if self.budget_s is None else Spending(left, prediction, self.budget_s)


def prepare(what: object, options: RunOptions) -> list[Job]:
    """From what a user says to a job, or to one for each class of hardware where the devices are of several.

    Raises `UsageError` for the first mistake, and runs no code of anybody's.

    Parameters as of `archbench.run`; of several jobs each has a folder of `out`.
    """
    if options.static and options.metrics is not None:
        raise UsageError("--static stands for the metrics of a run that measures nothing; leave --metrics out")
    budget_s = None if options.budget is None else seconds_of(options.budget, "--budget")
    part = shard_of(options)
    suite, text, networks = read_what(
        what, options.axes, options.inputs, metrics=options.metrics, allow_code=options.allow_code
    )
    suite, text = _with_images(suite, text, options.images)
    for network in suite.architectures:
        network.require_weights()
    fleets = fleets_of(options, suite, networks)
    environment = fleets[0].environments[0] if fleets else describe(options.device)
    if fleets and part is None:
        part = WHOLE
    if options.static:
        suite = structs.replace(suite, metrics=STATIC, rounds=1, twin=None)
        text = msgspec.json.encode(suite).decode()  # JSON is YAML
        environment = structs.replace(environment, hardware_class=ANY_HARDWARE)
    if budget_s is not None:
        refuse_unrankable(suite)
        if fleets:
            raise UsageError(
                "--budget is for one device of this machine: what to measure next is decided after each process, by "
                "all rows so far, while further devices are dealt their shares beforehand; leave it out, or them"
            )
    plan = make_plan(suite, environment.kind, only=several(options.only), rounds=options.rounds, shard=part)
    job = Job(
        suite=suite,
        text=text,
        environment=environment,
        plan=plan,
        options=options,
        networks=networks,
        budget_s=budget_s,
        fleet=fleets[0] if fleets else None,
    )
    return [_of_class(job, fleet) for fleet in fleets] if len(fleets) > 1 else [job]


def _of_class(job: Job, fleet: Fleet) -> Job:
    """One of several jobs: that of a class of hardware."""
    environment, out = fleet.environments[0], job.options.out
    label = environment.hardware_class
    own = replace(job.options, out=None if out is None else Path(out) / class_folder(label))
    return structs.replace(job, environment=environment, fleet=fleet, label=label, options=own)


def _with_images(suite: Suite, text: str, images: PathOrText | None) -> tuple[Suite, str]:
    """The suite with the labelled images of the command line, if any; whatever is wrong with them is found here."""
    if images is not None:
        metrics = tuple(dict.fromkeys((*suite.metrics, "accuracy")))
        suite = structs.replace(suite, images=str(Path(images).absolute()), metrics=metrics)
        text = msgspec.json.encode(suite).decode()
    if suite.images is not None:
        require_readable(labelled_images(suite.images))
    return suite, text


def carry_out_all(jobs: Sequence[Job]) -> list[tuple[Path, bool]]:
    """`carry_out` of each, all at once where there are several.

    What ends one does not end the others; `KeyboardInterrupt` ends all. Raises as `carry_out`, once all have ended.
    """
    if len(jobs) == 1:
        return [carry_out(jobs[0])]
    with ThreadPoolExecutor(len(jobs)) as pool:
        runs = [pool.submit(carry_out, job) for job in jobs]
        try:
            wait(runs)
        except KeyboardInterrupt:
            for job in jobs:
                assert job.fleet is not None
                job.fleet.heard.put(KeyboardInterrupt())
        return [run.result() for run in runs]


def carry_out(job: Job) -> tuple[Path, bool]:
    """Measure what is not measured yet, and leave a report. Returns where it is, and whether that was interrupted.

    Every finished cell is on disk before the next begins. `KeyboardInterrupt` ends the measuring; what is finished is
    reported all the same.
    Raises `UsageError` for an `out` that cannot be this run's and a budget too short for any cell, and `UnfitError` for
    a machine that is not fit or is busy.
    """
    from archbench.progress import RunProgress  # rich, which a plan needs not

    begun, options = time.monotonic(), job.options
    out = as_path(options.out)
    remote = None if out is None or (url := url_of(out)) is None else Remote.of_run(url)
    if remote is not None:
        remote.pull()
        out = remote.local
    place, passed_over = _place(job, out)  # what the user mends comes before what the machine lacks
    if job.budget_s is not None and not RunStore.is_run(place):
        job.foreseen(job.plan)  # one that is too short leaves nothing behind
    with (
        job.held(),
        _opened(job, place) as store,
        WorkerClient(
            device=job.environment.device, env=_environment(store, job), log=store.path / "worker.log"
        ) as worker,
    ):
        _store_skipped(store, job)
        finished = store.finished(retry_failed=options.retry_failed, retry_suspect=options.retry_suspect)
        store.measure_again(store.finished() - finished)
        left = remaining(job.plan, finished)
        if job.fleet is None and left.visits:
            worker.launch()  # it imports torch while this process gets ready
        prediction, spending = job.foreseen(left)
        shown = RunProgress(
            store.path,
            prediction,
            total=job.plan.visits,
            left=left.visits,
            passed_over=passed_over,
            ends=None if job.budget_s is None else begun + job.budget_s,
            shown=options.progress,
            label=job.label,
        )
        events = _events(worker, store, job, left, finished, spending, begun)
        interrupted = followed(events, store, shown, lambda event: _take(event, store, remote))
        if store.finished() and NO_REPORT not in os.environ:
            from archbench.rendering.report import write_reports

            write_reports(store.path)
        if spending is not None and spending.left_out[0]:
            shown.left_out(*spending.left_out, None if interrupted else spending.given_up)
        elif left.visits and not interrupted:
            store.note_session(shown.ended(time.monotonic() - begun))
        if remote is not None:
            remote.push()
    return store.path, interrupted


def _take(event: Event, store: RunStore, remote: Remote | None) -> None:
    if isinstance(event, CellFinished):
        store.append(event.record, event.samples, event.profile)
        if remote is not None:
            remote.try_push()
    elif isinstance(event, Calibrated):
        store.calibrate(event.calibration)


def _place(job: Job, out: Path | None) -> tuple[Path, list[Path]]:
    """The directory of the run to continue or to begin, and those of older runs that it goes before.

    Raises `UsageError` for an `out` that cannot be this run's; makes nothing.
    """
    suite, environment, shard, fresh = job.suite, job.environment, job.plan.shard, job.options.fresh
    alike = [] if fresh or out is not None else runs_alike(RESULTS, suite, environment, shard)
    path = out or (alike[0] if alike else RESULTS / suite.suite / new_run_id(suite, environment, shard))
    if not RunStore.is_run(path):
        RunStore.check(path)
        return path, []
    if alike:
        return path, alike[1:]
    store = RunStore.open(path)
    if store.suite.suite != suite.suite:
        raise UsageError(f"{path} holds a run of suite {store.suite.suite!r}, not {suite.suite!r}; give another --out")
    if fresh:
        raise UsageError(f"{path} holds a run already; --fresh needs another --out")
    if store.shard != shard:
        held, asked = (f"shard {one.word}" if one else "no shard" for one in (store.shard, shard))
        raise UsageError(f"{path} holds {held} of {suite.suite!r} of another plan than {asked}; give another --out")
    if store.identity != run_identity(suite, environment, shard):
        raise UsageError(
            f"{path} holds a run of {suite.suite!r} of other content, machine or libraries; give another --out"
        )
    return path, []


@contextmanager
def _opened(job: Job, path: Path) -> Iterator[RunStore]:
    """The run at `path`, which may have to be begun, held against other writers."""
    if RunStore.is_run(path):
        store = RunStore.open(path)
        store.adopt(job.suite, job.text)
    else:
        store = RunStore.create(path, job.suite, job.environment, job.text, job.plan.shard)
    with run_lock(path):
        store.note_machines(job.fleet.environments if job.fleet else [job.environment])
        for network in job.networks:
            network.put(path / NETWORKS)
        yield store


def _store_skipped(store: RunStore, job: Job) -> None:
    """A cell that cannot be measured here is a row too, with the reason."""
    from archbench.catalog import facts
    from archbench.model.record import RunContext, failed_record

    finished = store.finished()
    context = RunContext(run_id=store.run_id, round=0, environment=job.environment)
    for skip in job.plan.skipped:
        if (skip.cell.cell_id, 0, 0) not in finished:
            store.append(failed_record(skip.cell, context, facts(skip.cell.network), "unsupported", skip.reason))


def _planned(left: Plan, job: Job) -> Iterator[Visit]:
    room = Room.of(job.environment)
    for number, groups in enumerate(left.rounds):
        yield from ((number, group, wave) for wave, group in arranged(groups, room, job.suite.metrics))


def _within(spending: Spending, store: RunStore, job: Job, begun: float) -> Iterator[Visit]:
    """What a budget is best spent on, looked at anew after each process, and so never a wave."""
    while (piece := spending.next(time.monotonic() - begun, _worth(store, job))) is not None:
        yield piece.round, piece.group, 0


def _worth(store: RunStore, job: Job) -> Worth:
    """What a visit could still decide, found out where it is asked for."""

    @cache
    def found() -> Worths:
        from archbench.choose.candidates import read_candidates
        from archbench.choose.matrix import worths

        return worths(job.suite, read_candidates([store.path]), job.plan.cells, job.environment)

    return lambda number, cell: found()[number > 0, cell.cell_id] if store.finished() else 1.0


def _events(
    worker: WorkerClient,
    store: RunStore,
    job: Job,
    left: Plan,
    finished: Collection[CellVisit],
    spending: Spending | None,
    begun: float,
) -> Generator[Event, None, None]:
    """Have one device, or several, measure what is left, and give what happens while it happens."""
    here = job.environment
    versions = {"torch": here.torch_version, "torchvision": here.torchvision_version, "timm": here.timm_version}
    tasks = Tasks(
        job.suite,
        store.run_id,
        calibration=store.calibration,
        calibrate=_calibrates(job),
        # A run that times nothing counts whatever is installed: a change of it is what it is asked for.
        versions=versions if job.timed and job.fleet is None else {},
        short=job.plan.short,
        allow_code=job.options.allow_code,
    )
    if job.fleet is not None:
        machines = list(store.machines)
        yield from job.fleet.events(tasks, job.plan, finished, machines, place=store.path, env=_environment(store, job))
    elif left.visits:
        order = _planned(left, job) if spending is None else _within(spending, store, job, begun)
        company = Room.of(here).processes - 1 if job.timed else 0
        until = math.inf if spending is None else begun + spending.until_s
        with _getting_ready(job.suite) as heard:
            for event in measured(worker, tasks, here, order, company=company, until=until):
                heard(event)
                if spending is not None and isinstance(event, CellFinished):
                    spending.note(event.record)
                yield event


def _environment(store: RunStore, job: Job) -> dict[str, str] | None:
    """The variables of workers that are to find the networks that were passed; `None`: as they are."""
    if not job.networks:
        return None
    from archbench.catalog.user_code import FOLDER

    return {**os.environ, FOLDER: str((store.path / NETWORKS).absolute())}


def _calibrates(job: Job) -> bool:
    """Whether the device's ceilings are worth their time: for a figure, or, when resumed too, for it to settle."""
    wanted = set(job.suite.metrics)
    soaks = protocol_for(job.environment.kind, job.suite.protocol).soak_s > 0
    return bool(wanted & {"throughput", "profile"}) or (soaks and wanted != set(STATIC))


@contextmanager
def _getting_ready(suite: Suite) -> Iterator[Callable[[Event], None]]:
    """What the report will need is loaded while nothing is timed, as events tell: at once where that never is for long.

    What has begun when such a phase ends goes on for half a second at most, beside the next cell's build.
    """
    if NO_REPORT in os.environ:
        yield lambda event: None
        return
    from archbench.rendering.report import GettingReady

    ready = GettingReady()
    metrics = {*suite.metrics}
    if not metrics & {*ASIDE} or metrics & {*LAST}:
        ready.finish()  # the worker is importing torch

    def heard(event: Event) -> None:
        if isinstance(event, PhaseStarted):
            ready.allow(event.phase in ASIDE)

    try:
        yield heard
    finally:
        ready.give_up()
