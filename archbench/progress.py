"""Live progress of a run in a terminal or a notebook: what is done, what is being measured, how long it will take."""

from __future__ import annotations

import math
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Generic, Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Column
from rich.text import Text

from archbench.model.cell import Cell, short_id
from archbench.model.comparison import PairDone
from archbench.model.errors import escaped
from archbench.model.messages import Calibrated, CellFinished, CellStarted, Event, PhaseStarted, StepGlimpsed
from archbench.model.reasons import explain
from archbench.model.record import Record
from archbench.model.units import IMAGES, MS, change, counted, duration, figure
from archbench.results import Session
from archbench.suite.duration import Countdown, Prediction

_Event = TypeVar("_Event")

LINES_EVERY_S = 10.0
"""Between two lines on pairs in a log: pairs of small networks take a second."""


class _TimeLeft(ProgressColumn):
    """The time until the report, going down between cells as a clock does."""

    def __init__(self, countdown: Countdown, latest: float | None) -> None:
        super().__init__()
        self._countdown = countdown
        self._latest = math.inf if latest is None else latest

    @property
    def seconds(self) -> int:
        """From now on."""
        return max(0, round(min(self._latest, self._countdown.ends) - time.monotonic()))

    def render(self, task: Task) -> Text:
        """What rich asks for."""
        return Text(str(timedelta(seconds=self.seconds)), style="progress.remaining")


class Progress(ABC, Generic[_Event]):
    """Lines on stderr and, where one can be drawn, a bar below them. With `shown` false, silent.

    A log is no terminal even where FORCE_COLOR makes rich take it for one. In a notebook rich draws by ipywidgets
    alone; where they are missing, there are lines without a bar.
    """

    def __init__(self, shown: bool | None, note: Iterable[str], *columns: ProgressColumn, idle: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False, quiet=shown is False)
        notebook = self._console.is_jupyter and find_spec("ipywidgets") is not None
        terminal = sys.stderr.isatty() and self._console.is_terminal and not self._console.is_dumb_terminal
        self._live = notebook or terminal
        self._note = note
        self._bar = Bar(
            _Label(),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            *columns,
            console=self._console,
            disable=idle or not self._live,
            transient=True,
            expand=True,
        )

    @abstractmethod
    def show(self, event: _Event) -> None:
        """Take in what happens."""

    def __enter__(self) -> Self:
        for line in self._note:
            self._say(line)
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _say(self, line: str) -> None:
        self._console.print(escaped(line), markup=False, soft_wrap=True)


class RunProgress(Progress[Event]):
    """Shows the messages of a run of `total` cells, of which some are `left` and take about as long as `expected`.

    In a terminal or a notebook a bar, and a line for every row; elsewhere, as in a log, the lines alone, each with its
    number and the time left. With `shown` false, silent. `passed_over`: older runs that could have been continued.
    `ends`: when the run ends at the latest, by `time.monotonic`. `label`: which of several at once it is; these have
    lines and no bar.
    """

    def __init__(
        self,
        run: Path,
        expected: Prediction,
        *,
        total: int,
        left: int,
        passed_over: Sequence[Path] = (),
        ends: float | None = None,
        shown: bool | None = None,
        label: str = "",
    ) -> None:
        self._label = f"{label} " if label else ""
        self._expected = expected
        self._countdown = Countdown(expected, time.monotonic())
        self._left = _TimeLeft(self._countdown, ends)
        self._total, self._done = total, total - left
        note = _note(run, total, left, expected, passed_over)
        super().__init__(shown, note, TimeElapsedColumn(), TextColumn("ETA"), self._left, idle=not left or bool(label))
        self._cells = self._bar.add_task("cells", total=total, completed=total - left)
        self._cell = ""
        self._glimpsed = False

    def show(self, event: Event) -> None:
        match event:
            case Calibrated():
                self._bar.update(self._cells, description="calibrated")
            case CellStarted():
                self._cell = short_id(event.cell_id)
                self._bar.update(self._cells, description=self._cell)
            case StepGlimpsed():
                self._glimpse(f"{short_id(event.cell_id)}: about {figure(event.step_s, MS)} ms")
            case PhaseStarted():
                self._bar.update(self._cells, description=f"{self._cell} · {event.phase}")
            case CellFinished():
                self._countdown.finished(event.record, time.monotonic())
                self._bar.advance(self._cells)
                self._done += 1
                alone = self._live and not self._label
                left = "" if alone or self._done == self._total else f" · ETA {duration(self._left.seconds)}"
                self._say(f"{self._label}[{self._done}/{self._total}] {describe(event.record)}{left}")

    def _glimpse(self, said: str) -> None:
        """In the bar until the row comes, which says it better; before the first row of all as a line, too."""
        self._cell = said
        if not self._done and not self._glimpsed:
            self._glimpsed = True
            self._say(f"{said}, being measured")

    def ended(self, took_s: float) -> Session:
        """Say what it took beside what was expected, in seconds from the call to its report."""
        expected, measurements = self._expected, len(self._expected.visits)
        by = f"predicted {duration(expected.total)} by {expected.basis}"
        self._say(f"archbench: {counted(measurements, 'measurement')} took {duration(took_s)}; {by}")
        return Session(
            measurements=measurements,
            predicted_s=round(expected.total, 1),
            predicted_from=expected.basis,
            took_s=round(took_s, 1),
        )

    def left_out(self, visits: int, seconds: float, given_up: Cell | None) -> None:
        """Say what there was no time for, and what was being measured when it was up."""
        if given_up is not None:
            self._say(f"archbench: {short_id(given_up.cell_id)} was given up: it takes longer than expected")
        self._say(
            f"archbench: the budget left out {counted(visits, 'measurement')}, about {duration(seconds)}; "
            "the same command continues, with another --budget or with none"
        )


