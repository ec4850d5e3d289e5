"""Verdicts of two sides: the ladder that all of them go down, and its figures. Pure.

What forbids a verdict, what was shown, what was not reached, what is the same, and the rest: in that order, of two
stored runs; of a gate's cells, whose processes took turns; and of a duel's, each against its first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from msgspec.structs import replace

from archbench.comparison.schedule import Leaning, Leanings, PairLog
from archbench.model.comparison import (
    CLOCK_TOLERANCE,
    LEAST_EFFECT,
    CellComparison,
    CellVerdict,
    Figures,
    Floor,
    ProcessPair,
    Whole,
    Why,
)
from archbench.model.reasons import REASONS, having
from archbench.model.units import change, excess, from_on, percent
from archbench.stats.intervals import median_interval
from archbench.stats.paired import EQUIVALENCE_MARGIN, VISIBLE_EFFECT, LogRatio, holm, paired
from archbench.stats.twostage import CONFIRM_LEVEL, CONFIRM_PAIRS, SCREEN_PAIRS, Confirmation, confirm, power, trimmed
from archbench.stats.variance import Pool, pooled

LEVEL = 0.01
"""Chance of calling any cell of two runs slower that is not, over all cells of a comparison; and of faster."""
WHOLE_CELLS = 5
"""Fewest cells that are judged together: of fewer, nobody knows how far they lie apart by chance."""
DUEL_LEVEL = 0.025
"""Of each one-sided test: 5 % that a cell is called faster or slower which is neither, over all rivals together."""
FEWEST_CONFIRMING = 6
"""Fresh pairs that may decide a cell when time ran out before all of them were played: trimming takes one at each
end, and four tell."""


def remedy_of(codes: Sequence[str]) -> str:
    """What can be done about the first of these that anything can be done about."""
    return next((REASONS[code].remedy for code in codes if REASONS[code].remedy), "measure it again")


def verdict_of(
    by: str,
    clock: float | None,
    *,
    shown: tuple[CellVerdict, Why] | None,
    pending: Why | None = None,
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


def judge_runs(
    cells: Sequence[CellComparison],
    estimates: Sequence[LogRatio],
    clocks: Sequence[float | None],
    floor: Floor | None,
) -> tuple[CellComparison, ...]:
    """Judge all cells of a stored comparison together; the same cells, in order, with their verdicts and figures.

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
        _judged_run(cell, one, clock, floor, shown.get(index), level)
        for index, (cell, one, clock) in enumerate(zip(cells, estimates, clocks, strict=True))
    )


def _corrected(estimates: Sequence[LogRatio], than: float) -> list[float]:
    """Each estimate's p in the direction of its median, after Holm's correction within that direction."""
    if math.isinf(than):
        return [1.0] * len(estimates)
    slower = holm([one.p_slower(than) or 0.0 for one in estimates])
    faster = holm([one.p_faster(-than) or 0.0 for one in estimates])
    return [float(up if one.median > 0 else down) for one, up, down in zip(estimates, slower, faster, strict=True)]


