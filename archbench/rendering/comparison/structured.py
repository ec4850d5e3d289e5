"""A comparison as JSON: all that is known, with what follows from it."""

from __future__ import annotations

import msgspec

from archbench.model.comparison import CELL_VERDICTS, CellComparison, Comparison, Finding, Floor, Kind, Side
from archbench.rendering.comparison.document import Document

VERSION = 1
"""Raised when a field changes its meaning or goes; new ones may come at any time."""


class _Structured(msgspec.Struct, frozen=True, kw_only=True):
    """The document: times in seconds, sizes in bytes, ratios as head over base; what is unknown or infinite is null."""

    comparison_version: int = VERSION
    kind: Kind
    regressed: bool
    exit_code: int
    exit_code_strict: int
    counts: dict[str, int]
    base: Side
    head: Side
    floor: Floor | None
    comparable: int | None
    duration_s: float | None
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]
    cells: tuple[CellComparison, ...]


def structured(comparison: Comparison) -> tuple[Document, ...]:
    """One object; `cells` in the order of the base."""
    document = _Structured(
        kind=comparison.kind,
        regressed=comparison.regressed,
        exit_code=comparison.exit_code(),
        exit_code_strict=comparison.exit_code(strict=True),
        counts={verdict: sum(cell.verdict == verdict for cell in comparison.cells) for verdict in CELL_VERDICTS},
        base=comparison.base,
        head=comparison.head,
        floor=comparison.floor,
        comparable=comparison.comparable,
        duration_s=comparison.duration_s,
        notes=comparison.notes,
        findings=comparison.findings,
        cells=comparison.cells,
    )
    return (Document(text=msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"),)
