"""What is counted and not timed, and so can be held to the letter: one process a side is enough."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from archbench.model.comparison import Finding
from archbench.model.record import FAILED

if TYPE_CHECKING:
    import pandas as pd

EQUAL = ("params", "macs")
MEMORY = ("peak_allocated_bytes", "predicted_peak_bytes")
RESERVED = "peak_reserved_bytes"
"""Judged where CUDA graphs hold memory that counts as freed; elsewhere the allocator's rounding would be."""
MEMORY_SHARE = 0.005
MEMORY_BYTES = 2 * 2**20
"""Memory may grow by this share and this much on top: the allocator hands out blocks of 2 MiB."""


def findings(base: pd.DataFrame, head: pd.DataFrame, *, may_lack: bool) -> tuple[Finding, ...]:
    """What is counted differently, cells of the base first and in their order.

    `base`, `head`: summaries, one row a cell, indexed by cell_id. `may_lack`: that a cell is on one side alone is told
    and does not fail.
    """
    found: list[Finding] = []
    gone = base.index.difference(head.index, sort=False)
    for cell in gone:
        found.append(
            _one_sided(cell, str(base.loc[cell, "status"]), None, "is gone: the head has no row", not may_lack)
        )
    for cell in head.index.difference(base.index, sort=False):
        found.append(_one_sided(cell, None, str(head.loc[cell, "status"]), "is new: the base has no row", False))
    common = base.index.intersection(head.index, sort=False)
    base, head = base.loc[common], head.loc[common]
    found += _statuses(base, head)
    for column in EQUAL:
        before, after = base[column].astype("Float64"), head[column].astype("Float64")
        for cell in common[(before != after).fillna(False).to_numpy(dtype=bool)]:
            found.append(_changed(cell, column, before[cell], after[cell], "must be equal"))
    graphs = (head["cuda_graph_launches"].fillna(0) > 0).to_numpy()
    for column in (*MEMORY, RESERVED):
        before, after = base[column].astype("Float64"), head[column].astype("Float64")
        grown = (after - before > MEMORY_SHARE * before + MEMORY_BYTES).fillna(False).to_numpy(dtype=bool)
        for cell in common[grown & graphs if column == RESERVED else grown]:
            found.append(_changed(cell, column, before[cell], after[cell], "may grow by 0.5 % and 2 MiB"))
    before, after = base["graph_breaks"].astype("Float64"), head["graph_breaks"].astype("Float64")
    for cell in common[(after > before).fillna(False).to_numpy(dtype=bool)]:
        found.append(_changed(cell, "graph_breaks", before[cell], after[cell], "may not grow"))
    return tuple(found)


def _statuses(base: pd.DataFrame, head: pd.DataFrame) -> Iterator[Finding]:
    for cell in base.index[(base["status"] != head["status"]).to_numpy()]:
        before, after = str(base.loc[cell, "status"]), str(head.loc[cell, "status"])
        message = head["error_message"].notna()[cell] and head.loc[cell, "error_message"]
        yield Finding(
            cell_id=cell,
            column="status",
            base=before,
            head=after,
            what=f"was {before}, is {after}" + (f": {message}" if after != "ok" and message else ""),
            fails=before == "ok" or (after in FAILED and before not in FAILED),
        )
    # Processes that failed beside others that did not: the figures stand, and the failure is worth a look.
    partly = ((base["status"] == "ok") & (head["status"] == "ok") & head["error_message"].notna()).to_numpy()
    for cell, message in head.loc[partly, "error_message"].items():
        what = f"some processes of the head failed: {message}"
        yield Finding(cell_id=str(cell), column="status", base="ok", head="ok", what=what, fails=False)


def _one_sided(cell: str, base: str | None, head: str | None, what: str, fails: bool) -> Finding:
    return Finding(cell_id=cell, column="cell_id", base=base, head=head, what=what, fails=fails)


def _changed(cell: str, column: str, base: float, head: float, rule: str) -> Finding:
    what = f"{column} {base:,.0f} → {head:,.0f} ({rule})"
    return Finding(cell_id=cell, column=column, base=float(base), head=float(head), what=what, fails=True)
