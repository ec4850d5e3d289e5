"""The verdict of one cell, from what its pairs (or its two groups of processes) say and what is known of the noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from archbench.model.comparison import LEAST_EFFECT, CellVerdict, Floor, Why
from archbench.report.units import change, percent
from archbench.stats.paired import EQUIVALENCE_MARGIN, LogRatio, holm

LEVEL = 0.01
"""Chance of calling any cell slower that is not, over all cells of a comparison; and of faster."""
VISIBLE = 0.03
"""A cell in which a slowdown of this size would go unseen is noisy, and judged by a threshold of its own."""
CLOCK_TOLERANCE = 0.01
"""SM clocks of the two sides may differ by this share: beyond, the time follows the clock and not the code."""


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
    one process measured. To be called so, the median must also differ by the cell's threshold and exceed the floor;
    without a floor no cell is called slower or faster.
    """
    tested = [index for index, one in enumerate(estimates) if one.error is not None]
    slower = dict(zip(tested, holm([estimates[index].p_slower() or 0.0 for index in tested]), strict=True))
    faster = dict(zip(tested, holm([estimates[index].p_faster() or 0.0 for index in tested]), strict=True))
    level = LEVEL / max(len(tested), 1)  # what Holm asks of the first cell
    return tuple(
        _judged(one, clock, floor, (slower if one.median > 0 else faster).get(index), level)
        for index, (one, clock) in enumerate(zip(estimates, clocks, strict=True))
    )


def _judged(estimate: LogRatio, clock: float | None, floor: Floor | None, p: float | None, level: float) -> Judged:
    ratio = math.exp(estimate.median)
    ends = estimate.interval()
    detectable = estimate.detectable(level)
    noisy = detectable is not None and detectable > VISIBLE
    own = max(LEAST_EFFECT, detectable if noisy and detectable is not None else 0.0)
    verdict, why = _decided(estimate, clock, floor, p, own, detectable)
    return Judged(
        verdict=verdict,
        why=why,
        ratio=ratio,
        # The interval is of the mean; one wild process can leave the median outside of it.
        ci_low=min(ends[0], ratio) if ends else None,
        ci_high=max(ends[1], ratio) if ends else None,
        detectable=detectable,
        p=None if p is None else float(p),
        threshold=max(own, floor.spread if floor else 0.0),
        noisy=noisy,
    )


def _decided(
    estimate: LogRatio, clock: float | None, floor: Floor | None, p: float | None, own: float, detectable: float | None
) -> tuple[CellVerdict, Why]:
    by = change(math.expm1(estimate.median))
    size = abs(estimate.median)
    if p is None or detectable is None:
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
    shown = p <= LEVEL and estimate.mean * estimate.median > 0
    if estimate.equivalent():
        return "same", Why("equivalent", f"{by}; the 90 % interval lies within ±{percent(EQUIVALENCE_MARGIN)}")
    if not shown:
        return "undecided", Why(
            "not_shown",
            f"{by}, neither shown to differ nor to be the same: {estimate.count} processes a side show a "
            f"slowdown of {percent(detectable)} or more; measure more rounds, or use `archbench gate`",
        )
    if size < math.log1p(own):
        return "undecided", Why("small", f"{by}, certain, but below this cell's threshold of {percent(own)}")
    if floor is None:
        return "undecided", Why(
            "no_floor",
            f"{by}, but nothing tells how far apart two runs of the same thing lie here: give the suite a `twin:`, "
            "or run `archbench gate --aa` once on this hardware",
        )
    if size < math.log1p(floor.spread):
        return "undecided", Why(
            "below_floor",
            f"{by}, within the noise floor of {percent(floor.spread)} ({floor.origin}): `archbench gate` sees less",
        )
    return "slower" if estimate.median > 0 else "faster", Why(
        "shown",
        f"{by}, beyond the noise floor of {percent(floor.spread)} ({floor.origin}); the baseline is stored",
    )
