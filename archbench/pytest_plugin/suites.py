"""Suites as tests: one item a cell, measured by a worker as in `archbench run`, a group of them by each process."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NoReturn

import msgspec
import pytest

from archbench.model.cell import Cell, Group, Plan, short_id
from archbench.model.environment import Environment
from archbench.model.errors import ArchbenchError
from archbench.model.messages import CellFinished, Event
from archbench.model.record import FAILED, Record, Sample
from archbench.model.suite import Suite
from archbench.pytest_plugin import DEVICES, ROWS, has_benchmark, mark_timer
from archbench.session import Tasks, describe, held, measured
from archbench.suite import load_suite
from archbench.suite.plan import make_plan
from archbench.worker import WorkerClient

FIGURES = (
    *("architecture", "batch_size", "phase", "precision", "compile_mode", "memory_format", "runtime", "quantize"),
    *("device", "hardware_class", "params", "macs", "latency_median_s", "latency_ci_low_s", "latency_ci_high_s"),
    *("throughput_img_s", "peak_allocated_bytes", "peak_reserved_bytes", "graph_breaks", "verdict"),
)
"""Columns that go with a test's result: into pytest-benchmark's `extra_info` and JUnit's properties."""


class CellFailedError(Exception):
    """A cell ended as `oom`, `error`, `timeout` or `crashed`, or without a time that counts; the message says why."""


class ReplayTimer:
    """Gives pytest-benchmark durations that were measured elsewhere: seconds for each of its rounds."""

    __name__ = "archbench"

    def __init__(self) -> None:
        self._stamps: Iterator[float] = iter(())

    def load(self, durations: Iterable[float]) -> None:
        """The durations of the rounds to come."""
        self._stamps = (stamp for duration in durations for stamp in (0.0, duration))

    def __call__(self) -> float:
        return next(self._stamps)


class CollectedSuite(pytest.File):
    """A suite file; its items are the cells that a run of one round would measure on this device."""

    def collect(self) -> Iterator[CellItem]:
        allow_code = self.config.getoption("archbench_allow_code")
        try:
            suite = load_suite(self.path, allow_code=allow_code)
            environment = describe(self.config.getoption("archbench_device"))
            only = self.config.getoption("archbench_only")
            plan = make_plan(suite, environment.kind, only=only, rounds=1)
        except ArchbenchError as error:
            # The words are those of the command line; here the options have names of their own.
            raise self.CollectError(re.sub(r"--(only |allow-code|device)", r"--archbench-\1", str(error))) from None
        self.runner = GroupRunner(suite, plan, environment, self._wanted, allow_code=allow_code)
        timed = any(metric in suite.metrics for metric in ("latency", "throughput"))
        call = _keep_in_benchmark if timed and has_benchmark(self.config) else _measure_alone
        for cell in _each_once(plan):
            yield CellItem.from_parent(self, name=short_id(cell.cell_id), callobj=call, cell=cell)
        for skip in plan.skipped:
            item = CellItem.from_parent(self, name=short_id(skip.cell.cell_id), callobj=_measure_alone, cell=skip.cell)
            item.add_marker(pytest.mark.skip(reason=skip.reason))
            yield item

    def teardown(self) -> None:
        self.runner.close()

    def _wanted(self) -> set[str]:
        """The cells of this file that were not deselected."""
        return {item.cell.cell_id for item in self.session.items if isinstance(item, CellItem) and item.parent is self}


class CellItem(pytest.Function):
    """One cell. A function like any test, so that pytest-benchmark's fixture, options and hooks apply to it."""

    def __init__(self, *, cell: Cell, **options: Any) -> None:
        super().__init__(**options)
        self.cell = cell
        self.replay = ReplayTimer()
        mark_timer(self, self.replay)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *arguments: Any) -> Any:
        """What went wrong, in the row's own line: the worker's traceback is in the row, pytest's would be of us."""
        if isinstance(excinfo.value, (CellFailedError, ArchbenchError)):
            return f"{self.name}: {excinfo.value}"
        return super().repr_failure(excinfo, *arguments)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        return self.path, 0, self.name

    def measured(self, *, once: bool) -> CellFinished:
        """This cell's row and timings; skips the test where the cell cannot be measured."""
        assert isinstance(self.parent, CollectedSuite)
        finished = self.parent.runner.measure(self.cell, once=once)
        row = finished.record
        self.config.stash[DEVICES].add(self.parent.runner.device)
        self.config.stash[ROWS].append(row)
        self.user_properties += [(name, getattr(row, name)) for name in FIGURES if getattr(row, name) is not None]
        if row.status in ("unsupported", "skipped"):
            pytest.skip(row.error_message or row.status)
        if row.verdict == "invalid":
            self.warn(pytest.PytestWarning(f"{row.cell_id}: the row is invalid: {', '.join(_codes(row))}"))
        return finished


