"""Live progress of a gate or a duel on stderr: pairs done, cells still open, how long it will take."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from archbench.model.cell import short_id
from archbench.model.pair import Pair
from archbench.model.units import change, duration


class PairProgress:
    """Shows pairs as they are finished. Silent where stderr is not a terminal, but for processes that failed."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
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
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, cell_id: str, pair: Pair, *, done: int, left: int, cells_open: int, seconds_left: float) -> None:
        """Take in a finished pair. `left`: pairs still to come as far as is known."""
        ratio = pair.log_ratio()
        said = short_id(cell_id) + (f" {change(ratio)}" if ratio is not None else " failed")
        outlook = f"{cells_open} open, ETA {duration(seconds_left)}" if cells_open else ""
        self._bar.update(self._pairs, completed=done, total=done + left, description=said, outlook=outlook)
        for index in pair.failed:
            row = pair.rows[index]
            where = f" in {row.error_phase}" if row.error_phase else ""
            side = ("base", "head")[index] if len(pair.rows) == 2 else f"cell {index + 1}"
            what = f"{short_id(cell_id)} ({side}): {row.status}{where}: {row.error_message or 'no message'}"
            self._console.print(what, markup=False, soft_wrap=True)
