"""The verdict of one cell, from what its pairs (or its two groups of processes) say and what is known of the noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from archbench.model.comparison import CLOCK_TOLERANCE, LEAST_EFFECT, CellVerdict, Floor, Why
from archbench.model.units import change, percent
from archbench.stats.paired import EQUIVALENCE_MARGIN, VISIBLE_EFFECT, LogRatio, holm

LEVEL = 0.01
"""Chance of calling any cell slower that is not, over all cells of a comparison; and of faster."""


class Judged(Struct, frozen=True, kw_only=True):
    """A cell's verdict with the figures it rests on; see `CellComparison`, which takes them over."""

    verdict: CellVerdict
    why: Why
    ratio: float
    ci_low: float | None
    ci_high: float | None
    detectable: float | None
    p: float | None
    threshold: float
    noisy: bool


def judge(estimates: Sequence[LogRatio], clocks: Sequence[float | None], floor: Floor | None) -> tuple[Judged, ...]:
    """Judge all cells of a stored comparison together; one answer a cell, in order.

    `estimates`: log(head / base) of each cell's processes; `clocks`: the SM clock's change as a share, `None` where no
    clock is known. Slower and faster are each tested one-sided, with Holm's correction over all cells that more than
    one process measured. What is tested is that the difference exceeds the floor, not merely 0: a shift that every
    cell of the session shares is not shown to be the code's. Besides, the median must differ by the cell's threshold.
    Without a floor no cell is called slower or faster.
    """
    tested = [index for index, one in enumerate(estimates) if one.error is not None]
    level = LEVEL / max(len(tested), 1)  # what Holm asks of the first cell
    differs = _corrected([estimates[index] for index in tested], 0.0)
    exceeds = _corrected([estimates[index] for index in tested], math.log1p(floor.spread) if floor else math.inf)
    shown = {index: _Shown(*both) for index, *both in zip(tested, differs, exceeds, strict=True)}
    return tuple(
        _judged(one, clock, floor, shown.get(index), level)
        for index, (one, clock) in enumerate(zip(estimates, clocks, strict=True))
    )


class _Shown(Struct, frozen=True):
    """p of a cell in the direction seen, corrected for all cells."""

    differs: float
    """That it does not differ."""
    exceeds: float
    """That it does not exceed the floor; 1 where none is known."""


def _corrected(estimates: Sequence[LogRatio], than: float) -> list[float]:
    """Each estimate's p in the direction of its median, after Holm's correction within that direction."""
    if math.isinf(than):
        return [1.0] * len(estimates)
    slower = holm([one.p_slower(than) or 0.0 for one in estimates])
    faster = holm([one.p_faster(-than) or 0.0 for one in estimates])
    return [float(up if one.median > 0 else down) for one, up, down in zip(estimates, slower, faster, strict=True)]


def _judged(estimate: LogRatio, clock: float | None, floor: Floor | None, shown: _Shown | None, level: float) -> Judged:
    ratio = math.exp(estimate.median)
    ends = estimate.interval()
    spread = floor.spread if floor else 0.0
    scatter = estimate.detectable(level)
    noisy = scatter is not None and scatter > VISIBLE_EFFECT
    own = max(LEAST_EFFECT, scatter if noisy and scatter is not None else 0.0)
    detectable = None if scatter is None else (1 + scatter) * (1 + spread) - 1
    verdict, why = _decided(estimate, clock, floor, shown, own, detectable)
    return Judged(
        verdict=verdict,
        why=why,
        ratio=ratio,
        # The interval is of the mean; one wild process can leave the median outside of it.
        ci_low=min(ends[0], ratio) if ends else None,
        ci_high=max(ends[1], ratio) if ends else None,
        detectable=detectable,
        p=shown.differs if shown else None,
        threshold=max(own, spread),
        noisy=noisy,
    )


def _decided(
    estimate: LogRatio,
    clock: float | None,
    floor: Floor | None,
    shown: _Shown | None,
    own: float,
    detectable: float | None,
) -> tuple[CellVerdict, Why]:
    by = change(math.expm1(estimate.median))
    if shown is None or detectable is None:
        return "undecided", Why(
            "one_process",
            f"{by}, but one process measured a side, and processes differ: run both sides with `--rounds 5` "
            "or more, or let them take turns with `archbench gate`",
        )
    if clock is not None and abs(clock) > CLOCK_TOLERANCE:
        return "undecided", Why(
            "clocks_differ",
            f"{by}, but the head's SM clock was {change(clock)} off the base's: lock the clocks, or "
            "let the sides take turns with `archbench gate`",
        )
    if estimate.equivalent():
        return "same", Why("equivalent", f"{by}; the 90 % interval lies within ±{percent(EQUIVALENCE_MARGIN)}")
    if shown.differs > LEVEL or estimate.mean * estimate.median <= 0:
        return "undecided", Why(
            "not_shown",
            f"{by}, neither shown to differ nor to be the same: {estimate.count} processes a side could only have "
            f"shown {percent(detectable)} or more; measure more rounds, or use `archbench gate`",
        )
    if abs(estimate.median) < math.log1p(own):
        return "undecided", Why("small", f"{by}, certain, but below this cell's threshold of {percent(own)}")
    if floor is None:
        return "undecided", Why(
            "no_floor",
            f"{by}, but nothing tells how far apart two runs of the same thing lie here: give the suite a `twin:`, "
            "or run `archbench gate --aa` once on this hardware",
        )
    known = f"the noise floor of {percent(floor.spread)} ({floor.origin})"
    if shown.exceeds > LEVEL:
        return "undecided", Why(
            "below_floor", f"{by}, not shown to exceed {known}; the baseline is stored, `archbench gate` sees less"
        )
    return "slower" if estimate.median > 0 else "faster", Why("shown", f"{by}, beyond {known}; the baseline is stored")
