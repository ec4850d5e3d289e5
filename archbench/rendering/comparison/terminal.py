"""A comparison as plain text for a terminal or a log."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from archbench.model.cell import short_id
from archbench.model.comparison import Comparison
from archbench.rendering.comparison.document import Document
from archbench.rendering.comparison.words import HEADINGS, NUMERIC, headline, in_order, method, row, side_line

WIDTH = 120
ALL_SHOWN = 40
"""Up to this many cells are listed whatever became of them; of more, those that are the same are counted only."""


def terminal(comparison: Comparison) -> tuple[Document, ...]:
    """A table of cells, worst first, then findings, reasons and notes."""
    return (Document(text="".join(f"{_printable(line)}\n" for line in _lines(comparison))),)


def _lines(comparison: Comparison) -> Iterator[str]:
    yield f"base  {side_line(comparison.base)}"
    yield f"head  {side_line(comparison.head)}"
    yield method(comparison)
    yield ""
    cells = in_order(comparison)
    shown = cells if len(cells) <= ALL_SHOWN else [cell for cell in cells if cell.verdict != "same"]
    if shown:
        yield from _table([HEADINGS, *(row(cell) for cell in shown)])
    if len(shown) < len(cells):
        yield f"... and {len(cells) - len(shown):,} cells that are the same"
    told = [cell for cell in shown if cell.verdict != "same"]
    if told:
        yield ""
        for cell in told:
            yield from _wrapped(f"{short_id(cell.cell_id)}: {cell.why.sentence}", cell.verdict)
    if comparison.findings:
        yield ""
        for finding in comparison.findings:
            yield from _wrapped(f"{short_id(finding.cell_id)}: {finding.what}", "FAILS" if finding.fails else "note")
    if comparison.notes:
        yield ""
        for note in comparison.notes:
            yield from _wrapped(note, "note")
    yield ""
    yield headline(comparison)


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(one[column]) for one in rows) for column in range(len(HEADINGS))]
    for one in rows:
        fields = (
            text.rjust(width) if column in NUMERIC else text.ljust(width)
            for column, (text, width) in enumerate(zip(one, widths, strict=True))
        )
        yield "  ".join(fields).rstrip()


def _wrapped(text: str, mark: str) -> list[str]:
    head = f"{mark:10}"
    return textwrap.wrap(
        " ".join(text.replace("`", "").split()),
        WIDTH,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _printable(line: str) -> str:
    """Names and messages may hold anything: a control character must not reach the terminal."""
    return line if line.isprintable() else "".join(char if char.isprintable() else " " for char in line)
