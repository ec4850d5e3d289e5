"""Verdicts of processes that took turns: a gate's cells on two sides, a duel's against its first. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

from msgspec.structs import replace

from archbench.comparison.judge import remedy_of, verdict_of
from archbench.comparison.noise import Threshold
from archbench.comparison.pair_store import PairLog
from archbench.comparison.schedule import Leaning, Leanings
from archbench.model.comparison import CellComparison, CellVerdict, Figures, ProcessPair, Why
from archbench.model.reasons import having
from archbench.model.units import change, percent
from archbench.stats.intervals import median_interval
from archbench.stats.moderation import Pool
from archbench.stats.paired import LogRatio, holm
from archbench.stats.twostage import CONFIRM_LEVEL, CONFIRM_PAIRS, SCREEN_PAIRS, Confirmation, confirm, power, trimmed

DUEL_LEVEL = 0.025
"""Of each one-sided test: 5 % that a cell is called faster or slower which is neither, over all rivals together."""
FEWEST_CONFIRMING = 6
"""Fresh pairs that may decide a cell when time ran out before all of them were played: trimming takes one at each
end, and four tell."""


def judge_pairs(logs: Sequence[PairLog], thresholds: Mapping[str, Threshold]) -> tuple[CellComparison, ...]:
    """Judge all cells together, one answer a cell and in their order; what was not reached is undecided."""
    leans = Leanings({log.key: log for log in logs}, thresholds)
    answers = {**_confirmed(logs, leans, thresholds, "slower"), **_confirmed(logs, leans, thresholds, "faster")}
    return tuple(_judged(log, leans.of[log.key], thresholds[log.key], answers.get(log.key), leans.pool) for log in logs)


def _confirmed(
    logs: Sequence[PairLog], leans: Leanings, thresholds: Mapping[str, Threshold], direction: Leaning
) -> dict[str, Confirmation]:
    """The answers of the flagged cells that have fresh pairs enough; Holm's correction is over all flagged ones."""
    sign = 1.0 if direction == "slower" else -1.0
    pairs = {
        log.key: [sign * ratio for ratio in log.ratios("confirm")] for log in logs if leans.of[log.key] == direction
    }
    # A cell whose fresh pairs were not reached stands among the others with one pair, whose p is 1.
    answers = confirm(
        [pair if len(pair) >= FEWEST_CONFIRMING else [0.0] for pair in pairs.values()],
        effects=[thresholds[key].confirm for key in pairs],
        pool=leans.pool,
    )
    return {
        key: answer
        for (key, pair), answer in zip(pairs.items(), answers, strict=True)
        if len(pair) >= FEWEST_CONFIRMING
    }


