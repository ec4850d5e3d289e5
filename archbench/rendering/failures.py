"""Cells without figures: what failed, what cannot run here, and why."""

from __future__ import annotations

from collections.abc import Sequence

from archbench.choose.cell_summary import CellSummary
from archbench.model.record import FAILED
from archbench.model.units import NULL
from archbench.rendering.content import Block, Paragraph, Section, Table
from archbench.rendering.run_data import RunData

_MOST_ROWS = 100
_LONGEST_MESSAGE = 160
_EXAMPLES = 3


def failures(run: RunData) -> Section | None:
    """Failed cells one by one, cells that were not run by reason; `None` where there are neither."""
    failed = [one for one in run.cells if one.status in FAILED or (one.status == "ok" and one.error_message)]
    not_run = [one for one in run.cells if one.status in ("unsupported", "skipped")]
    failed.sort(key=lambda one: (one.variant, one.phase, one.setting_label, one.batch_size))
    blocks = [*_failed(failed), *_not_run(not_run)]
    return Section(title="Without figures", blocks=tuple(blocks)) if blocks else None


def _failed(cells: Sequence[CellSummary]) -> list[Block]:
    if not cells:
        return []
    rows = tuple(
        (
            one.network,
            one.phase,
            one.setting_label,
            str(one.batch_size),
            # A process that failed where others did not has left its message, and no figure is missing.
            f"{one.processes - one.processes_used} of {one.processes}" if one.status == "ok" else one.status,
            one.error_phase or NULL,
            _message(one),
        )
        for one in cells[:_MOST_ROWS]
    )
    headings = ("Network", "Phase", "Setting", "Batch", "Status", "During", "Message")
    return [Table(headings=headings, rows=rows, numeric=frozenset({3})), *_more(len(cells), "cells")]


def _not_run(cells: Sequence[CellSummary]) -> list[Block]:
    if not cells:
        return []
    groups: dict[tuple[str, str], list[CellSummary]] = {}
    for one in cells:
        groups.setdefault((one.status, _message(one)), []).append(one)
    ranked = sorted(groups.items(), key=lambda group: -len(group[1]))
    rows = tuple(
        (status, f"{len(members):,}", message, _examples(members)) for (status, message), members in ranked[:_MOST_ROWS]
    )
    headings = ("Not run", "Cells", "Why", "Such as")
    return [Table(headings=headings, rows=rows, numeric=frozenset({1})), *_more(len(ranked), "reasons")]


def _more(count: int, noun: str) -> list[Block]:
    return [Paragraph(f"And {count - _MOST_ROWS:,} more {noun} in `results.parquet`.")] if count > _MOST_ROWS else []


def _message(one: CellSummary) -> str:
    """What went wrong, or else the reasons that are about the whole cell."""
    text = one.error_message or ", ".join(code for code in one.reasons if ":" not in code) or NULL
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[: _LONGEST_MESSAGE - 1]}…"


def _examples(cells: list[CellSummary]) -> str:
    names = list(dict.fromkeys(one.network for one in cells))
    return ", ".join(names[:_EXAMPLES]) + (", …" if len(names) > _EXAMPLES else "")
