"""How far to trust a run's figures, in words that are the same wherever they stand."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import fmean, median

from msgspec import Struct

from archbench.choose.cell_summary import CellSummary
from archbench.choose.margins import Estimate
from archbench.model.units import HUNDREDFOLD, counted, excess
from archbench.results.spread import Spread

WIDER = 3.0
"""Times the median interval from which a cell's own is an exception, named as such: one cell that a neighbour sat on
should not make the statement on all others useless."""


class Trust(Struct, frozen=True, kw_only=True):
    """What the differences between a run's figures mean."""

    statement: str
    """A sentence or two: which differences are differences, and where that is known from."""
    apart: float | None = None
    """Two networks whose times differ by more than this, as a ratio less 1, differ; `None` where it is not known. Of
    pairs of equal networks one in twenty lies further apart."""


def trust_of(cells: Iterable[CellSummary], spread: Spread) -> Trust:
    """What is to be said of a run with these cells and this spread, earlier runs included.

    The distance beyond which two equal networks lie in one pair of twenty: sqrt(2) times the root mean square of the
    cells' own half intervals, in logs. It holds where some scatter more than others: of mixtures of normals and of
    Student's t, the 97.5 % quantile is near 1.96 standard deviations, be the tails as they may.
    """
    usable = [one for one in cells if one.is_usable]
    timed = [one for one in map(_timed, usable) if one is not None]
    if not timed:
        return Trust(statement="No time was measured." if usable else "No figure is fit to be compared.")
    halves = [one.half for one in timed if one.half]
    if (spread.latency or spread.throughput) is None or not halves:
        return Trust(
            statement="Every cell was measured by one process: how far processes differ is not known, nor which "
            "differences are real; ± is the interval within the process (`--rounds 3` tells)."
        )
    usual = median(halves)
    within = [half for half in halves if half <= WIDER * usual]
    apart = math.expm1(math.sqrt(2 * fmean(half * half for half in within)))
    wider = len(halves) - len(within)
    return Trust(statement=f"{_meaning(len(timed), apart, wider)} {_basis(spread)}", apart=apart)


def _timed(one: CellSummary) -> Estimate | None:
    """By latency, else by throughput; `None` where it has neither."""
    return next((found for measure in ("latency", "throughput") if (found := one.timed(measure)).value), None)


def _meaning(cells: int, apart: float, wider: int) -> str:
    if 1 + apart > HUNDREDFOLD:
        return "The machine was too restless to tell any two networks apart."
    if cells == 1:
        return f"Measured again, the one cell would come out up to {excess(apart)} apart."
    but = f", but for {counted(wider, 'cell')} whose own ± is much wider" if wider else ""
    return f"Two networks that differ by more than {excess(apart)} differ{but}; nearer ones may be equal."


def _basis(spread: Spread) -> str:
    groups = "one network" if spread.groups == 1 else f"{spread.groups:,} groups of cells"
    here = f"{groups} that more than one process measured" if spread.groups else ""
    before = f"{counted(spread.earlier, 'earlier run')} on this hardware" if spread.earlier else ""
    if not here:
        return f"Every cell was measured by one process; how far processes differ is known from {before}."
    return f"Known from {' and '.join(filter(None, (here, before)))}."
