"""How far a child has come with its group, and by when it must be heard of again."""

from __future__ import annotations

import time

from archbench.model.messages import CellFinished, CellStarted, ChildEvent, PhaseStarted

SILENCE_S = 300.0
"""Allowed outside any cell: forking, importing from a slow disk, and ending."""


class Progress:
    """Follows one child by what it says. Times are those of `time.monotonic`."""

    def __init__(self) -> None:
        self.cell_id: str | None = None
        self.phase: str | None = None
        self._allow(SILENCE_S)

    def note(self, event: ChildEvent) -> None:
        """Take account of something that the child said."""
        match event:
            case CellStarted():
                self.cell_id, self.phase = event.cell_id, None
                self._allow(event.deadline_s)
            case PhaseStarted():
                self.cell_id, self.phase = event.cell_id, event.phase
            case CellFinished():
                self.cell_id = self.phase = None
                self._allow(SILENCE_S)

    @property
    def left_s(self) -> float:
        """Time until the child is overdue; negative once it is."""
        return self._due - time.monotonic()

    def _allow(self, seconds: float) -> None:
        self.allowed_s = seconds
        self._due = time.monotonic() + seconds
