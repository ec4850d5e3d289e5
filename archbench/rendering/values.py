"""Any column's figures as text, in the unit that people use for it."""

from __future__ import annotations

from archbench.choose.cell_summary import Estimate, Margin
from archbench.choose.conditions import GoalMargin, LeftOut, Miss
from archbench.model.derived import column_label, judged_columns
from archbench.model.units import (
    AT_LEAST,
    GIGA,
    IMAGES,
    MIB,
    MILLION,
    MS,
    NULL,
    RATIO,
    SECOND,
    Unit,
    figure,
    fixed,
    percent,
    plain,
)

_OF_UNIT = {"s": MS, "B": MIB, "img/s": IMAGES, "FLOP/s": GIGA}
_UNITS = {
    "params": MILLION,
    "macs": GIGA,
    "flops": GIGA,
    "activations": MILLION,
    # Times that nobody thinks of in milliseconds.
    **dict.fromkeys(("first_call_s", "compile_cold_s", "compile_warm_s", "duration_s"), SECOND),
}
_TINY = 0.1
"""Percentage points below which one decimal would round a miss away."""
_DECIMALS = {"params": 2, "macs": 2, "flops": 2, "activations": 2, "top1": 1, "top5": 1}
"""Columns whose figures have no error, with the decimals that tell them apart."""
_NAMES = {
    "latency_median": "latency",
    "latency_median_corrected": "latency",
    **{f"latency_{p}": f"{p} latency" for p in ("p90", "p95", "p99")},
    "peak_allocated": "peak memory",
    "peak_reserved": "peak memory, reserved",
    "predicted_peak": "predicted peak memory",
    "weight": "weights",
    "top1": "top-1",
    "top5": "top-5",
    "macs": "MACs",
    "flops": "FLOP",
    "mfu": "MFU",
}
"""What a reader calls a column where its stored name with blanks for underscores would not do."""


def called(column: str) -> str:
    """`p99 latency` of `rank_latency_p99_s`: a column in a reader's words, without its unit."""
    label = column_label(column)
    return _NAMES.get(label, label.replace("_", " "))


def heading(column: str) -> str:
    """`p99 latency ms`, `params M`, `top-1 %`: a column in a reader's words, and the unit shown."""
    shown = "%" if judged_columns()[column].unit == "%" else _unit(column).symbol if _unit(column) is not RATIO else ""
    return f"{called(column)} {shown}".strip()


def number(of: Estimate) -> str:
    """A figure with its interval, without its unit: `39 ±3`; `≥ 4.09` of one that is a lower bound."""
    bound = AT_LEAST if of.at_least and of.value is not None else ""
    judged, unit = judged_columns()[of.column], _unit(of.column)
    if of.column in _DECIMALS:
        return bound + fixed(of.value, unit, _DECIMALS[of.column])
    if judged.kind == "whole" and judged.unit != "B":
        return bound + fixed(of.value, RATIO, 0)
    return bound + figure(of.value, unit, of.low, of.high)


def quantity(column: str, value: float) -> str:
    """One value with its unit: `110 ms`, `74.8 %`."""
    unit = heading(column).removeprefix(called(column)).strip()
    return f"{number(Estimate(column=column, value=value))} {unit}".strip()


def ratio(of: Margin) -> str:
    """`1.64x`, with its interval where there is one."""
    text = figure(of.ratio, RATIO, of.low, of.high)
    value, _, interval = text.partition(" ")
    return f"{value}x {interval}".strip()


def difference(of: Margin, better: Estimate, worse: Estimate) -> str:
    """How far `worse` is behind: a ratio, or points between two percentages."""
    if judged_columns()[better.column].unit == "%" and better.value is not None and worse.value is not None:
        return f"{abs(better.value - worse.value):.1f} points"
    return ratio(of)


def why_left_out(one: LeftOut) -> str:
    """In one line: what the network lacks, each condition with its own figure and by how much it misses."""
    parts = [one.failure] if one.failure else []
    parts += [_missed(miss) for miss in one.misses]
    if one.beaten is not None:
        compared = ", ".join(f"{column_label(each.better.column)} {_behind(each)}" for each in one.beaten.comparisons)
        parts.append(f"{one.beaten.by} is nowhere worse: {compared}")
    return "; ".join(parts)


def _missed(miss: Miss) -> str:
    column, value = miss.actual[0]
    if value is None:
        why = f" ({miss.unmeasured})" if miss.unmeasured else ""
        return f"{miss.condition}: not known{why}"
    if miss.bound is None or not isinstance(value, float):
        shown = ", ".join(f"{column_label(name)} is {_plain(name, there)}" for name, there in miss.actual)
        return f"{miss.condition}: {shown}"
    return f"{miss.condition}: {quantity(column, value)}{_by_how_much(miss, column, value)}"


def _by_how_much(miss: Miss, column: str, value: float) -> str:
    if judged_columns()[column].unit == "%" and miss.bound is not None:
        off = abs(value - miss.bound)
        return f" ({f'{off:.1f}' if off >= _TINY else plain(off, 2)} points off)"
    if miss.excess is None:
        return ""
    if miss.excess < 1:
        return f" ({percent(miss.excess)} off)"
    return f" ({ratio(Margin(ratio=1 + miss.excess, low=None, high=None, tie=False, within=0.0))} off)"


def _behind(of: GoalMargin) -> str:
    if of.margin is None:
        return NULL
    if of.margin.ratio == 1:
        return "equal"
    return f"{difference(of.margin, of.better, of.worse)}{' (a tie)' if of.margin.tie else ''}"


def _plain(column: str, value: float | str | bool | None) -> str:
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return str(value).lower()
    return quantity(column, value) if isinstance(value, float) else value


def _unit(column: str) -> Unit:
    return _UNITS.get(column) or _OF_UNIT.get(judged_columns()[column].unit or "", RATIO)
