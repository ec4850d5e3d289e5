"""What a suite can ask for: each metric one object of `METRICS`, in the order in which a cell fills them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from archbench.measure.metrics import compiling, correctness, footprint, timing
from archbench.model import axes
from archbench.model.record import columns_of

if TYPE_CHECKING:
    from archbench.measure.cell_run import CellRun


def _nothing(run: CellRun) -> None:
    return None


class Metric(Struct, frozen=True, kw_only=True):
    """One thing that a suite can ask for by name.

    Its columns are those of `archbench.model.record` that bear its name. Where it is not asked for they are null as
    `not_requested`; where it is, one of the functions fills each or says why it is null.
    """

    name: axes.Metric
    timed: bool = False
    """Timed: filled under the watch, where what fails is the cell's failure. Else filled afterwards, and what fails
    costs no more than its columns."""
    prepare: Callable[[CellRun], None] = _nothing
    """What it does before anything is built."""
    fill: Callable[[CellRun], None] = _nothing
    """What it does with a network that is warm."""
    cannot: Callable[[CellRun], str | None] = _nothing
    """The reason code of all its columns on a cell for which it is not defined; `None` where it is."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a row that it fills."""
        return columns_of(self.name)


METRICS: tuple[Metric, ...] = (
    Metric(name="static", prepare=footprint.count),
    Metric(name="latency", timed=True, fill=timing.time_latency),
    Metric(name="throughput", timed=True, fill=timing.time_throughput),
    Metric(name="energy", fill=timing.fill_energy),
    Metric(name="memory", prepare=footprint.predict_in_company, fill=footprint.fill_memory),
    Metric(name="numerics", cannot=correctness.cannot_judge_numerics, fill=correctness.fill_numerics),
    Metric(name="accuracy", cannot=correctness.cannot_judge_accuracy, fill=correctness.fill_accuracy),
    # Last of all: what they do is not to be felt by any other figure.
    Metric(name="profile", fill=timing.fill_profile),
    Metric(name="compile", prepare=compiling.prepare, cannot=compiling.cannot, fill=compiling.fill),
)
