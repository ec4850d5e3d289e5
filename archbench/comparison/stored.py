"""Two stored runs against each other: a pure function from two sets of rows to a `Comparison`.

Runs of different times differ by more than their code: the machine has good and bad days, and no statistic within the
runs knows of it. So a comparison here says that its baseline is stored, and calls slower only what exceeds the noise
floor.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from archbench.choose.cell_summary import CellSummary, cell_summaries
from archbench.choose.summary import spreads_of
from archbench.comparison.findings import findings
from archbench.comparison.judge import judge_runs, judge_whole, remedy_of
from archbench.comparison.rows import (
    Rows,
    Timed,
    at_any_threads,
    check_allowed,
    differences,
    other_flags,
    refuse_incomparable,
    side_of,
    timed,
    undisturbed,
    usable,
)
from archbench.model.comparison import (
    CLOCK_TOLERANCE,
    CellComparison,
    Comparison,
    Figures,
    Floor,
    Metric,
    Side,
    Whole,
    Why,
)
from archbench.model.errors import UnfitError, UsageError
from archbench.model.reasons import having
from archbench.model.units import counted, excess
from archbench.stats.paired import unpaired

if TYPE_CHECKING:
    import pandas as pd


def compare(base: Rows, head: Rows, *, allow: Collection[str] = (), floors: Sequence[Floor] = ()) -> Comparison:
    """Judge every cell that both sides have; nothing is read and nothing written.

    `allow`: locked columns that may differ, since that is the question (`archbench.comparison.rows.MUST_MATCH`); with
    `suite` a cell on one side alone does not fail. `floors`: what is known of the noise on this hardware beside the
    runs' own processes; the widest counts.

    Raises `UnfitError` where the sides must not be compared (other hardware, protocol, torch, ...) or one was not
    finished, and `UsageError` for rows that are there twice, an unknown column, and sides without a common cell.
    """
    check_allowed(allow)
    ours, theirs = side_of(base), side_of(head)
    refuse_incomparable(ours, theirs, allow)
    base, head, other_threads = at_any_threads(base, head, allow)
    before_ids, after_ids = base.frame["cell_id"].unique(), head.frame["cell_id"].unique()
    if not set(before_ids) & set(after_ids):
        raise UsageError(
            f"{base.label} and {head.label} have no cell in common; the first has {before_ids[0]}, "
            f"the second {after_ids[0]}"
        )
    if "suite" not in allow and not other_threads:
        _refuse_unfinished("base", base, set(after_ids) - set(before_ids))
        _refuse_unfinished("head", head, set(before_ids) - set(after_ids))
    flags = other_flags(*_applied(base.frame, head.frame), allow)
    shared = ours.torch_version == theirs.torch_version
    calm = [undisturbed(rows.frame) for rows in (base, head)]
    before, after, drift = timed(*calm, shared_canary=shared, correct=not (flags or other_threads))
    floor = max([*floors, *_own_floors(before, after)], key=lambda one: one.spread, default=None)
    unjudged, untimed = _unjudged(before, after)
    cells, whole = _judged(unjudged, floor, floors)
    notes = [
        *([_stored(ours, floor)] if cells else []),
        *differences(base, head, ours, theirs),
        *([other_threads] if other_threads else []),
        *([f"The processes ran under other flags: {'; '.join(flags)}."] if flags else []),
        *_left_out((base, head), calm),
        *_canary(before, drift, shared, other_flags=bool(flags or other_threads)),
        *([whole.sentence] if whole else []),
    ]
    if untimed:
        notes.append(
            f"Common cells without a time on either side: {untimed:,}. Of these only what is counted is compared."
        )
    return Comparison(
        kind="stored",
        base=ours,
        head=theirs,
        cells=cells,
        findings=findings(before.cells, after.cells, may_lack="suite" in allow),
        notes=tuple(notes),
        floor=floor,
        whole=whole,
        compared=tuple(_ended_ok(before).intersection(_ended_ok(after), sort=False)),
        duration_s=float(base.frame["duration_s"].sum() + head.frame["duration_s"].sum()),
    )


def _refuse_unfinished(name: str, side: Rows, missing: set[str]) -> None:
    """Cells that the side's own suite asks for are neither gone nor new: the run stopped before it came to them."""
    if not missing or side.suite is None:
        return
    from archbench.suite.plan import make_plan

    plan = make_plan(side.suite, side.frame["device"].iloc[0])
    waiting = [cell.cell_id for cell in plan.cells if cell.cell_id in missing]
    if waiting:
        raise UnfitError(
            f"{side.label}, the {name}: was killed, is still running, or was narrowed by --only: {len(waiting)} of the "
            f"other side's cells have no row yet, such as {waiting[0]}; the same `archbench run` finishes it, or "
            "compare what both have with --allow-different suite"
        )


def _ended_ok(side: Timed) -> pd.Index[Any]:
    return side.cells.index[side.cells["status"] == "ok"]


def _applied(base: pd.DataFrame, head: pd.DataFrame) -> tuple[pd.Series[Any], pd.Series[Any]]:
    """Each common cell's flags on both sides, in the same order."""
    ours, theirs = (usable(frame).drop_duplicates("cell_id").set_index("cell_id")["applied"] for frame in (base, head))
    both = ours.index.intersection(theirs.index)
    return ours.loc[both], theirs.loc[both]


def _own_floors(base: Timed, head: Timed) -> Iterator[Floor]:
    for side, name in ((base, "base"), (head, "head")):
        for spread in spreads_of(side.rows.assign(run_id="")).values():
            if spread.latency is not None:
                yield Floor(
                    spread=math.expm1(spread.latency.limit()),
                    origin=f"the {name}'s processes, {counted(spread.groups, 'group')}",
                )


