"""A live process that takes turns with others, and what it can be told."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TypeVar

from archbench.model.messages import (
    Build,
    Built,
    CellFinished,
    CellStarted,
    ChildDied,
    Finish,
    GroupFinished,
    PhaseStarted,
    Ready,
    Surveyed,
    TakeTurn,
    TurnTaken,
    TurnTask,
    Warmed,
    WarmUp,
)
from archbench.model.record import Record, Status, failed_record
from archbench.worker.client import HOST_GRACE_S, WorkerClient, WorkerLostError

TURN_PATIENCE = 50.0
"""A block that takes so many times what it should is hung; a machine that swaps is slower by less."""
TURN_LEAST_PATIENCE_S = 60.0
CLOSING_S = 60.0
"""For a process to end; one that builds, or compiles, hears only afterwards that it was sent away."""

_Answer = TypeVar("_Answer", Surveyed, Built, Warmed, TurnTaken, CellFinished)


class ProcessFailedError(Exception):
    """The process ended, with a row that says how, before it could do what it was told."""

    def __init__(self, row: Record) -> None:
        super().__init__(f"{row.cell_id}: {row.status}: {row.error_message}")
        self.row = row


def start_afresh(workers: Sequence[WorkerClient]) -> list[Ready]:
    """End these workers and start new ones, side by side; return their greetings.

    A fork inherits its parent's address space, and with it a good or a bad place for libraries and heap: children of
    one pair of workers differ by the same 1-3 % each time (small networks on a CPU), which no number of pairs from
    them would average out. Pairs that a test takes for independent must come from workers of their own.
    Raises `UnfitError` where one does not start.
    """
    for worker in workers:
        worker.close()
    with ThreadPoolExecutor(len(workers)) as pool:
        return list(pool.map(WorkerClient.start, workers))


class InterleavedProcess:
    """One live process of one cell. Every method but `begin` raises `ProcessFailedError` once it cannot go on."""

    def __init__(self, worker: WorkerClient, request: TurnTask) -> None:
        self._worker = worker
        self._request = request
        self._protocol = request.task.protocol
        self._started = datetime.now(UTC)
        self._phase = "start"
        self.over = False
        """It has ended, in whatever way."""

    def begin(self) -> None:
        """Start it; it surveys its cell unasked."""
        self._worker.send(self._request)

    def surveyed(self) -> Surveyed:
        """Wait for what it knows before building."""
        return self._answer(Surveyed, self._protocol.cell_deadline_s)

    def build(self) -> None:
        """Have it build; does not wait, since building may go on beside another's."""
        self._worker.send(Build())

    def built(self) -> Built:
        """Wait until it has built."""
        return self._answer(Built, self._protocol.cell_deadline_s)

    def warm_up(self, steps: int | None, rivals: tuple[int, ...] = ()) -> Warmed:
        """Have it make its first call and warm up, or warm up further, for `steps` or until level."""
        compiling = self._protocol.compile_deadline_s if not self._request.cell.is_eager else 0.0
        self._worker.send(WarmUp(steps=steps, rivals=rivals))
        return self._answer(Warmed, self._protocol.cell_deadline_s + compiling)

    def take_turn(self, steps: int, expected_s: float) -> TurnTaken:
        """Have it time one block, which should take `expected_s`."""
        self._worker.send(TakeTurn(steps=steps))
        return self._answer(TurnTaken, max(TURN_LEAST_PATIENCE_S, TURN_PATIENCE * expected_s))

    def finish(self) -> Record:
        """Have it give its row and end."""
        self._worker.send(Finish())
        finished = self._answer(CellFinished, self._protocol.cell_deadline_s)
        self._wait_closed()
        return finished.record

    def send_away(self) -> None:
        """End it without wanting to know more; never raises."""
        if not self.over:
            self._worker.send(Finish())
            self._wait_closed()

    def _answer(self, kind: type[_Answer], patience_s: float) -> _Answer:
        """Its next answer, which must be of this kind unless it has failed."""
        due = time.monotonic() + patience_s
        while True:
            try:
                reply = self._worker.receive(max(0.0, due - time.monotonic()) + HOST_GRACE_S * (self._phase == "start"))
            except WorkerLostError as lost:
                self.over = True
                raise ProcessFailedError(self._failed(lost.status, lost.message)) from None
            if isinstance(reply, kind):
                return reply
            match reply:
                case CellStarted():
                    continue
                case PhaseStarted():
                    self._phase = reply.phase
                case CellFinished():
                    self._wait_closed()
                    raise ProcessFailedError(reply.record)
                case ChildDied():
                    self._wait_closed()
                    raise ProcessFailedError(self._failed(reply.status, reply.message))
                case _:
                    self.over = True
                    self._worker.kill()
                    message = f"worker killed: it said {type(reply).__name__} where {kind.__name__} was to come"
                    raise ProcessFailedError(self._failed("crashed", message))

    def _wait_closed(self) -> None:
        """Wait until its worker has cleared up behind it, whatever it still says; kill it where that takes too long."""
        self.over = True
        due = time.monotonic() + CLOSING_S
        try:
            while not isinstance(self._worker.receive(due - time.monotonic()), GroupFinished):
                pass
        except WorkerLostError:
            pass  # the next one starts in a new worker

    def _failed(self, status: Status, message: str) -> Record:
        cell, context = self._request.cell, self._request.task.context
        facts = self._worker.facts(cell.network)
        return failed_record(cell, context, facts, status, message, phase=self._phase, began=self._started)