class _Label(ProgressColumn):
    """What is being measured; where the line is short it gives way, and no figure does."""

    def __init__(self) -> None:
        super().__init__(Column(ratio=1, no_wrap=True, overflow="ellipsis"))

    def render(self, task: Task) -> Text:
        """What rich asks for."""
        return Text(task.description)


def _note(run: Path, total: int, left: int, expected: Prediction, passed_over: Sequence[Path]) -> Iterator[str]:
    if total and not left:
        yield f"archbench: {run} is complete; --fresh measures anew"
    elif left < total:
        yield f"archbench: resuming {run}: {total - left} of {total} measurements are done"
    if left:
        yield f"archbench: {counted(left, 'measurement')}, {expected.in_words}"
    if passed_over:
        yield f"archbench: older runs alike, left as they are: {', '.join(map(str, passed_over))}"


class PairProgress(Progress[PairDone]):
    """Shows pairs as they are finished, after the `done` ones of an earlier session.

    In a terminal a bar; elsewhere a line now and then. Processes that failed have a line in any case. With `shown`
    false, silent.
    """

    def __init__(self, place: Path, *, done: int, shown: bool | None = None) -> None:
        note = [f"archbench: resuming {place}: {done} pairs are done"] if done else []
        outlook = TextColumn("{task.fields[outlook]}")
        super().__init__(shown, note, TextColumn("pairs"), TimeElapsedColumn(), outlook)
        self._said_at = time.monotonic()
        self._pairs = self._bar.add_task("pairs", total=None, outlook="")

    def show(self, event: PairDone) -> None:
        ratio = event.pair.log_ratio()
        said = short_id(event.cell_id) + (f" {change(ratio)}" if ratio is not None else " failed")
        outlook = f"{event.cells_open} open, ETA {duration(event.seconds_left)}" if event.cells_open else ""
        total = event.pairs_done + event.pairs_left
        self._bar.update(self._pairs, completed=event.pairs_done, total=total, description=said, outlook=outlook)
        if not self._live and time.monotonic() - self._said_at >= LINES_EVERY_S:
            self._said_at = time.monotonic()
            self._say(f"[{event.pairs_done}/{total} pairs] {said}" + (f" · {outlook}" if outlook else ""))
        if (failure := event.pair.failure()) is not None:
            index, how = failure
            rows = event.pair.rows
            side = ("base", "head")[index] if len({row.cell_id for row in rows}) == 1 else f"cell {index + 1}"
            self._say(f"{short_id(rows[index].cell_id)} ({side}): {how}")


class PhaseLine:
    """What is being done, on one line of a terminal's stderr that goes away in the end; elsewhere nothing."""

    def __init__(self, label: str, *, shown: bool | None = None) -> None:
        self._label = label
        self._shown = shown is not False and sys.stderr.isatty()

    def __enter__(self) -> PhaseLine:
        return self

    def show(self, phase: str) -> None:
        """Put another phase in the place of the last."""
        if self._shown:
            print(f"\r\x1b[K{self._label}: {phase}", end="", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def describe(record: Record) -> str:
    """One line on a finished cell: its figures in ms and img/s and its verdict, or why it has none."""
    name = short_id(record.cell_id)
    if record.status != "ok":
        return f"{name}: {record.failure}"
    parts = []
    if record.latency_median_s is not None:
        parts.append(f"{figure(record.latency_median_s, MS)} ms")
    if record.throughput_img_s is not None:
        parts.append(f"{figure(record.throughput_img_s, IMAGES)} img/s")
    if record.verdict != "ok":
        codes = [code for code in record.reasons if explain(code).effect in ("suspect", "invalid")]
        parts.append(f"{record.verdict}: {', '.join(codes)}")
    return f"{name}: {' · '.join(parts) or record.status}"
