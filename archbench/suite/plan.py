"""Plans: every cell of a suite on one device, in the order in which a run measures them."""

from __future__ import annotations

from collections.abc import Sequence

from archbench.model.axes import DeviceKind
from archbench.model.cell import Cell, Plan, Skip
from archbench.model.errors import UsageError
from archbench.model.suite import MAX_ROUNDS, Suite
from archbench.suite.expand import expand
from archbench.suite.match import select_only
from archbench.suite.one_cell import parse_cell
from archbench.suite.order import CellVisit, grouped, ordered, remaining, twin_group
from archbench.suite.support import unsupported

__all__ = ["CellVisit", "make_plan", "parse_cell", "remaining"]


def make_plan(suite: Suite, device: DeviceKind, *, only: Sequence[str] = (), rounds: int | None = None) -> Plan:
    """Plan a run of `suite` on `device`: its cells in groups, the groups in an order of their own each round.

    `only` keeps the cells that match any pattern (`resnet*`, `resnet50@batch_size=1`); `rounds` goes before the
    suite's. A cell that cannot be what it says on this device is in `skipped` with the reason.
    Raises `UsageError` for a pattern that matches nothing, for rounds out of range, and where no cell is left.
    """
    count = suite.rounds if rounds is None else rounds
    if not 1 <= count <= MAX_ROUNDS:
        raise UsageError(f"--rounds {count} is out of range; give 1 to {MAX_ROUNDS}")
    cells = expand(suite, device)
    if not cells:
        raise UsageError(f"suite {suite.suite} has no cell for {device}; see its `devices:` and `exclude:`")
    if only:
        cells = select_only(cells, only)
    runnable, skipped = _sorted_out(cells)
    groups = grouped(runnable)
    twin = twin_group(groups, suite.twin)
    return Plan(
        suite=suite.suite,
        device=device,
        seed=suite.seed,
        rounds=tuple(ordered(groups, twin, suite.seed, number) for number in range(count)),
        skipped=tuple(skipped),
    )


def _sorted_out(cells: Sequence[Cell]) -> tuple[list[Cell], list[Skip]]:
    runnable, skipped = [], []
    for cell in cells:
        reason = unsupported(cell)
        if reason is None:
            runnable.append(cell)
        else:
            skipped.append(Skip(cell=cell, reason=reason))
    return runnable, skipped
