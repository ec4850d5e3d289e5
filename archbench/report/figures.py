"""The measured figures: one table a phase, cells that may be compared standing together, fastest first."""

from __future__ import annotations

import math
from collections import Counter

from msgspec import Struct

from archbench.decide.outcome import Outcome
from archbench.report.content import Block, Fold, Paragraph, Section, Table
from archbench.report.listing import LONG_TABLE
from archbench.report.measured import Measured
from archbench.report.units import (
    GIGA,
    IMAGES,
    MIB,
    MILLION,
    MS,
    RATIO,
    Unit,
    figure,
    fixed,
    memory_unit,
    rounded,
    whole,
)

PHASES = {"inference": "Inference", "training": "Training"}
_ONE_TABLE = 30
"""Rows beyond which a phase has a table for each setting."""
_STEPS = {"inference": "forward pass", "training": "training step"}
_NUMERIC = frozenset({1, 2, 3, 5, 6, 7, 8, 9})


class _Terms(Struct, frozen=True, kw_only=True):
    """What the rows of one phase have in common."""

    phase: str
    reserved: bool
    """Peak memory is what the allocator held, as on a GPU, and not the live tensors alone."""
    memory: Unit
    usual_size: int | None


def phase_sections(run: Measured) -> list[Section]:
    """A section for each phase in which something was measured."""
    sections = []
    for phase in PHASES:
        # What was switched off beforehand or cannot run here has no place among figures; `failures` lists it.
        cells = [one for one in run.outcomes if one.phase == phase and one.status not in ("unsupported", "skipped")]
        if cells:
            sections.append(_phase_section(run, phase, cells))
    return sections


def _phase_section(run: Measured, phase: str, cells: list[Outcome]) -> Section:
    terms = _terms(phase, cells)
    notes = Paragraph(_caption(terms))
    cells = sorted(
        cells, key=lambda one: (one.batch_size, one.verdict == "invalid", one.rank_latency_s or math.inf, one.variant)
    )
    by_setting: dict[str, list[Outcome]] = {label: [] for label in run.setting_labels()}
    for one in cells:
        by_setting[one.setting_label].append(one)
    title = PHASES[phase]
    if len(cells) <= _ONE_TABLE:
        ranked = [one for members in by_setting.values() for one in members]
        return Section(title=title, blocks=(notes, _table(ranked, terms)))
    parts = (
        Section(title=f"{title}: {label}", blocks=(_table(members, terms),))
        for label, members in by_setting.items()
        if members
    )
    return Section(title=title, blocks=(notes, *parts))


def _terms(phase: str, cells: list[Outcome]) -> _Terms:
    reserved = any(one.peak_reserved_bytes is not None for one in cells)
    peaks = (one.peak_reserved_bytes if reserved else one.peak_allocated_bytes for one in cells)
    sizes = Counter(one.input_size for one in cells if one.input_size is not None)
    return _Terms(
        phase=phase,
        reserved=reserved,
        memory=memory_unit(peak for peak in peaks if peak is not None),
        usual_size=sizes.most_common(1)[0][0] if sizes else None,
    )


def _caption(terms: _Terms) -> str:
    kind = "held by the allocator" if terms.reserved else "of live tensors"
    side = terms.usual_size
    size = "" if side is None else f" Images are {side} x {side} unless the network's name says otherwise."
    return (
        f"One {_STEPS[terms.phase]} of the whole batch: synchronised for the latency, back to back for the rate. "
        f"Among rows of equal setting and batch size the fastest stands first. Peak: memory {kind}.{size}"
    )


def _table(cells: list[Outcome], terms: _Terms) -> Block:
    headings = (
        "Network",
        "Params M",
        "GMACs",
        "Top-1 %",
        "Setting",
        "Batch",
        "Step ms" if terms.phase == "training" else "Latency ms",
        "p95 ms",
        "img/s",
        f"Peak {terms.memory.symbol}",
        "Verdict",
    )
    table = Table(headings=headings, rows=tuple(_row(one, terms) for one in cells), numeric=_NUMERIC)
    return table if len(cells) <= LONG_TABLE else Fold(summary=f"{len(cells):,} cells", blocks=(table,))


def _row(one: Outcome, terms: _Terms) -> tuple[str, ...]:
    odd_size = one.input_size not in (None, terms.usual_size) and f"input_size={one.input_size}" not in one.variant
    peak = one.peak_reserved_bytes if terms.reserved else one.peak_allocated_bytes
    return (
        f"{one.network} ({one.input_size} px)" if odd_size else one.network,
        fixed(one.params, MILLION, 2),
        fixed(one.macs, GIGA, 2),
        fixed(one.top1, RATIO, 1),
        one.setting_label,
        str(one.batch_size),
        figure(one.rank_latency_s, MS, one.rank_latency_low_s, one.rank_latency_high_s),
        rounded(one.latency_p95_s, MS),
        rounded(one.rank_throughput_img_s, IMAGES, one.rank_throughput_low_img_s, one.rank_throughput_high_img_s),
        whole(peak, MIB) if terms.memory is MIB else fixed(peak, terms.memory, 2),
        one.verdict_label,
    )
