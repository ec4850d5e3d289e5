"""What the processes of one run have found out of its networks, for those that come after them."""

from __future__ import annotations

from archbench.model.cell import Group
from archbench.model.counts import Carried, Counts, MemoryModel
from archbench.model.messages import CellFinished


class CarriedFigures:
    """Counts by network, memory models by its toggles: each is made once a run, by the first process that needs it."""

    def __init__(self) -> None:
        self._counts: dict[str, Counts] = {}
        self._memory: dict[str, MemoryModel] = {}

    def note(self, finished: CellFinished) -> None:
        """Keep what came with a row."""
        if finished.found.counts is not None:
            self._counts[finished.record.variant] = finished.found.counts
        self._memory.update(finished.found.memory)

    def of(self, group: Group) -> Carried:
        """What a process that measures `group` need not find out again."""
        keys = {cell.group_id for cell in group.cells}
        return Carried(
            counts=self._counts.get(group.cells[0].network.label),
            memory={key: self._memory[key] for key in keys if key in self._memory},
        )
