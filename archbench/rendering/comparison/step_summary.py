"""A comparison as markdown, small enough for the step summary of a workflow."""

from __future__ import annotations

from collections.abc import Sequence

from archbench.model.cell import short_id
from archbench.model.comparison import CellComparison, Comparison
from archbench.rendering.comparison.document import Document
from archbench.rendering.comparison.words import HEADINGS, NUMERIC, headline, in_order, method, row, side_line
from archbench.rendering.content import Block, Bullets, Fold, Paragraph, Report, Section, Table
from archbench.rendering.markdown import render_markdown

LIMIT_BYTES = 1_000_000
"""GitHub refuses a step summary of more than 1 MiB, whole."""
_FIRST_TRY = 4096
"""Rows of a table before any are cut."""


def step_summary(comparison: Comparison) -> tuple[Document, ...]:
    """The verdict first, then what is not the same, and the rest behind a fold; cut, with a note, where too long."""
    most = _FIRST_TRY
    text = render_markdown(_report(comparison, most))
    while len(text.encode()) > LIMIT_BYTES and most > 1:
        most //= 2
        text = render_markdown(_report(comparison, most))
    return (Document(text=text),)


def _report(comparison: Comparison, most: int) -> Report:
    cells = in_order(comparison)
    told = [cell for cell in cells if cell.verdict != "same"]
    alike = [cell for cell in cells if cell.verdict == "same"]
    sections = [
        Section(title="Findings", blocks=_findings(comparison, most)) if comparison.findings else None,
        Section(title="Cells", blocks=_cells(told, most)) if told else None,
        Section(title="To know", blocks=(Bullets(comparison.notes),)) if comparison.notes else None,
    ]
    if alike:
        fold = Fold(summary=f"The same: {len(alike):,}", blocks=_table(alike, most))
        sections.insert(2, Section(title="The same", blocks=(fold,)))
    return Report(
        title=headline(comparison).rstrip("."),
        lead=(
            Bullets((f"base: {side_line(comparison.base)}", f"head: {side_line(comparison.head)}")),
            Paragraph(method(comparison)),
        ),
        sections=tuple(section for section in sections if section),
    )


def _cells(cells: Sequence[CellComparison], most: int) -> tuple[Block, ...]:
    reasons = tuple(f"{cell.verdict}, {short_id(cell.cell_id)}: {cell.why.sentence}" for cell in cells[:most])
    return (*_table(cells, most), Fold(summary="Why", blocks=(Bullets(reasons),)))


def _table(cells: Sequence[CellComparison], most: int) -> tuple[Block, ...]:
    table = Table(headings=HEADINGS, rows=tuple(row(cell) for cell in cells[:most]), numeric=NUMERIC)
    return (table, *_cut(len(cells), most))


def _findings(comparison: Comparison, most: int) -> tuple[Block, ...]:
    ordered = sorted(comparison.findings, key=lambda finding: not finding.fails)
    rows = tuple(
        ("fails" if finding.fails else "note", short_id(finding.cell_id), finding.what) for finding in ordered[:most]
    )
    return (Table(headings=("", "Cell", "What"), rows=rows), *_cut(len(ordered), most))


def _cut(count: int, most: int) -> tuple[Block, ...]:
    if count <= most:
        return ()
    return (Paragraph(f"{count - most:,} more are left out here for their length; `--format json` has all."),)
