"""Live progress of a run on stderr: what is done, what is being measured, how long it will take."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from archbench.model.cell import short_id
from archbench.model.messages import Calibrated, CellFinished, CellStarted, Event, PhaseStarted
from archbench.model.reasons import explain
from archbench.model.record import Record
from archbench.model.units import MS

# A few long compilations among short cells: the remaining time is averaged over many cells, not the last ones.
SPEED_WINDOW_S = 1800.0


class RunProgress:
    """Shows the messages of a run. Silent where stderr is not a terminal, but for rows that failed."""

    def __init__(self, total: int, done: int) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            speed_estimate_period=SPEED_WINDOW_S,
            transient=True,
        )
        self._cells = self._bar.add_task("cells", total=total, completed=done)
        self._cell = ""

    def __enter__(self) -> RunProgress:
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
                self._bar.advance(self._cells)
                if self._console.is_terminal or event.record.status not in ("ok", "skipped"):
                    self._console.print(describe(event.record), markup=False, soft_wrap=True)


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
