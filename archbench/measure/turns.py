"""One cell in turns with other processes: made ready once, then timed block by block, whenever the parent says so."""

from __future__ import annotations

import gc
import os
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import TypeVar

from archbench.catalog import resolve
from archbench.device.kind import kind_of
from archbench.measure.cell_run import CellRun
from archbench.measure.group import GroupContext
from archbench.measure.metrics import METRICS
from archbench.measure.metrics.footprint import count
from archbench.measure.sampling import Sampled, Stretch, WarmUp, gc_paused, warm_up
from archbench.measure.watch import Watch
from archbench.model import messages
from archbench.model.cell import Network
from archbench.model.errors import UnsupportedError
from archbench.model.messages import (
    Build,
    Built,
    CellStarted,
    ChildEvent,
    Finish,
    Surveyed,
    TakeTurn,
    TurnTaken,
    TurnTask,
    TurnWord,
)
from archbench.model.suite import PERCENTILES
from archbench.stats.intervals import median_interval

WHOLE_DAY_S = 86_400.0
"""Deadline of a cell that waits for its turns: its parent, who knows whose turn it is, watches over it."""
STEP_HISTORY = 30
"""Steps of a warm-up of given length from whose median the step time is told, as many as an adaptive one looks at."""
LEAD_FROM = 4
"""Blocks of this many steps begin with one more that is not timed: the rival has emptied the caches. In shorter blocks
it would cost more time than it saves noise."""

_Word = TypeVar("_Word", bound=TurnWord)


def take_turns(request: TurnTask, emit: Callable[[ChildEvent], None], hear: Callable[[], TurnWord]) -> None:
    """Make the cell ready and time its blocks one by one; its row is the last thing that `emit` is told."""
    gc.freeze()
    cell = request.cell
    emit(CellStarted(cell_id=cell.cell_id, deadline_s=WHOLE_DAY_S))
    run = CellRun(GroupContext(request.task), cell, first=True, emit=emit, metrics=(*request.task.metrics, "latency"))
    emit(run.finish(_Turns(run, request.survey, emit, hear).take))


@dataclass
class _Turns:
    """The way of a cell as `measure_cell` goes it, but for the timing: blocks of given length, on demand."""

    run: CellRun
    survey: bool
    emit: Callable[[ChildEvent], None]
    hear: Callable[[], TurnWord]
    warmup_steps: int = 0
    steps: int = 0
    stretches: list[Stretch] = field(default_factory=list)

    def take(self, run: CellRun) -> None:
        """Do what one is told until there is nothing more to do, or until something fails."""
        run.explain_unasked()
        self._look_ahead()
        self._expect(Build)
        run.build()
        self.emit(Built(cell_id=run.cell.cell_id, origin=origin_of(run.cell.network)))
        word = self._expect(messages.WarmUp)
        run.group.admit(word.rivals)
        run.first_call()
        self._warm_up_as_told(word)
        run.watch = Watch(run.group.probe, None, run.task.protocol)
        with run.steady(), gc_paused(), run.phase("turns"):
            self._take_turns()
        if self.stretches:
            self._sum_up()
        if run.asks_for("memory"):
            run.fill(next(metric for metric in METRICS if metric.name == "memory"))

    def _look_ahead(self) -> None:
        """Say what is known before anything is built."""
        run = self.run
        with run.phase("count"):
            run.name_inputs()
            if run.asks_for("static"):
                count(run)
            model = run.group.memory_model(run.cell) if self.survey and not run.prepares else None
            held = run.task.protocol.input_ring
            peak = None if model is None else model.peak_bytes(run.cell.batch_size, batches_held=held)
        run.row.set(predicted_peak_bytes=peak)
        if peak is None and self.survey:
            run.row.null("not_predicted", "predicted_peak_bytes", "predicted_peak_lines")
        self.emit(Surveyed(cell_id=run.cell.cell_id, pid=os.getpid(), predicted_peak_bytes=peak))

    def _warm_up_as_told(self, word: messages.WarmUp) -> None:
        """Warm up for the steps given, or until level, and say how it went."""
        run = self.run
        clock, step = run.group.clock, run.workload.step
        with run.phase("warmup"):
            if word.steps is None:
                warm = warm_up(step, clock, run.task.protocol, first_cell=True)
            else:
                recent = deque((clock.latency(step).host_s for _ in range(word.steps)), maxlen=STEP_HISTORY)
                warm = WarmUp(calls=word.steps, step_s=median(recent), level=True)
            self.warmup_steps += warm.calls
            run.note_warm_up(WarmUp(calls=self.warmup_steps, step_s=warm.step_s, level=warm.level))
        self.emit(
            messages.Warmed(cell_id=run.cell.cell_id, steps=self.warmup_steps, step_s=warm.step_s, level=warm.level)
        )

    def _take_turns(self) -> None:
        while not isinstance(word := self.hear(), Finish):
            if isinstance(word, messages.WarmUp):
                self._warm_up_as_told(word)
            elif isinstance(word, TakeTurn):
                self._take_turn(word.steps)
            else:
                raise UnsupportedError(f"told to {type(word).__name__} while taking turns")

    def _take_turn(self, steps: int) -> None:
        run = self.run
        clock, step, watch = run.group.clock, run.workload.step, run.watch
        self.steps = steps
        if steps >= LEAD_FROM:
            clock.latency(step)
        watch.begin()
        timing = clock.latency(step, steps)
        rejected = watch.end()
        kind_of(run.group.device).settle()  # the rival must not feel what is left of this turn
        self.stretches.append(Stretch(timings=(timing,), rejected=rejected))
        self.emit(
            TurnTaken(
                cell_id=run.cell.cell_id,
                steps=steps,
                seconds=timing.host_s / steps,
                kept=rejected is None,
                contention=watch.latest.contention,
                sm_clock_mhz=watch.latest.sm_clock_mhz,
            )
        )

    def _sum_up(self) -> None:
        """The row's latency: the median over the turns."""
        row = self.run.row
        kept = [stretch for stretch in self.stretches if stretch.kept] or self.stretches
        interval = median_interval([stretch.timings[0].host_s / self.steps for stretch in kept])
        sampled = Sampled(stretches=tuple(self.stretches), steps=self.steps, interval=interval, stop=None)
        row.add_timings(sampled, "latency")
        row.set(
            latency_median_s=interval.median,
            latency_ci_low_s=interval.low,
            latency_ci_high_s=interval.high,
            samples=len(kept),
            steps_per_sample=self.steps,
        )
        code = "several_steps_per_sample" if self.steps > 1 else "too_few_samples"
        row.null(code, *(f"latency_p{percent}_s" for percent in PERCENTILES))
        row.null("in_turns", "canary_s", "issue_time_median_s", "device_time_median_s", "host_bound")
        if self.run.prepares:
            row.null("in_turns", "compile_neighbours")
        self.run.conclude()

    def _expect(self, kind: type[_Word]) -> _Word:
        word = self.hear()
        if not isinstance(word, kind):
            raise UnsupportedError(f"told to {type(word).__name__} where {kind.__name__} was to come: it was sent away")
        return word


def origin_of(network: Network) -> str | None:
    """The file of the package, or of the user's module, that a network which has been built came from."""
    source = resolve(network.name, allow_code=True).source
    package = network.name.partition(":")[0] if source == "user code" else source
    return getattr(sys.modules.get(package), "__file__", None)
