"""What the processes of one run have found out of its device and its networks, for those that come after them."""

from __future__ import annotations

from archbench.model.cell import Group
from archbench.model.counts import Carried, Counts, MemoryModel
from archbench.model.environment import Calibration, Environment
from archbench.model.messages import Calibrated, CellFinished, Event


class CarriedFigures:
    """Counts by network, memory models by its toggles: each is made once a run, by the first process that needs it.

    `calibration`: the device's ceilings as far as they are known; `calibrate`: they are to be found out anew.
    """

    def __init__(self, calibration: Calibration | None = None, *, calibrate: bool = False) -> None:
        self.calibration = calibration
        self._calibrate = calibrate
        self._asked: set[str | None] = set()
        self._counts: dict[str, Counts] = {}
        self._memory: dict[str, MemoryModel] = {}

    def calibrates(self, environment: Environment) -> bool:
        """Whether a process is to find the ceilings out: the first that is asked for on a device, and no other."""
        first = environment.machine not in self._asked
        self._asked.add(environment.machine)
        return self._calibrate and first

    def note(self, event: Event) -> None:
        """Keep what came with it."""
        if isinstance(event, Calibrated):
            self.calibration = event.calibration
        elif isinstance(event, CellFinished):
            if event.found.counts is not None:
                self._counts[event.record.variant] = event.found.counts
            self._memory.update(event.found.memory)

    def of(self, group: Group) -> Carried:
        """What a process that measures `group` need not find out again."""
        keys = {cell.group_id for cell in group.cells}
        return Carried(
            counts=self._counts.get(group.cells[0].network.label),
            memory={key: self._memory[key] for key in keys if key in self._memory},
        )
