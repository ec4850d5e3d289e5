"""What every format for people says in the same words: a cell's name, its change, and the comparison in one line."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from archbench.model.cell import short_id
from archbench.model.comparison import CELL_VERDICTS, CellComparison, Comparison, Figures, Side
from archbench.model.units import MS, NULL, change, duration, figure, percent

HEADINGS = ("Verdict", "Cell", "Base ms", "Head ms", "Change", "95 % interval", "Sees", "Pairs")
NUMERIC = frozenset({2, 3, 4, 5, 6, 7})
_LONGEST_ERROR = 200
"""Characters of an error in a headline; the findings have it whole."""


def row(cell: CellComparison) -> tuple[str, ...]:
    """One cell's figures, in the order of `HEADINGS`."""
    return (
        f"{cell.verdict} (noisy)" if cell.noisy else cell.verdict,
        short_id(cell.cell_id),
        _time(cell, cell.base),
        _time(cell, cell.head),
        NULL if cell.change is None else change(cell.change),
        interval(cell),
        NULL if cell.detectable is None else percent(cell.detectable),
        str(cell.pairs),
    )


def interval(cell: CellComparison) -> str:
    """`+1.2 % to +3.4 %`; `-` where there is none."""
    if cell.ci_low is None or cell.ci_high is None:
        return NULL
    return f"{change(cell.ci_low - 1)} to {change(cell.ci_high - 1)}"


def headline(comparison: Comparison) -> str:
    """`Regressed: 2 slower, 3 undecided, 40 same of 45 timed cells; 1 failing finding.`"""
    counts = {verdict: len([cell for cell in comparison.cells if cell.verdict == verdict]) for verdict in CELL_VERDICTS}
    parts = [f"{count:,} {verdict}" for verdict, count in counts.items() if count]
    cells = comparison.comparable
    untimed = f"what is counted of {cells:,} cell{'s' if cells > 1 else ''}" if cells else "no timed cell"
    timed = f"{', '.join(parts)} of {len(comparison.cells):,} timed cells" if parts else untimed
    failing, both = len(comparison.failures), len(comparison.failed_on_both)
    counted = f"; {failing:,} failing finding{'s' if failing > 1 else ''}" if failing else ""
    unseen = f"; {both:,} cell{'s' if both > 1 else ''} failed on both sides" if both else ""
    if comparison.regressed:
        return f"Regressed: {timed}{counted}{unseen}."
    if comparison.blind:
        return f"Nothing could be compared: {_of_failures(comparison)}."
    if comparison.exit_code() == 3:
        return f"Nothing could be judged: {timed}{unseen}."
    return f"No regression: {timed}{unseen}."


def _of_failures(comparison: Comparison) -> str:
    """Why a comparison is blind, with a cell of which the error is known where there is one."""
    failed = [finding for finding in comparison.findings if finding.failed]
    example = next((finding for finding in failed if finding.head != "ok"), failed[0])
    what = textwrap.shorten(example.what, _LONGEST_ERROR, placeholder=" ...")
    return (
        f"no common cell ended ok on both sides, and {len(failed):,} failed, such as {short_id(example.cell_id)}, "
        f"which {what}"
    )


def side_line(side: Side) -> str:
    """Where a side comes from, in one line."""
    facts = [
        f"torch {side.torch_version}" if side.torch_version else "",
        f"driver {side.driver_version}" if side.driver_version else "",
        f"measured {side.started_at[:16].replace('T', ' ')} UTC" if side.started_at else "",
        f"suite {side.suite}" if side.suite else "",
    ]
    known = ", ".join(fact for fact in facts if fact)
    return f"{side.label} ({known})" if known else side.label


def method(comparison: Comparison) -> str:
    """How the two sides were measured, and what that is worth."""
    spent = f" Measuring took {duration(comparison.duration_s)}." if comparison.duration_s else ""
    if comparison.blind:
        return "No common cell ended ok on both sides, so nothing could be compared."
    if not comparison.cells:
        return "Only what is counted, predicted and traced was compared, to the letter; nothing was timed."
    how = (
        "Base and head took turns on one machine."
        if comparison.kind == "turns"
        else "Two stored runs, measured at different times: a report, not a gate."
    )
    return f"{how} Hardware: {comparison.head.hardware_class}.{spent}"


def in_order(comparison: Comparison) -> Sequence[CellComparison]:
    """The cells with the worst verdict first, and within it the largest change."""
    return sorted(
        comparison.cells, key=lambda cell: (CELL_VERDICTS.index(cell.verdict), -abs(cell.change or 0.0), cell.cell_id)
    )


def _time(cell: CellComparison, side: Figures) -> str:
    if cell.metric == "throughput" and side.process_times_s:
        ordered = sorted(side.process_times_s)
        return figure(ordered[len(ordered) // 2], MS)
    return figure(side.latency_s, MS, side.latency_low_s, side.latency_high_s)
