"""One cell from build to row: the phases that every cell has, in their order, with its metrics in between."""

from __future__ import annotations

import contextlib
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from archbench.analyze.fresh import FreshProcessError
from archbench.device.health import between
from archbench.device.kind import kind_of
from archbench.measure import compiler
from archbench.measure.group import GroupContext
from archbench.measure.metrics import METRICS, Metric
from archbench.measure.metrics.compiling import Again, compile_again
from archbench.measure.metrics.footprint import foresee
from archbench.measure.record_builder import RecordBuilder
from archbench.measure.sampling import Sampled, WarmUp, warm_up
from archbench.measure.state import Applied
from archbench.measure.watch import COLUMN_OF, Watch
from archbench.measure.workload import Workload
from archbench.model import axes
from archbench.model.axes import STATIC
from archbench.model.cell import Cell
from archbench.model.errors import words_of
from archbench.model.messages import CellFinished, Event, PhaseStarted, Proceed, StepGlimpsed
from archbench.model.profile import StageProfile
from archbench.model.record import DEVICE_PHASE, Record, empty_record
from archbench.worker.processes import search_lock

NEEDS_A_STEP = ("applied", "loss", "first_call_s", "warmup_steps", *COLUMN_OF.values())
"""What every cell has that ran at all, whatever its metrics."""
CALIBRATION_IMAGES = 32
"""From which a quantiser takes the ranges of activations: as few as a careful user has at hand."""
CALIBRATION_SEED = 1
"""Added to the seed: images by which outputs are judged are others than those that ranges were taken from."""


