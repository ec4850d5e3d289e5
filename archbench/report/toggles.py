"""Settings side by side: how much faster each makes a network than plain fp32, all else equal."""

from __future__ import annotations

import math

from msgspec import Struct

from archbench.decide.outcome import Outcome
from archbench.report.content import Block, Fold, Paragraph, Section, Table
from archbench.report.figures import LONG_TABLE, PHASES
from archbench.report.measured import Measured
from archbench.report.units import MS, NULL, RATIO, figure

_WIDEST = 7
"""Settings in one table; a full product of toggles takes several."""
_MARK = "?"


class Gain(Struct, frozen=True, kw_only=True):
    """How many times faster, with its 95 % interval where both sides have one."""

    ratio: float
    low: float | None = None
    high: float | None = None


def toggles(run: Measured) -> Section | None:
    """A table for each phase in which something was measured in plain fp32 and under another setting; else `None`."""
    plain = {one.setting_label for one in run.outcomes if one.is_plain}
    others = [label for label in run.setting_labels() if label not in plain]
    parts = []
    for phase, title in PHASES.items():
        rows = _rows([one for one in run.outcomes if one.phase == phase], others)
        if rows:
            parts.append(Section(title=f"{title}: gains", blocks=tuple(_tables(rows, others))))
    if not parts:
        return None
    note = Paragraph(
        "How many times faster each setting makes a network than fp32 without compilation, at the same batch size; "
        "1.00 is no gain, ± the 95 % interval. It says nothing about accuracy. "
        f"`{_MARK}` marks a ratio with a suspect side; a word stands where there is no ratio."
    )
    return Section(title="Settings side by side", blocks=(note, *parts))


def gain(plain: Outcome, other: Outcome) -> Gain | None:
    """How many times faster `other` is; `None` where either has no latency. Intervals add up as independent logs do."""
    if not plain.rank_latency_s or not other.rank_latency_s:
        return None
    ratio = plain.rank_latency_s / other.rank_latency_s
    halves = [_half(plain), _half(other)]
    if None in halves:
        return Gain(ratio=ratio)
    half = min(math.hypot(*(half or 0.0 for half in halves)), 700.0)  # beyond, exp leaves a float's range
    return Gain(ratio=ratio, low=ratio * math.exp(-half), high=ratio * math.exp(half))


def _half(one: Outcome) -> float | None:
    low, high = one.rank_latency_low_s, one.rank_latency_high_s
    return math.log(high / low) / 2 if low and high else None


def _rows(cells: list[Outcome], others: list[str]) -> list[tuple[str, ...]]:
    """A network and batch size a row: both, its time in plain fp32, and its gain under each of `others`."""
    together: dict[tuple[int, str, int | None], dict[str, Outcome]] = {}
    for one in sorted(cells, key=lambda one: (one.batch_size, one.variant)):
        together.setdefault((one.batch_size, one.variant, one.input_size), {})[one.setting_label] = one
    rows = []
    for settings in together.values():
        plain = next((one for one in settings.values() if one.is_plain and one.rank_latency_s), None)
        if plain is None or len(settings) == 1:
            continue
        time = figure(plain.rank_latency_s, MS, plain.rank_latency_low_s, plain.rank_latency_high_s)
        ratios = (_ratio(plain, settings.get(label)) for label in others)
        rows.append((plain.network, str(plain.batch_size), time, *ratios))
    return rows


def _ratio(plain: Outcome, other: Outcome | None) -> str:
    if other is None:
        return NULL
    if other.status != "ok":
        return other.status
    verdicts = {plain.verdict, other.verdict}
    if "invalid" in verdicts:
        return "invalid"
    found = gain(plain, other)
    if found is None:
        return NULL
    ratio = figure(found.ratio, RATIO, found.low, found.high)
    return f"{ratio} {_MARK}" if "suspect" in verdicts else ratio


def _tables(rows: list[tuple[str, ...]], others: list[str]) -> list[Block]:
    tables: list[Block] = []
    for start in range(0, len(others), _WIDEST):
        names = others[start : start + _WIDEST]
        headings = ("Network", "Batch", "fp32 ms", *(f"{name} ×" for name in names))
        kept = tuple((*row[:3], *row[3 + start : 3 + start + _WIDEST]) for row in rows)
        tables.append(Table(headings=headings, rows=kept, numeric=frozenset(range(1, len(headings)))))
    return [Fold(summary=f"{len(rows):,} rows", blocks=tuple(tables))] if len(rows) > LONG_TABLE else tables
