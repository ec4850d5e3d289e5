"""Tables whose length depends on the run: folded where long, cut where nobody would read on, never in silence."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from archbench.rendering.content import Block, Fold, Paragraph, Table

LONG_TABLE = 100
"""Rows beyond which a table waits behind a line that opens it."""
MOST_ROWS = 500
"""Rows beyond which a table is cut: code forges do not render markdown of some hundred KiB."""

Item = TypeVar("Item")


def listed(
    items: Sequence[Item],
    row: Callable[[Item], tuple[str, ...]],
    headings: tuple[str, ...],
    *,
    numeric: Collection[str] = (),
    noun: str = "rows",
    caption: str = "",
    most: int = MOST_ROWS,
) -> list[Block]:
    """A row for each item, the first `most` of them; nothing where there is no item.

    `numeric`: headings of the columns that stand to the right. `caption`: see `Table`.
    """
    if not items:
        return []
    table = Table(
        headings=headings,
        rows=tuple(row(item) for item in items[:most]),
        numeric=frozenset(place for place, heading in enumerate(headings) if heading in numeric),
        caption=caption,
    )
    if len(items) <= LONG_TABLE:
        return [table]
    if len(items) <= most:
        return [Fold(summary=f"{len(items):,} {noun}", blocks=(table,))]
    rest = Paragraph(f"And {len(items) - most:,} more {noun}, of which `results.parquet` has the figures.")
    return [Fold(summary=f"The first {most:,} of {len(items):,} {noun}", blocks=(table, rest))]