def _judged_run(
    cell: CellComparison,
    estimate: LogRatio,
    clock: float | None,
    floor: Floor | None,
    shown: tuple[float, float] | None,
    level: float,
) -> CellComparison:
    """`shown`: p that it does not differ and that it does not exceed the floor, corrected; `None` where untested."""
    ratio = math.exp(estimate.median)
    ends = estimate.interval()
    spread = floor.spread if floor else 0.0
    scatter = estimate.detectable(level)
    noisy = scatter is not None and scatter > VISIBLE_EFFECT
    own = max(LEAST_EFFECT, scatter if noisy and scatter is not None else 0.0)
    detectable = None if scatter is None else (1 + scatter) * (1 + spread) - 1
    verdict, why = _decided_run(estimate, clock, floor, shown, own, detectable)
    return replace(
        cell,
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
    return Whole(
        cells=len(known),
        ratio=mean.ratio,
        ci_low=ends[0],
        ci_high=ends[1],
        p=p,
        margin=math.expm1(margin),
        verdict="undecided" if p > LEVEL else "slower" if mean.mean > 0 else "faster",
    )


def judge_pairs(logs: Sequence[PairLog]) -> tuple[CellComparison, ...]:
    """Judge all cells of a gate together, one answer a cell and in their order; what was not reached is undecided."""
    leans = Leanings({log.key: log for log in logs})
    answers = {**_confirmed(logs, leans, "slower"), **_confirmed(logs, leans, "faster")}
    return tuple(_judged(log, leans.of[log.key], answers.get(log.key), leans.pool) for log in logs)


def _confirmed(logs: Sequence[PairLog], leans: Leanings, direction: Leaning) -> dict[str, Confirmation]:
    """The answers of the flagged cells that have fresh pairs enough; Holm's correction is over all flagged ones."""
    sign = 1.0 if direction == "slower" else -1.0
    flagged = [log for log in logs if leans.of[log.key] == direction]
    pairs = [[sign * ratio for ratio in log.ratios("confirm")] for log in flagged]
    enough = [len(pair) >= FEWEST_CONFIRMING for pair in pairs]
    # A cell whose fresh pairs were not reached stands among the others with one pair, whose p is 1.
    answers = confirm(
        [pair if fit else [0.0] for pair, fit in zip(pairs, enough, strict=True)],
        effects=[log.threshold.confirm for log in flagged],
        pool=leans.pool,
    )
    return {log.key: answer for log, answer, fit in zip(flagged, answers, enough, strict=True) if fit}


def _judged(log: PairLog, lean: Leaning, answer: Confirmation | None, pool: Pool | None) -> CellComparison:
    ratios = log.ratios("confirm") if answer else log.ratios("screen")
    estimate = trimmed(ratios).moderated(pool, cautious=answer is not None) if ratios else None
    verdict, why = _decided(log, lean, answer, estimate)
    if log.given_up and verdict not in ("slower", "faster"):  # what was shown before it began to fail stays shown
        verdict, why = "invalid", unfit(log)
    # The chance that a slowdown of 3 % would have been found, by what the cell's pairs scatter by.
    every, own = log.ratios("confirm") or log.ratios("screen"), log.threshold
    scatter = trimmed(every).moderated(pool).scatter if len(every) > 1 else None
    return replace(
        _compared(log, 1, verdict, why, estimate),
        detectable=estimate.detectable(CONFIRM_LEVEL) if estimate else None,
        p=answer.p_adjusted if answer else None,
        power=None if scatter is None else power(scatter, effect=own.confirm, screened=own.screen),
        pairs=len(ratios),
        threshold=math.expm1(own.confirm),
        noisy=own.noisy,
    )


def _compared(log: PairLog, side: int, verdict: CellVerdict, why: Why, estimate: LogRatio | None) -> CellComparison:
    """What one process of each pair measured, beside the first one."""
    cell, ends = log.cells[side % len(log.cells)], estimate.interval() if estimate else None
    return CellComparison(
        cell_id=cell.cell_id,
        architecture=cell.network.name,
        variant=cell.network.label,
        verdict=verdict,
        why=why,
        base=_figures(log.everything, 0),
        head=_figures(log.everything, side),
        ratio=estimate.ratio if estimate else None,
        ci_low=ends[0] if ends else None,
        ci_high=ends[1] if ends else None,
    )


def _decided(
    log: PairLog, lean: Leaning, answer: Confirmation | None, estimate: LogRatio | None
) -> tuple[CellVerdict, Why]:
    if estimate is None and log.wasted:
        return "invalid", unfit(log)
    if estimate is None:
        return "undecided", Why("out_of_time", "the time ran out before its first pair: give more with --max-time")
    by = change(math.expm1(estimate.mean))
    least = percent(math.expm1(log.threshold.confirm))
    detectable = estimate.detectable(CONFIRM_LEVEL)
    could = (
        f"{estimate.count} pairs could only have shown {percent(detectable)} or more"
        if detectable
        else "one pair shows nothing"
    )
    shown: tuple[CellVerdict, Why] | None = None
    pending = None
    if answer is not None and answer.regressed:
        noisy = f", its own threshold of {least}" if log.threshold.noisy else ""
        ground = f"{by} over {estimate.count} fresh pairs (p = {answer.p_adjusted:.1g}){noisy}"
        shown = ("slower" if lean == "slower" else "faster", Why("shown", ground))
    elif lean in ("slower", "faster") and answer is None:
        played = len(log.ratios("confirm"))
        pending = Why(
            "out_of_time",
            f"{by} in the screen, and {played} of {CONFIRM_PAIRS} fresh pairs were played: give more with --max-time",
        )
    if answer is not None and answer.p_adjusted <= CONFIRM_LEVEL:
        why = Why("small", f"{by}, certain, but below this cell's threshold of {least}")
    elif answer is not None:
        why = Why("not_confirmed", f"flagged as {lean}, but {by} over fresh pairs, which does not show it: {could}")
    elif estimate.count < SCREEN_PAIRS:
        why = Why("out_of_time", f"{by} over {estimate.count} of {SCREEN_PAIRS} pairs: give more with --max-time")
    else:
        why = Why("not_shown", f"{by}, neither shown to differ nor to be the same: {could}")
    clocks = [(pair.rows[0].sm_clock_mhz, pair.rows[1].sm_clock_mhz) for pair in log.everything]
    changes = [theirs / ours - 1 for ours, theirs in clocks if ours and theirs]
    clock = median(changes) if changes else None
    return verdict_of(by, clock, shown=shown, pending=pending, equivalent=estimate.equivalent(), otherwise=why)


def unfit(log: PairLog, names: Sequence[str] = ("the base", "the head")) -> Why:
    """Why the pairs give no time; `names` are those of a pair's processes."""
    for pair in reversed(log.everything):
        if (failure := pair.failure()) is not None:
            return Why("failed", f"{names[failure[0]]} ended with {failure[1]}")
    rows = [row for pair in log.everything if not pair.fit for row in pair.rows]
    codes = sorted(having("invalid", [code for row in rows for code in row.reasons]))
    played = len(log.everything)
    told = "no pair is fit" if log.wasted == played else f"{log.wasted} of {played} pairs are not fit"
    if not codes:
        return Why("invalid_rows", f"{told} to be used: the device's monitor rejected every turn of it")
    return Why("invalid_rows", f"{told} to be used ({', '.join(codes)}): {remedy_of(codes)}")


def _figures(pairs: Sequence[ProcessPair], side: int) -> Figures:
    rows = [pair.rows[side] for pair in pairs]
    times = tuple(time for pair in pairs if pair.fit and (time := pair.rows[side].latency_median_s) is not None)
    interval = median_interval(times) if times else None
    clocks = [row.sm_clock_mhz for row in rows if row.sm_clock_mhz is not None]
    peaks = [row.peak_reserved_bytes or row.peak_allocated_bytes for row in rows]
    return Figures(
        latency_s=interval.median if interval else None,
        latency_low_s=interval.low if interval else None,
        latency_high_s=interval.high if interval else None,
        peak_bytes=next((peak for peak in peaks if peak is not None), None),
        params=next((row.params for row in rows if row.params is not None), None),
        macs=next((row.macs for row in rows if row.macs is not None), None),
        sm_clock_mhz=median(clocks) if clocks else None,
        processes=len(times),
        process_times_s=times,
    )


def judge_rivals(log: PairLog) -> tuple[CellComparison, ...]:
    """Each cell of a duel against the first one, judged together: Holm's correction is over all of them."""
    estimates = [trimmed(log.ratios("screen", side)) for side in range(1, len(log.cells))]
    ps = [one.p_slower() if one.mean > 0 else one.p_faster() for one in estimates]
    found = []
    adjusted = holm([1.0 if p is None else p for p in ps]).tolist()
    for side, (estimate, p) in enumerate(zip(estimates, adjusted, strict=True), start=1):
        by = change(math.expm1(estimate.mean))
        direction: CellVerdict = "slower" if estimate.mean > 0 else "faster"
        ground = Why("shown", f"{by} over {estimate.count} pairs (p = {p:.1g})")
        verdict, why = verdict_of(
            by,
            None,  # at which clock a GPU runs a network is the network's own
            shown=(direction, ground) if p <= DUEL_LEVEL else None,
            equivalent=estimate.equivalent(),
            otherwise=Why("not_shown", f"{by}, neither shown to differ nor to be the same: give more --pairs"),
        )
        told = _compared(log, side, verdict, why, estimate)
        found.append(replace(told, p=p, pairs=estimate.count, threshold=0.0))
    return tuple(found)