class CellRun:
    """What the phases and the metrics of one cell share.

    `emit` is told each phase as it begins, so that a death can be placed, and the seconds of a step while it warms up,
    for whoever waits. `metrics` are those that the row explains as asked for: the task's, where nothing else is said.
    `await_turn`: in a wave, what comes back when it may be measured; `neighbours` prepared cells meanwhile.
    """

    workload: Workload
    """From `build` on."""
    watch: Watch
    """While timings are taken."""
    ready_s: float
    """Seconds until steps are the steady ones: the first call, and with CUDA graphs the second, which records them."""
    crowded: bool
    """Other work held the cores during the first call."""
    warm: WarmUp
    """How the warm-up went, once it has; its last stretches are latency's first."""
    step_s: float
    """Seconds of one step on the host's clock, from the warm-up on."""
    latency: Sampled | None = None
    """What the latency was taken from, once it has been."""

    def __init__(
        self,
        group: GroupContext,
        cell: Cell,
        *,
        first: bool,
        emit: Callable[[Event], None] = lambda event: None,
        metrics: Sequence[axes.Metric] | None = None,
        await_turn: Callable[[], Proceed] | None = None,
        neighbours: int = 0,
    ) -> None:
        self.group = group
        self.task = group.task
        self.cell = cell
        self.first = first
        self.row = RecordBuilder(empty_record(cell, group.task.context, group.facts))
        self.around = contextlib.ExitStack()
        """What must hold from before the build to the end of the cell, and be undone then."""
        self.profile: StageProfile | None = None
        self.artifacts: Path | None = None
        """Where the cell's runtime finds or keeps what it makes of the network; set before `build`."""
        self.poisoned = False
        """Something failed on the way, so that this process should measure nothing more."""
        self.neighbours = neighbours
        self._await_turn = await_turn
        self._again: Again | None = None
        self._metrics = frozenset(group.task.metrics if metrics is None else metrics)
        self._emit = emit

    @property
    def waits(self) -> bool:
        """Whether it sleeps between being prepared and being measured."""
        return self._await_turn is not None

    @property
    def prepares(self) -> bool:
        """Whether something is compiled or converted before the first step can be done."""
        return not self.cell.is_eager

    @property
    def compiles(self) -> bool:
        """Whether the cell's step goes through torch.compile."""
        return self.cell.compile_mode != "off"

    @property
    def first_of_its_toggles(self) -> bool:
        """Whether it is the smallest batch under its toggles: what hardly depends on the batch is measured once."""
        alike = (cell for cell in self.task.group.cells if cell.group_id == self.cell.group_id)
        return next(alike) == self.cell

    def asks_for(self, metric: axes.Metric) -> bool:
        """Whether the suite wants these figures."""
        return metric in self._metrics

    def finish(self, measure: Callable[[CellRun], None]) -> CellFinished:
        """Measure. Whatever the network does becomes a row; only what kills the process does not come back."""
        try:
            with self.around:
                measure(self)
            return self._finished(self.row.finish())
        except Exception as error:  # the network's own code, a library's, or the device's: all are findings
            failed = self.row.fail(error)
            self.poisoned = failed.status != "unsupported"
            return self._finished(failed)

    def _finished(self, record: Record) -> CellFinished:
        return CellFinished(record=record, samples=self.row.samples, profile=self.profile, found=self.group.found())

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Inside, the cell is in the phase of this name."""
        self.row.phase = name
        self._enter(name)
        yield

    def _enter(self, phase: str) -> None:
        self._emit(PhaseStarted(cell_id=self.cell.cell_id, phase=phase))

    def explain_unasked(self) -> None:
        """Say of the columns of every metric that is not asked for why they are null, and of uncompiled cells."""
        for metric in METRICS:
            if not self.asks_for(metric.name):
                elsewhere = metric.name in self.task.elsewhere
                self.row.null("first_round" if elsewhere else "not_requested", *metric.columns)
        if self.cell.phase == "inference":
            self.row.null("training_only", "loss")
        if not self.compiles:
            self.row.null("not_compiled", "graph_breaks", "recompiles")
        if not self.prepares:
            self.row.null("not_compiled", "compile_neighbours")

    def fill(self, metric: Metric) -> None:
        """Measure a metric beside the timings: what fails in it does not cost a row that has its times already."""
        if (code := metric.cannot(self)) is not None:
            self.row.null(code, *metric.columns)
            return
        try:
            metric.fill(self)
        except Exception as error:  # the network's own code or the device's, as in `finish`
            self.poisoned = True
            self.row.null("phase_failed", *metric.columns)
            print(f"{self.cell.cell_id}: {self.row.phase}: {words_of(error)}", file=sys.stderr)

    def name_inputs(self) -> None:
        """Enter what the network takes: the side of a square image, or in words whatever else it is."""
        given = self.group.takes
        self.row.set(input_size=None if given.text else given.shape[-1], inputs=given.text)

    def build(self) -> None:
        """Make the workload, with every toggle applied and read back."""
        group, seed = self.group, self.task.seed
        with self.phase("build"):
            try:
                group.device  # noqa: B018 - made on first use
            except Exception:
                self.row.phase = DEVICE_PHASE  # no fault of the cell's, and the row says so to the parent
                raise
            group.set_state(self.cell.precision)  # its seed is of the weights
            if self.compiles:
                compiler.reset()
            gc.collect()  # the last cell's tensors, before a larger one needs their room
            module = group.module
            group.set_state(self.cell.precision)  # whatever the network's builder has switched
            self.name_inputs()
            self.workload = Workload(
                *(self.cell, module, group.takes, group.device),
                ring=self.task.protocol.input_ring,
                seed=seed,
                artifacts=self._artifacts(),
                calibration=lambda: [
                    batch.tensors[0] for batch in group.batches(CALIBRATION_IMAGES, self.cell, seed + CALIBRATION_SEED)
                ],
            )
            self.applied = self._note_applied()
            self.workload.require(self.applied)

    def _artifacts(self) -> Path | None:
        """Where the cell's runtime keeps what it makes: the place that it was given, or one that ends with the cell."""
        if self.cell.is_converted and self.artifacts is None:
            folder = tempfile.TemporaryDirectory(prefix="archbench-artifact-", ignore_cleanup_errors=True)
            self.artifacts = Path(self.around.enter_context(folder))
        return self.artifacts

    def _note_applied(self) -> Applied:
        applied = self.workload.applied()
        self.row.set(applied=msgspec.json.encode(applied).decode())
        return applied

    def first_call(self) -> None:
        """The very first step: allocations, kernel selection, compilation. Kept out of every other figure."""
        before = self.group.probe.read()
        with self.phase("compile" if self.prepares else "first call"), self._device_to_itself():
            self.ready_s = first_call_s = self._time_one_step()
            self.row.set(first_call_s=first_call_s)
            if self.workload.engine is not None:
                self.applied = self._note_applied()  # with what the runtime says, which is there from here on
            if self.workload.records_graphs:
                self.ready_s += self._time_one_step()
        self.row.set(loss=self.workload.trained_on)
        self.crowded = bool(between(before, self.group.probe.read()).crowded) and not self.prepares

    def _device_to_itself(self) -> contextlib.AbstractContextManager[None]:
        """In a wave: as soon as compiled code runs, it searches for kernels by timing them. One process at a time."""
        if not (self.waits and self.prepares and kind_of(self.group.device).own_clock):
            return contextlib.nullcontext()
        return compiler.first_run_holds(lambda: search_lock(self.task.context.environment.device_key))

    def announce(self, what: str) -> None:
        """Say beside the phase what holds it up."""
        self._enter(f"{self.row.phase}, {what}")

    def glimpse(self, step_s: float) -> None:
        """Tell what a step takes, as far as is known."""
        self._emit(StepGlimpsed(cell_id=self.cell.cell_id, step_s=step_s))

    def _time_one_step(self) -> float:
        """Do one step and return its seconds on the host's clock, waited for."""
        clock = self.group.clock
        clock.synchronize()
        start = time.perf_counter()
        self.workload.step()
        clock.synchronize()
        return time.perf_counter() - start

    def await_turn(self) -> None:
        """In a wave, sleep until the others do: from here on nothing runs beside what is timed."""
        if self._await_turn is not None:
            with self.row.paused():
                told = self._await_turn()
            self.first = self.first and not told.follows
        if self.prepares:
            self.row.set(compile_neighbours=self.neighbours)

    def note_warm_up(self, warm: WarmUp) -> None:
        """Enter how the warm-up went, and what was compiled in it."""
        self.step_s = warm.step_s
        self.row.set(warmup_steps=warm.unsampled + 1)
        if not warm.level:
            self.row.flag("nonstationary")
        if self.compiles:
            self.note_compiled(compiler.counts())

    def note_compiled(self, counts: compiler.CompileCounts) -> None:
        """Enter what dynamo counted."""
        self.row.set(graph_breaks=counts.graph_breaks, recompiles=counts.recompiles)
        if counts.fell_back:
            self.row.flag("eager_frames")

    @contextlib.contextmanager
    def steady(self) -> Iterator[None]:
        """Inside nothing may compile: that is an error, not a slow sample. Graphs recorded again are flagged."""
        if not self.compiles:
            yield
            return
        recorded = compiler.graphs_recorded()
        with compiler.no_recompiles():
            yield
        if compiler.graphs_recorded() != recorded:
            self.row.flag("graphs_recorded")

    def release(self) -> None:
        """Give back what the workload holds, beside the weights: nothing more is run of it."""
        del self.workload
        compiler.reset()
        gc.collect()
        kind_of(self.group.device).empty_cache()

    def prepared_again(self) -> Again | None:
        """What a fresh process finds with what was kept, asked once; `None` where it fails, told on standard error."""
        if self._again is None:
            assert self.group.fresh is not None, "the group has cells to prepare again"
            assert self.artifacts is not None, "what was prepared is kept"
            try:
                self._again = self.group.fresh.call(None, compile_again, self.task, self.cell, self.artifacts)
            except FreshProcessError as error:
                print(f"{self.cell.cell_id}: {self.row.phase}: {words_of(error)}", file=sys.stderr)
        return self._again

    def conclude(self) -> None:
        """Enter what the watch over the timings has seen."""
        report = self.watch.report()
        if self.workload.applied() != self.applied:
            self.row.flag("switched")
        self.row.set(**{column: getattr(report, column) for column in COLUMN_OF.values()})
        for code in report.reasons:
            self.row.flag(code)
        for column, code in report.missing:
            self.row.null(code, column)
        self.row.add_canaries(report.canaries)


