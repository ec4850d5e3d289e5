"""What is counted and not timed, and so can be held to the letter: one process a side is enough."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from archbench.model.comparison import CountedDifference
from archbench.model.reasons import LOWER_BOUND, REASONS
from archbench.model.record import FAILED
from archbench.model.units import MIB, change, percent, whole

if TYPE_CHECKING:
    import pandas as pd

EQUAL = ("params", "macs")
"""Always countable: a head without them has a broken counter."""
MEMORY = ("peak_allocated_bytes", "predicted_peak_bytes")
RESERVED = "peak_reserved_bytes"
"""Judged where CUDA graphs hold memory that counts as freed; elsewhere the allocator's rounding would be."""
BREAKS = "graph_breaks"
MEMORY_SHARE = 0.005
MEMORY_BYTES = 2 * 2**20
"""Memory may grow by this share and this much on top: the allocator hands out blocks of 2 MiB."""
_MAY_GROW = f"may grow by {percent(MEMORY_SHARE)} and {whole(MEMORY_BYTES, MIB)} {MIB.symbol}"


def findings(base: pd.DataFrame, head: pd.DataFrame, *, may_lack: bool) -> tuple[CountedDifference, ...]:
    """What is counted differently, cells of the base first and in their order.

    `base`, `head`: summaries, one row a cell, indexed by cell_id. `may_lack`: that a cell is on one side alone is told
    and does not fail.
    """
    found = []
    for cell in base.index.difference(head.index, sort=False):
        status, what = str(base.loc[cell, "status"]), "is gone: the head has no row"
        found.append(_difference(cell, "cell_id", status, None, what, fails=not may_lack))
    for cell in head.index.difference(base.index, sort=False):
        found.append(_difference(cell, "cell_id", None, str(head.loc[cell, "status"]), "is new: the base has no row"))
    common = base.index.intersection(head.index, sort=False)
    base, head = base.loc[common], head.loc[common]
    return (*found, *_statuses(base, head), *_figures(base, head))


def _difference(
    cell: str, column: str, base: float | str | None, head: float | str | None, what: str, *, fails: bool = False
) -> CountedDifference:
    return CountedDifference(cell_id=cell, column=column, base=base, head=head, what=what, fails=fails)


def _statuses(base: pd.DataFrame, head: pd.DataFrame) -> Iterator[CountedDifference]:
    for cell in base.index[((base["status"] != head["status"]) | base["status"].isin(FAILED)).to_numpy()]:
        before, after = str(base.loc[cell, "status"]), str(head.loc[cell, "status"])
        what = _ending(before, after, base.loc[cell, "error_message"], head.loc[cell, "error_message"])
        fails = before == "ok" or (after in FAILED and before not in FAILED)
        yield _difference(cell, "status", before, after, what, fails=fails)
    # Processes that failed beside others that did not: the figures stand, and the failure is worth a look.
    partly = ((base["status"] == "ok") & (head["status"] == "ok") & head["error_message"].notna()).to_numpy()
    for cell, message in head.loc[partly, "error_message"].items():
        yield _difference(str(cell), "status", "ok", "ok", f"some processes of the head failed: {message}")


def _ending(before: str, after: str, base_error: object, head_error: object) -> str:
    """How a cell ended on each side, with the error that is the latest news of it."""
    base_error, head_error = (error if isinstance(error, str) else "" for error in (base_error, head_error))
    if after == "ok":
        return f"was {before}{f' ({base_error})' if base_error else ''}, is ok"
    how = f"ended with {after} on both sides" if before == after else f"was {before}, is {after}"
    return f"{how}: {head_error}" if head_error else how


def _figures(base: pd.DataFrame, head: pd.DataFrame) -> Iterator[CountedDifference]:
    """Figures that changed beyond their rule, and those that the head no longer has."""
    launches = [side["cuda_graph_launches"].astype("Float64") for side in (head, base)]
    graphs = launches[0].fillna(launches[1]).fillna(0) > 0
    ran = (base["status"] == "ok") & (head["status"] == "ok")
    for column in (*EQUAL, *MEMORY, RESERVED, BREAKS):
        before, after = base[column].astype("Float64"), head[column].astype("Float64")
        lost = ran & before.notna() & after.isna()
        if column in EQUAL:
            broken, rule = before != after, "must be equal"
        elif column == BREAKS:
            broken, rule = after > before, "may not grow"
        else:
            broken, rule = after - before > MEMORY_SHARE * before + MEMORY_BYTES, _MAY_GROW
        if column == RESERVED:
            broken, lost = broken & graphs, lost & graphs
        for cell in base.index[broken.fillna(False).to_numpy(dtype=bool)]:
            one, other = float(before[cell]), float(after[cell])
            by = f", {change(other / one - 1)}" if one else ""
            what = f"{column} {one:,.0f} → {other:,.0f}{by} ({rule})"
            yield _difference(cell, column, one, other, what, fails=True)
        for cell in base.index[lost.to_numpy(dtype=bool)]:
            own = f"{column}:"
            codes = [code.removeprefix(own) for code in head.loc[cell, "reasons"] if code.startswith(own)]
            if "not_requested" in codes:
                continue  # taken away from the suite on purpose, and nothing lost
            why = next((REASONS[code].meaning for code in codes if code in REASONS), "its rows give no reason")
            what = f"{column} {before[cell]:,.0f} → none: {why}"
            yield _difference(cell, column, float(before[cell]), None, what, fails=column in EQUAL)
    for cell, before, after in zip(base.index, base["reasons"], head["reasons"], strict=True):
        if LOWER_BOUND in after and LOWER_BOUND not in before:
            what = f"macs is a lower bound in the head, not in the base: {REASONS[LOWER_BOUND].meaning}"
            yield _difference(cell, "macs", None, None, what)