def _unjudged(base: Timed, head: Timed) -> tuple[list[CellComparison], int]:
    """Every cell measured on both sides and timed on one, in the base's order; and how many of these neither timed.

    One that a side has no fit time of is `invalid`; the others are still to be judged.
    """
    common = base.cells.index.intersection(head.cells.index, sort=False)
    cells, untimed = [], 0
    for ours, theirs in zip(
        *(cell_summaries(side.cells.loc[common].reset_index()) for side in (base, head)), strict=True
    ):
        if (ours.status, theirs.status) != ("ok", "ok"):
            continue  # a finding
        none, cell_id = np.empty(0), ours.cell_id
        metric: Metric = "latency"
        if ours.rank_latency_s is not None or theirs.rank_latency_s is not None:
            found = [side.latencies.get(cell_id, none) for side in (base, head)]
        elif ours.rank_throughput_img_s is not None or theirs.rank_throughput_img_s is not None:
            metric = "throughput"
            found = [row.batch_size / side.rates.get(cell_id, none) for row, side in ((ours, base), (theirs, head))]
        else:
            untimed += 1
            continue
        times = [tuple(one.tolist()) for one in found]
        pairs = min(map(len, times))
        cell = CellComparison(
            cell_id=cell_id,
            architecture=ours.architecture,
            variant=ours.variant,
            metric=metric,
            verdict="undecided" if pairs else "invalid",
            why=Why("not_shown", "") if pairs else _unfit("head", theirs) if times[0] else _unfit("base", ours),
            base=_figures(ours, times[0]),
            head=_figures(theirs, times[1]),
            pairs=pairs,
        )
        cells.append(cell)
    return cells, untimed


def _judged(
    cells: Sequence[CellComparison], floor: Floor | None, floors: Sequence[Floor]
) -> tuple[tuple[CellComparison, ...], Whole | None]:
    """The cells with their verdicts, and what those say together that ran at the same clock."""
    fit = [cell for cell in cells if cell.verdict != "invalid"]
    estimates = [unpaired(cell.base.process_times_s, cell.head.process_times_s) for cell in fit]
    sm_clocks = [(cell.base.sm_clock_mhz, cell.head.sm_clock_mhz) for cell in fit]
    clocks = [theirs / ours - 1 if ours and theirs else None for ours, theirs in sm_clocks]
    judged = iter(judge_runs(fit, estimates, clocks, floor))
    steady = [one for one, clock in zip(estimates, clocks, strict=True) if abs(clock or 0.0) <= CLOCK_TOLERANCE]
    return tuple(cell if cell.verdict == "invalid" else next(judged) for cell in cells), judge_whole(steady, floors)


def _figures(row: CellSummary, times: tuple[float, ...]) -> Figures:
    return Figures(
        latency_s=row.rank_latency_s,
        latency_low_s=row.rank_latency_low_s,
        latency_high_s=row.rank_latency_high_s,
        throughput_img_s=row.rank_throughput_img_s,
        throughput_low_img_s=row.rank_throughput_low_img_s,
        throughput_high_img_s=row.rank_throughput_high_img_s,
        peak_bytes=row.peak_bytes,
        params=row.params,
        macs=row.macs,
        sm_clock_mhz=row.sm_clock_mhz,
        processes=len(times),
        process_times_s=times,
    )


def _unfit(side: str, row: CellSummary) -> Why:
    codes = sorted(having("invalid", row.reasons))
    cause = (
        f"no measurement of the {side} is fit to be used ({', '.join(codes)})" if codes else f"the {side} has no time"
    )
    return Why("invalid_rows", f"{cause}: {remedy_of(codes)}")


def _stored(base: Side, floor: Floor | None) -> str:
    measured = f", from {base.started_at[:16].replace('T', ' ')} UTC" if base.started_at else ""
    known = (
        f"Its noise floor is {excess(floor.spread)} ({floor.origin}): a smaller difference means nothing."
        if floor
        else "No noise floor is known, so no cell is called slower or faster: run both sides with "
        "`--rounds 5` or more, or `archbench gate --aa` once on this hardware."
    )
    return (
        f"The baseline is stored{measured}: machines differ from day to day, which no statistic within the runs knows. "
        f"{known} A gate takes turns on one machine: `archbench gate`."
    )


def _left_out(sides: Sequence[Rows], calm: Sequence[pd.DataFrame]) -> Iterator[str]:
    drifted = [len(rows.frame) - len(kept) for rows, kept in zip(sides, calm, strict=True)]
    invalid = [int((rows.frame["verdict"] == "invalid").sum()) for rows in sides]
    beside = ", since the fixed kernel beside them was far off its median (`drift`)"
    for why, count in ((beside, drifted), (" as invalid (`archbench report` has the reasons)", invalid)):
        if any(count):
            yield f"Processes left out{why}: {count[0]:,} of the base, {count[1]:,} of the head."


def _canary(base: Timed, drift: float | None, shared: bool, *, other_flags: bool) -> Iterator[str]:
    """How the two sessions' machines differed, and what was done about it."""
    if drift is None:
        return
    size = f"{100 * abs(drift):.1f} %"
    took = "the same time" if size == "0.0 %" else f"{size} {'more' if drift > 0 else 'less'} time"
    speed = f"The fixed kernel beside every cell took {took} in the head"
    if other_flags:
        yield f"{speed}, which may be the machine or the flags it ran under: times are not corrected for it."
    elif not base.corrected:
        yield f"{speed}; times are not corrected for it."
    elif shared:
        yield f"{speed}; all times are divided by it, as machine and torch are the same on both sides."
    else:
        yield (
            f"{speed}, which may be the machine or torch: times are corrected for drift within each side, not for this."
        )
