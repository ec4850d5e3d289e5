"""Live progress of a run in a terminal or a notebook: what is done, what is being measured, how long it will take."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from archbench.model.cell import short_id
from archbench.model.messages import Calibrated, CellFinished, CellStarted, Event, PhaseStarted
from archbench.model.pair import PairDone
from archbench.model.reasons import explain
from archbench.model.record import Record
from archbench.model.units import MS, change, duration
from archbench.suite.duration import Countdown, Prediction


class _TimeLeft(ProgressColumn):
    """The time until the report, going down between cells as a clock does."""

    def __init__(self, countdown: Countdown) -> None:
        super().__init__()
        self._countdown = countdown
        self._ends = time.monotonic() + countdown.left_s

    def finished(self, record: Record) -> None:
        """One row more."""
        self._countdown.finished(record)
        self._ends = time.monotonic() + self._countdown.left_s

    def render(self, task: Task) -> Text:
        """What rich asks for."""
        return Text(str(timedelta(seconds=max(0, round(self._ends - time.monotonic())))), style="progress.remaining")


class RunProgress:
    """Shows the messages of a run of `total` cells, of which some are `left` and take about as long as `expected`.

    Silent where stderr is not a terminal and there is no notebook, but for rows that failed; with `shown` false, silent
    altogether; with `shown` true, a line for every row in any case.
    """

    def __init__(self, run: Path, expected: Prediction, *, total: int, left: int, shown: bool | None = None) -> None:
        self._console = Console(stderr=True, highlight=False, quiet=shown is False)
        # In a notebook rich draws a bar by ipywidgets alone; where they are missing, there are lines without a bar.
        live = self._console.is_terminal or (self._console.is_jupyter and find_spec("ipywidgets") is not None)
        self._verbose = shown or self._console.is_terminal or self._console.is_jupyter
        self._note = _note(run, total, left)
        self._left = _TimeLeft(Countdown(expected))
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            self._left,
            console=self._console,
            disable=not live or not left,
            transient=True,
        )
        self._cells = self._bar.add_task("cells", total=total, completed=total - left)
        self._cell = ""

    def __enter__(self) -> RunProgress:
        if self._note:
            self._say(self._note)
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, event: Event) -> None:
        """Take in what happens."""
        match event:
            case Calibrated():
                self._bar.update(self._cells, description="calibrated")
            case CellStarted():
                self._cell = short_id(event.cell_id)
                self._bar.update(self._cells, description=self._cell)
            case PhaseStarted():
                self._bar.update(self._cells, description=f"{self._cell} · {event.phase}")
            case CellFinished():
                self._left.finished(event.record)
                self._bar.advance(self._cells)
                if self._verbose or event.record.status not in ("ok", "skipped"):
                    self._say(describe(event.record))

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)


def _note(run: Path, total: int, left: int) -> str:
    """What there is to say before the first cell of a run that was begun before."""
    if total and not left:
        return f"archbench: {run} is complete; --fresh measures anew"
    return f"archbench: resuming {run}: {total - left} of {total} cells are done" if left < total else ""


class PairProgress:
    """Shows pairs as they are finished, after the `done` ones of an earlier session.

    Silent where stderr is not a terminal, but for processes that failed; with `shown` false, silent altogether.
    """

    def __init__(self, place: Path, *, done: int, shown: bool | None = None) -> None:
        self._console = Console(stderr=True, highlight=False, quiet=shown is False)
        self._note = f"archbench: resuming {place}: {done} pairs are done" if done else ""
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("pairs"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[outlook]}"),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._pairs = self._bar.add_task("pairs", total=None, outlook="")

    def __enter__(self) -> PairProgress:
        if self._note:
            self._console.print(self._note, markup=False, soft_wrap=True)
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, told: PairDone) -> None:
        """Take in a finished pair."""
        ratio = told.pair.log_ratio()
        said = short_id(told.cell_id) + (f" {change(ratio)}" if ratio is not None else " failed")
        outlook = f"{told.cells_open} open, ETA {duration(told.seconds_left)}" if told.cells_open else ""
        total = told.pairs_done + told.pairs_left
        self._bar.update(self._pairs, completed=told.pairs_done, total=total, description=said, outlook=outlook)
        if (failure := told.pair.failure()) is not None:
            index, how = failure
            rows = told.pair.rows
            side = ("base", "head")[index] if len({row.cell_id for row in rows}) == 1 else f"cell {index + 1}"
            self._console.print(f"{short_id(rows[index].cell_id)} ({side}): {how}", markup=False, soft_wrap=True)


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
    """One line on a finished cell."""
    name = short_id(record.cell_id)
    if record.status != "ok":
        where = f" in {record.error_phase}" if record.error_phase else ""
        return f"{name}: {record.status}{where}: {record.error_message or 'no message'}"
    parts = []
    if record.latency_median_s is not None:
        parts.append(f"{record.latency_median_s / MS.size:.4g} {MS.symbol}")
    if record.throughput_img_s is not None:
        parts.append(f"{record.throughput_img_s:.4g} img/s")
    if record.verdict != "ok":
        codes = [code for code in record.reasons if explain(code).effect in ("suspect", "invalid")]
        parts.append(f"{record.verdict}: {', '.join(codes)}")
    return f"{name}: {' · '.join(parts) or record.status}"
