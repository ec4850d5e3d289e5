"""One cell in turns with other processes: made ready once, then timed block by block, whenever the parent says so."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import TypeVar

from archbench.catalog import resolve
from archbench.device.kind import kind_of
from archbench.measure import compiler
from archbench.measure.bench import Bench
from archbench.measure.cell_run import CellRun
from archbench.measure.columns import COLUMNS_OF
from archbench.measure.sampling import Sampled, Stretch, WarmUp, quiet_gc, warm_up
from archbench.measure.watch import Watch
from archbench.measure.workload import UnsupportedError, Workload
from archbench.model import messages
from archbench.model.cell import Network
from archbench.model.messages import Build, Built, ChildEvent, Finish, Surveyed, TakeTurn, TurnTaken, TurnTask, TurnWord
from archbench.model.suite import PERCENTILES
from archbench.stats import median_interval

STEP_HISTORY = 30
"""Steps of a warm-up of given length from whose median the step time is told, as many as an adaptive one looks at."""
LEAD_FROM = 4
"""Blocks of this many steps begin with one more that is not timed: the rival has emptied the caches. In shorter blocks
it would cost more time than it saves noise."""

_Word = TypeVar("_Word", bound=TurnWord)


class TurnRun(CellRun):
    """Measures one cell as `CellRun` does, but for the timing: blocks of a given number of steps, on demand."""

    def __init__(
        self,
        bench: Bench,
        request: TurnTask,
        *,
        enter: Callable[[str], None],
        emit: Callable[[ChildEvent], None],
        hear: Callable[[], TurnWord | None],
    ) -> None:
        super().__init__(bench, request.cell, first=True, enter=enter)
        self._request = request
        self._emit = emit
        self._hear = hear
        self._warmup_steps = 0
        self._stretches: list[Stretch] = []

    def _measure(self) -> None:
        for metric, columns in COLUMNS_OF.items():
            if metric not in (*self._task.metrics, "latency"):
                self._draft.null("not_requested", *(name for name in columns if name != "predicted_peak_bytes"))
        self._survey()
        self._expect(Build)
        workload = self._build()
        self._emit(Built(cell_id=self._cell.cell_id, origin=origin_of(self._cell.network)))
        word = self._expect(messages.WarmUp)
        self._bench.admit(word.rivals)
        self._first_call(workload)
        self._warm_up_as_told(workload, word)
        watch = Watch(self._bench.probe, None, self._task.protocol)
        guard = compiler.no_recompiles() if self._compiles else contextlib.nullcontext()
        with guard, quiet_gc(), self._phase("turns"):
            self._take_turns(workload, watch)
        if self._stretches:
            self._sum_up(watch)
        if "memory" in self._task.metrics:
            self._aside(self._memory, workload, *COLUMNS_OF["memory"])

    def _survey(self) -> None:
        self._count()
        model = self._bench.memory_model if self._request.survey and not self._compiles else None
        held = self._task.protocol.input_ring
        peak = None if model is None else model.peak_bytes(self._cell.batch_size, batches_held=held)
        self._draft.set(predicted_peak_bytes=peak)
        if peak is None:
            self._draft.null("not_predicted" if self._request.survey else "not_requested", "predicted_peak_bytes")
        self._emit(Surveyed(cell_id=self._cell.cell_id, pid=os.getpid(), predicted_peak_bytes=peak))

    def _warm_up_as_told(self, workload: Workload, word: messages.WarmUp) -> None:
        """Warm up for the steps given, or until level, and say how it went."""
        clock = self._bench.clock
        with self._phase("warmup"):
            if word.steps is None:
                warm = warm_up(workload.step, clock, self._task.protocol, first_cell=True)
            else:
                recent = deque((clock.latency(workload.step).host_s for _ in range(word.steps)), maxlen=STEP_HISTORY)
                warm = WarmUp(calls=word.steps, step_s=median(recent), level=True)
            self._warmup_steps += warm.calls
            self._note(WarmUp(calls=self._warmup_steps, step_s=warm.step_s, level=warm.level))
        self._emit(
            messages.Warmed(cell_id=self._cell.cell_id, steps=self._warmup_steps, step_s=warm.step_s, level=warm.level)
        )

    def _take_turns(self, workload: Workload, watch: Watch) -> None:
        while not isinstance(word := self._listen(), Finish):
            if isinstance(word, messages.WarmUp):
                self._warm_up_as_told(workload, word)
            elif isinstance(word, TakeTurn):
                self._take_turn(workload, watch, word.steps)
            else:
                raise UnsupportedError(f"told to {type(word).__name__} while taking turns")

    def _take_turn(self, workload: Workload, watch: Watch, steps: int) -> None:
        clock = self._bench.clock
        self._steps = steps
        if steps >= LEAD_FROM:
            clock.latency(workload.step)
        watch.begin()
        timing = clock.latency(workload.step, steps)
        rejected = watch.end()
        kind_of(self._bench.device).settle()  # the rival must not feel what is left of this turn
        self._stretches.append(Stretch(timings=(timing,), rejected=rejected))
        self._emit(
            TurnTaken(
                cell_id=self._cell.cell_id,
                steps=steps,
                seconds=timing.host_s / steps,
                kept=rejected is None,
                contention=watch.latest.contention,
                sm_clock_mhz=watch.latest.sm_clock_mhz,
            )
        )

    def _sum_up(self, watch: Watch) -> None:
        """The row's latency: the median over the turns."""
        kept = [stretch for stretch in self._stretches if stretch.kept] or self._stretches
        interval = median_interval([stretch.timings[0].host_s / self._steps for stretch in kept])
        sampled = Sampled(stretches=tuple(self._stretches), steps=self._steps, interval=interval, stop=None)
        self._samples.add(sampled, "latency")
        self._draft.set(
            latency_median_s=interval.median,
            latency_ci_low_s=interval.low,
            latency_ci_high_s=interval.high,
            samples=len(kept),
            steps_per_sample=self._steps,
        )
        code = "several_steps_per_sample" if self._steps > 1 else "too_few_samples"
        self._draft.null(code, *(f"latency_p{percent}_s" for percent in PERCENTILES))
        self._conclude(watch)

    def _listen(self) -> TurnWord:
        word = self._hear()
        if word is None:
            sys.exit("the parent has gone")  # nobody is left to read a row
        return word

    def _expect(self, kind: type[_Word]) -> _Word:
        word = self._listen()
        if not isinstance(word, kind):
            raise UnsupportedError(f"told to {type(word).__name__} where {kind.__name__} was to come: it was sent away")
        return word


def origin_of(network: Network) -> str | None:
    """The file of the package, or of the user's module, that a network which has been built came from."""
    source = resolve(network.name, allow_code=True).source
    package = network.name.partition(":")[0] if source == "user code" else source
    return getattr(sys.modules.get(package), "__file__", None)