def _judged(
    log: PairLog, lean: Leaning, threshold: Threshold, answer: Confirmation | None, pool: Pool | None
) -> CellComparison:
    ratios = log.ratios("confirm") if answer else log.ratios("screen")
    estimate = trimmed(ratios).moderated(pool, cautious=answer is not None) if ratios else None
    verdict, why = _decided(log, lean, threshold, answer, estimate)
    if log.given_up and verdict not in ("slower", "faster"):  # what was shown before it began to fail stays shown
        verdict, why = "invalid", unfit(log)
    return replace(
        _compared(log, 1, verdict, why, estimate),
        detectable=estimate.detectable(CONFIRM_LEVEL) if estimate else None,
        p=answer.p_adjusted if answer else None,
        power=_power(log, threshold, pool),
        pairs=len(ratios),
        threshold=math.expm1(threshold.confirm),
        noisy=threshold.noisy,
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


def _power(log: PairLog, threshold: Threshold, pool: Pool | None) -> float | None:
    """The chance that a slowdown of 3 % would have been found, by what the cell's pairs scatter by."""
    ratios = log.ratios("confirm") or log.ratios("screen")
    estimate = trimmed(ratios).moderated(pool) if len(ratios) > 1 else None
    if estimate is None or estimate.scatter is None:
        return None
    return power(estimate.scatter, effect=threshold.confirm, screened=threshold.screen)


def _decided(
    log: PairLog, lean: Leaning, threshold: Threshold, answer: Confirmation | None, estimate: LogRatio | None
) -> tuple[CellVerdict, Why]:
    if estimate is None and log.wasted:
        return "invalid", unfit(log)
    if estimate is None:
        return "undecided", Why("out_of_time", "the time ran out before its first pair: give more with --max-time")
    by = change(math.expm1(estimate.mean))
    shown: tuple[CellVerdict, Why] | None = None
    pending = None
    if answer is not None and answer.regressed:
        noisy = f", its own threshold of {percent(math.expm1(threshold.confirm))}" if threshold.noisy else ""
        ground = f"{by} over {estimate.count} fresh pairs (p = {answer.p_adjusted:.1g}){noisy}"
        shown = ("slower" if lean == "slower" else "faster", Why("shown", ground))
    elif lean in ("slower", "faster") and answer is None:
        played = len(log.ratios("confirm"))
        pending = Why(
            "out_of_time",
            f"{by} in the screen, and {played} of {CONFIRM_PAIRS} fresh pairs were played: give more with --max-time",
        )
    return verdict_of(
        by,
        _clock_change(log.everything),
        shown=shown,
        pending=pending,
        equivalent=estimate.equivalent(),
        otherwise=_open(by, lean, threshold, answer, estimate),
    )


def _open(by: str, lean: Leaning, threshold: Threshold, answer: Confirmation | None, estimate: LogRatio) -> Why:
    shown = estimate.detectable(CONFIRM_LEVEL)
    could = (
        f"{estimate.count} pairs could only have shown {percent(shown)} or more" if shown else "one pair shows nothing"
    )
    if answer is not None:
        if answer.p_adjusted <= CONFIRM_LEVEL:
            least = percent(math.expm1(threshold.confirm))
            return Why("small", f"{by}, certain, but below this cell's threshold of {least}")
        return Why("not_confirmed", f"flagged as {lean}, but {by} over fresh pairs, which does not show it: {could}")
    if estimate.count < SCREEN_PAIRS:
        return Why("out_of_time", f"{by} over {estimate.count} of {SCREEN_PAIRS} pairs: give more with --max-time")
    return Why("not_shown", f"{by}, neither shown to differ nor to be the same: {could}")


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


def _clock_change(pairs: Sequence[ProcessPair]) -> float | None:
    """The head's SM clock over the base's, less 1: the median over the pairs; `None` where no clock is known."""
    changes = [
        pair.rows[1].sm_clock_mhz / pair.rows[0].sm_clock_mhz - 1
        for pair in pairs
        if pair.rows[0].sm_clock_mhz and pair.rows[1].sm_clock_mhz
    ]
    return median(changes) if changes else None


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
    ratios = [log.ratios("screen", side) for side in range(1, len(log.cells))]
    estimates = [trimmed(one) for one in ratios]
    ps = [one.p_slower() if one.mean > 0 else one.p_faster() for one in estimates]
    adjusted = holm([1.0 if p is None else p for p in ps])
    return tuple(
        _rival(log, side, estimate, float(p))
        for side, (estimate, p) in enumerate(zip(estimates, adjusted, strict=True), start=1)
    )


def _rival(log: PairLog, side: int, estimate: LogRatio, p: float) -> CellComparison:
    by = change(math.expm1(estimate.mean))
    direction: CellVerdict = "slower" if estimate.mean > 0 else "faster"
    verdict, why = verdict_of(
        by,
        None,  # at which clock a GPU runs a network is the network's own
        shown=(direction, Why("shown", f"{by} over {estimate.count} pairs (p = {p:.1g})")) if p <= DUEL_LEVEL else None,
        pending=None,
        equivalent=estimate.equivalent(),
        otherwise=Why("not_shown", f"{by}, neither shown to differ nor to be the same: give more --pairs"),
    )
    told = _compared(log, side, verdict, why, estimate)
    return replace(told, p=p, pairs=estimate.count, threshold=0.0)


def contended_share(pairs: Sequence[ProcessPair]) -> float | None:
    """The share of the processes from which other work took CPU time; `None` where that is not known of any."""
    known = ["contended" in row.reasons for pair in pairs for row in pair.rows if row.contention is not None]
    return sum(known) / len(known) if known else None
