"""Verdicts of two sides: the ladder that all of them go down, and those of two stored runs. Pure.

What forbids a verdict, what was shown, what was not reached, what is the same, and the rest: in that order, of runs
here, and of gates and duels in `judge_pairs`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from archbench.model.comparison import CLOCK_TOLERANCE, LEAST_EFFECT, CellVerdict, Floor, Whole, Why
from archbench.model.reasons import REASONS
from archbench.model.units import change, excess, from_on, percent
from archbench.stats.moderation import pooled
from archbench.stats.paired import EQUIVALENCE_MARGIN, VISIBLE_EFFECT, LogRatio, holm, paired

LEVEL = 0.01
"""Chance of calling any cell of two runs slower that is not, over all cells of a comparison; and of faster."""
WHOLE_CELLS = 5
"""Fewest cells that are judged together: of fewer, nobody knows how far they lie apart by chance."""


def remedy_of(codes: Sequence[str]) -> str:
    """What can be done about the first of these that anything can be done about."""
    return next((REASONS[code].remedy for code in codes if REASONS[code].remedy), "measure it again")


def verdict_of(
    by: str,
    clock: float | None,
    *,
    shown: tuple[CellVerdict, Why] | None,
    pending: Why | None,
    equivalent: bool,
    otherwise: Why,
    instead: str = "",
) -> tuple[CellVerdict, Why]:
    """The ladder. `clock`: the head's SM clock over the base's, less 1; `instead`: what to do besides locking it."""
    if clock is not None and abs(clock) > CLOCK_TOLERANCE:
        off = f"{by}, but the head's SM clock was {change(clock)} off the base's: lock the clocks{instead}"
        return "undecided", Why("clocks_differ", off)
    if shown is not None:
        return shown
    if pending is not None:
        return "undecided", pending
    if equivalent:
        return "same", Why("equivalent", f"{by}; the 90 % interval lies within ±{percent(EQUIVALENCE_MARGIN)}")
    return "undecided", otherwise


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


def judge_runs(
    estimates: Sequence[LogRatio], clocks: Sequence[float | None], floor: Floor | None
) -> tuple[Judged, ...]:
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
    shown = dict(zip(tested, zip(differs, exceeds, strict=True), strict=True))
    return tuple(
        _judged_run(one, clock, floor, shown.get(index), level)
        for index, (one, clock) in enumerate(zip(estimates, clocks, strict=True))
    )


def _corrected(estimates: Sequence[LogRatio], than: float) -> list[float]:
    """Each estimate's p in the direction of its median, after Holm's correction within that direction."""
    if math.isinf(than):
        return [1.0] * len(estimates)
    slower = holm([one.p_slower(than) or 0.0 for one in estimates])
    faster = holm([one.p_faster(-than) or 0.0 for one in estimates])
    return [float(up if one.median > 0 else down) for one, up, down in zip(estimates, slower, faster, strict=True)]


def _judged_run(
    estimate: LogRatio, clock: float | None, floor: Floor | None, shown: tuple[float, float] | None, level: float
) -> Judged:
    """`shown`: p that it does not differ and that it does not exceed the floor, corrected; `None` where untested."""
    ratio = math.exp(estimate.median)
    ends = estimate.interval()
    spread = floor.spread if floor else 0.0
    scatter = estimate.detectable(level)
    noisy = scatter is not None and scatter > VISIBLE_EFFECT
    own = max(LEAST_EFFECT, scatter if noisy and scatter is not None else 0.0)
    detectable = None if scatter is None else (1 + scatter) * (1 + spread) - 1
    verdict, why = _decided_run(estimate, clock, floor, shown, own, detectable)
    return Judged(
        verdict=verdict,
        why=why,
        ratio=ratio,
        # The interval is of the mean; one wild process can leave the median outside of it.
        ci_low=min(ends[0], ratio) if ends else None,
        ci_high=max(ends[1], ratio) if ends else None,
        detectable=detectable,
        p=shown[0] if shown else None,
        threshold=max(own, spread),
        noisy=noisy,
    )


def _decided_run(
    estimate: LogRatio,
    clock: float | None,
    floor: Floor | None,
    shown: tuple[float, float] | None,
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
    why = _ground(estimate, floor, *shown, own, detectable, by)
    if why.code == "shown" and clock is not None:
        # Time times clock: what a slower clock explains is not the code's, be the clocks within their tolerance.
        cycles = math.copysign(1.0, estimate.median) * (estimate.median + math.log1p(clock))
        if cycles < math.log1p(max(own, floor.spread if floor else 0.0)):
            told = change(math.expm1(estimate.median + math.log1p(clock)))
            why = Why("cycles", f"{by}, but {told} in cycles: the head's SM clock was {change(clock)} off the base's")
    direction: CellVerdict = "slower" if estimate.median > 0 else "faster"
    same = estimate.equivalent()
    return verdict_of(
        by,
        clock,
        shown=(direction, why) if why.code == "shown" and not same else None,
        pending=None,
        equivalent=same,
        otherwise=why,
        instead=", or let the sides take turns with `archbench gate`",
    )


def _ground(
    estimate: LogRatio, floor: Floor | None, differs: float, exceeds: float, own: float, detectable: float, by: str
) -> Why:
    """What a difference between two runs amounts to, or why it amounts to nothing."""
    if differs > LEVEL or estimate.mean * estimate.median <= 0:
        return Why(
            "not_shown",
            f"{by}, neither shown to differ nor to be the same: {estimate.count} processes a side could only have "
            f"shown {from_on(detectable)}; measure more rounds, or use `archbench gate`",
        )
    if abs(estimate.median) < math.log1p(own):
        return Why("small", f"{by}, certain, but below this cell's threshold of {excess(own)}")
    if floor is None:
        return Why(
            "no_floor",
            f"{by}, but nothing tells how far apart two runs of the same thing lie here: run both sides with "
            "`--rounds 5` or more, or `archbench gate --aa` once on this hardware",
        )
    known = f"the noise floor of {excess(floor.spread)} ({floor.origin})"
    if exceeds > LEVEL:
        return Why(
            "below_floor", f"{by}, not shown to exceed {known}; the baseline is stored, `archbench gate` sees less"
        )
    return Why("shown", f"{by}, beyond {known}; the baseline is stored")


def judge_whole(estimates: Sequence[LogRatio], floors: Sequence[Floor] = ()) -> Whole | None:
    """All cells together that more than one process measured on each side; `None` for fewer than `WHOLE_CELLS`.

    Student's t over the cells' mean log ratios: how far these lie apart is what chance does to a cell, be it the noise
    of its processes or a shift of its own from one session to the other. The mean must be shown at `LEVEL` to exceed
    `VISIBLE_EFFECT`, and what two single processes (or sessions, where `floors` know of them) differ by, over the root
    of the cells. A day that slows all cells down by more cannot be told from the code, as ever with a stored baseline.
    How often it errs and finds: benchmarks/simulated_stored.py.
    """
    known = [one for one in estimates if one.sd is not None]
    if len(known) < WHOLE_CELLS:
        return None
    scatter = pooled([(one.sd or 0.0) ** 2 / 2 for one in known], [one.freedom or 0.0 for one in known])
    apart = max([scatter.limit() if scatter else 0.0, *(math.log1p(floor.spread) for floor in floors)])
    margin = max(math.log1p(VISIBLE_EFFECT), apart / math.sqrt(len(known)))
    mean = paired([one.mean for one in known])
    p = mean.p_slower(margin) if mean.mean > 0 else mean.p_faster(-margin)
    ends = mean.interval()
    assert p is not None
    assert ends is not None
    shown = p <= LEVEL
    return Whole(
        cells=len(known),
        ratio=mean.ratio,
        ci_low=ends[0],
        ci_high=ends[1],
        p=p,
        margin=math.expm1(margin),
        verdict="undecided" if not shown else "slower" if mean.mean > 0 else "faster",
    )
