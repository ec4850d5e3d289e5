"""From a gate's pairs to its verdicts: pure, so that a stored gate can be judged again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

from archbench.comparison.gate.books import CellLog, fit
from archbench.comparison.gate.noise import Threshold
from archbench.comparison.gate.schedule import leaning
from archbench.model.comparison import CLOCK_TOLERANCE, CellComparison, CellVerdict, Figures, Why
from archbench.model.pair import Pair
from archbench.model.reasons import REASONS
from archbench.model.record import Record
from archbench.model.units import change, percent
from archbench.stats import median_interval
from archbench.stats.paired import EQUIVALENCE_MARGIN, LogRatio
from archbench.stats.twostage import CONFIRM_LEVEL, CONFIRM_PAIRS, SCREEN_PAIRS, Confirmation, confirm, trimmed

FEWEST_CONFIRMING = 6
"""Fresh pairs that may decide a cell when time ran out before all of them were played: trimming takes one at each
end, and four tell."""


def judge(logs: Sequence[CellLog], thresholds: Mapping[str, Threshold]) -> tuple[CellComparison, ...]:
    """Judge all cells together, one answer a cell and in their order; what was not reached is undecided."""
    leans = [leaning(log.ratios("screen"), thresholds[log.cell.cell_id].screen) for log in logs]
    slower = _confirmed(logs, leans, thresholds, "slower")
    faster = _confirmed(logs, leans, thresholds, "faster")
    return tuple(
        _judged(log, lean, thresholds[log.cell.cell_id], slower.get(index) or faster.get(index))
        for index, (log, lean) in enumerate(zip(logs, leans, strict=True))
    )


def _confirmed(
    logs: Sequence[CellLog], leans: Sequence[str], thresholds: Mapping[str, Threshold], direction: str
) -> dict[int, Confirmation]:
    """The answers of the flagged cells that have fresh pairs enough; Holm's correction is over all flagged ones."""
    flagged = [index for index, lean in enumerate(leans) if lean == direction]
    sign = 1.0 if direction == "slower" else -1.0
    # A cell whose fresh pairs were not reached stands among the others with one pair, whose p is 1.
    pairs = [[sign * ratio for ratio in logs[index].ratios("confirm")] for index in flagged]
    answers = confirm(
        [pair if len(pair) >= FEWEST_CONFIRMING else [0.0] for pair in pairs],
        effects=[thresholds[logs[index].cell.cell_id].confirm for index in flagged],
    )
    return {
        index: answer
        for index, pair, answer in zip(flagged, pairs, answers, strict=True)
        if len(pair) >= FEWEST_CONFIRMING
    }


def _judged(log: CellLog, lean: str, threshold: Threshold, answer: Confirmation | None) -> CellComparison:
    ratios = log.ratios("confirm") if answer else log.ratios("screen")
    rows = [[pair.rows[side] for pair in log.everything] for side in (0, 1)]
    estimate = trimmed(ratios) if ratios else None
    verdict, why = _decided(log, lean, threshold, answer, estimate)
    if log.given_up and verdict not in ("slower", "faster"):  # what was shown before it began to fail stays shown
        verdict, why = "invalid", _unfit(log)
    ends = estimate.interval() if estimate else None
    return CellComparison(
        cell_id=log.cell.cell_id,
        architecture=log.cell.network.name,
        variant=log.cell.network.label,
        verdict=verdict,
        why=why,
        base=_figures(rows[0], log.everything, 0),
        head=_figures(rows[1], log.everything, 1),
        ratio=estimate.ratio if estimate else None,
        ci_low=ends[0] if ends else None,
        ci_high=ends[1] if ends else None,
        detectable=estimate.detectable(CONFIRM_LEVEL) if estimate else None,
        p=answer.p_adjusted if answer else None,
        pairs=len(ratios),
        threshold=math.expm1(threshold.confirm),
        noisy=threshold.noisy,
    )


def _decided(
    log: CellLog, lean: str, threshold: Threshold, answer: Confirmation | None, estimate: LogRatio | None
) -> tuple[CellVerdict, Why]:
    if estimate is None and log.wasted:
        return "invalid", _unfit(log)
    if estimate is None:
        return "undecided", Why("out_of_time", "the time ran out before its first pair: give more with --max-time")
    by = change(math.expm1(estimate.mean))
    clock = _clock_change(log.everything)
    if clock is not None and abs(clock) > CLOCK_TOLERANCE:
        return "undecided", Why(
            "clocks_differ", f"{by}, but the head's SM clock was {change(clock)} off the base's: lock the clocks"
        )
    if answer is not None and answer.regressed:
        direction: CellVerdict = "slower" if lean == "slower" else "faster"
        noisy = f", its own threshold of {percent(math.expm1(threshold.confirm))}" if threshold.noisy else ""
        return direction, Why("shown", f"{by} over {estimate.count} fresh pairs (p = {answer.p_adjusted:.1g}){noisy}")
    if lean in ("slower", "faster") and answer is None:
        played = len(log.ratios("confirm"))
        return "undecided", Why(
            "out_of_time",
            f"{by} in the screen, and {played} of {CONFIRM_PAIRS} fresh pairs were played: give more with --max-time",
        )
    if estimate.equivalent():
        return "same", Why("equivalent", f"{by}; the 90 % interval lies within ±{percent(EQUIVALENCE_MARGIN)}")
    return "undecided", _open(by, lean, threshold, answer, estimate)


def _open(by: str, lean: str, threshold: Threshold, answer: Confirmation | None, estimate: LogRatio) -> Why:
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


def _unfit(log: CellLog) -> Why:
    for pair in reversed(log.everything):
        for index in pair.failed:
            row, side = pair.rows[index], ("base", "head")[index]
            where = f" in {row.error_phase}" if row.error_phase else ""
            if row.status != "skipped":  # the other side's row, when it was sent away
                return Why("failed", f"the {side} ended with {row.status}{where}: {row.error_message or 'no message'}")
    rows = [row for pair in log.everything if not fit(pair) for row in pair.rows]
    codes = sorted({code for row in rows for code in row.reasons if _invalidates(code)})
    played = len(log.everything)
    told = "no pair is fit" if log.wasted == played else f"{log.wasted} of {played} pairs are not fit"
    if not codes:
        return Why("invalid_rows", f"{told} to be used: the device's monitor rejected every turn of it")
    remedy = next((REASONS[code].remedy for code in codes if REASONS[code].remedy), "measure it again")
    return Why("invalid_rows", f"{told} to be used ({', '.join(codes)}): {remedy}")


def _invalidates(code: str) -> bool:
    return code in REASONS and REASONS[code].effect == "invalid"


def _clock_change(pairs: Sequence[Pair]) -> float | None:
    """The head's SM clock over the base's, less 1: the median over the pairs; `None` where no clock is known."""
    changes = [
        pair.rows[1].sm_clock_mhz / pair.rows[0].sm_clock_mhz - 1
        for pair in pairs
        if pair.rows[0].sm_clock_mhz and pair.rows[1].sm_clock_mhz
    ]
    return median(changes) if changes else None


def _figures(rows: Sequence[Record], pairs: Sequence[Pair], side: int) -> Figures:
    times = tuple(time for pair in pairs if fit(pair) and (time := pair.rows[side].latency_median_s) is not None)
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