def measure_cell(run: CellRun) -> None:
    """The way of one cell: counted, built, called, warmed up, timed, and looked at from all other sides."""
    run.explain_unasked()
    asked = [metric for metric in METRICS if run.asks_for(metric.name)]
    with run.phase("count"):
        for metric in asked:
            metric.prepare(run)
    if run.task.metrics == STATIC:
        run.name_inputs()
        foresee(run)
        run.row.null("nothing_ran", *NEEDS_A_STEP, "compile_neighbours")
        return
    run.build()
    if not run.prepares:
        run.await_turn()  # its first step already is the device's work, and its search for plans is timed
    run.first_call()
    if run.prepares:
        run.await_turn()
    if not asked:
        return  # whether the step runs is all that was asked
    with run.phase("warmup"):
        group, protocol = run.group, run.task.protocol
        if run.crowded:
            run.announce("beside other work")
        run.watch = Watch(group.probe, group.time_canary, protocol, run.announce)
        run.warm = warm_up(
            *(run.workload.step, group.clock, protocol),
            first_cell=run.first,
            crowded=run.crowded,
            glimpse=run.glimpse,
            monitor=run.watch if run.asks_for("latency") else None,
        )
        run.watch.keep(len(run.warm.stretches))
        run.note_warm_up(run.warm)
    with run.steady():
        for metric in asked:
            if metric.timed:
                metric.fill(run)
    run.conclude()
    for metric in asked:
        if not metric.timed:
            run.fill(metric)