class GroupRunner:
    """Measures a suite's cells, each group by one process, when the first of its cells is asked for.

    `wanted` names the cells of the suite that will be asked for at all.
    """

    def __init__(
        self, suite: Suite, plan: Plan, environment: Environment, wanted: Callable[[], set[str]], *, allow_code: bool
    ) -> None:
        self.device = environment.device
        self._suite = suite
        self._plan = plan
        self._environment = environment
        self._wanted = wanted
        self._allow_code = allow_code
        self._finished: dict[str, CellFinished] = {}
        self._events: Iterator[Event] = iter(())
        self._started: tuple[WorkerClient, Tasks] | None = None
        self._held = ExitStack()

    def measure(self, cell: Cell, *, once: bool) -> CellFinished:
        """The cell's row, measured now or already. With `once` it makes a single step and nothing is timed.

        Raises `UnfitError` where the machine is not fit to measure, or somebody else measures on it.
        """
        if cell.cell_id not in self._finished:
            self._follow(until=cell)
        if cell.cell_id not in self._finished:
            self._events = self._begin(cell, once)
            self._follow(until=cell)
        return self._finished.pop(cell.cell_id)

    def close(self) -> None:
        """End the worker and whatever it is doing."""
        if self._started is not None:
            self._started[0].close()
        self._started, self._events = None, iter(())
        self._held.close()

    def _begin(self, cell: Cell, once: bool) -> Iterator[Event]:
        wanted = {cell.cell_id} if once else self._wanted()
        cells = next(group.cells for group in self._plan.rounds[0] if cell in group.cells)
        group = Group(cells=tuple(one for one in cells if one.cell_id in wanted))
        if self._started is None:
            if not once:
                self._held.enter_context(held(self._environment))
            suite = msgspec.structs.replace(self._suite, metrics=()) if once else self._suite
            tasks = Tasks(suite, "pytest", calibrate=not once, allow_code=self._allow_code)
            self._started = WorkerClient(device=self.device), tasks
        return measured(*self._started, self._environment, [(0, group, 0)])

    def _follow(self, until: Cell) -> None:
        """Take in what the running group says, to the cell's row; to the group's end where it is not of that group."""
        for event in self._events:
            if isinstance(event, CellFinished):
                self._finished[event.record.cell_id] = event
                if event.record.cell_id == until.cell_id:
                    return


def _each_once(plan: Plan) -> Iterator[Cell]:
    """The cells in the order of measuring; the twin's further visits measure nothing new."""
    for group in plan.rounds[0]:
        if group.visit == 0:
            yield from group.cells


def _keep_in_benchmark(request: pytest.FixtureRequest, benchmark: Any) -> None:
    """Measure the item's cell and hand its latencies to pytest-benchmark, as if it had taken them."""
    item = request.node
    finished = item.measured(once=benchmark.disabled)
    row, samples = finished.record, _counting(finished.samples)
    if row.status in FAILED or not (samples or benchmark.disabled):
        item.replay.load([0.0])
        benchmark.pedantic(_fail, args=(row,))
    if benchmark.disabled:
        benchmark.pedantic(_nothing)
        return
    item.replay.load(sample.host_s for sample in samples)
    benchmark.extra_info.update({"cell_id": row.cell_id, **{name: getattr(row, name) for name in FIGURES}})
    benchmark.pedantic(_nothing, rounds=len(samples), iterations=samples[0].steps)


def _measure_alone(request: pytest.FixtureRequest) -> None:
    if hasattr(request.config, "workerinput"):
        pytest.fail("cells are timed one after the other: run suites without -n", pytrace=False)
    finished = request.node.measured(once=False)
    if finished.record.status in FAILED:
        _fail(finished.record)


def _nothing() -> None:
    """Takes the place of work that was done and timed elsewhere."""


def _counting(samples: Sequence[Sample]) -> list[Sample]:
    """The latencies that were kept; the bursts of the throughput only where no latency was taken at all."""
    taken = {one: [sample for sample in samples if sample.experiment == one] for one in ("latency", "throughput")}
    return [sample for sample in taken["latency"] or taken["throughput"] if sample.kept]


def _fail(row: Record) -> NoReturn:
    if row.status not in FAILED:
        raise CellFailedError(f"every block was rejected: {', '.join(_codes(row))}")
    raise CellFailedError(row.failure)


def _codes(row: Record) -> list[str]:
    return [code for code in row.reasons if ":" not in code]
