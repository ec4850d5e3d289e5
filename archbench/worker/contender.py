"""A live process that takes turns with others: where it comes from, and what it can be told."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from msgspec import structs

from archbench.model.blank import empty_record
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
    Reply,
    Surveyed,
    TakeTurn,
    TurnTaken,
    TurnTask,
    TurnWord,
    Warmed,
    WarmUp,
)
from archbench.model.record import Record, Status
from archbench.worker.ledger import FactsOf
from archbench.worker.local import DEFAULT_ISOLATION, HOST_GRACE_S, Isolation, catalogue_facts, worker_command
from archbench.worker.worker_process import WorkerLostError, WorkerProcess

TURN_PATIENCE = 50.0
"""A block that takes so many times what it should is hung; a machine that swaps is slower by less."""
TURN_LEAST_PATIENCE_S = 60.0
SEEING_OFF_S = 60.0
"""For a process to end; one that builds, or compiles, hears only afterwards that it was sent away."""

_Answer = TypeVar("_Answer", Surveyed, Built, Warmed, TurnTaken, CellFinished)


class ContenderFailedError(Exception):
    """The process ended, with a row that says how, before it could do what it was told."""

    def __init__(self, row: Record) -> None:
        super().__init__(f"{row.cell_id}: {row.status}: {row.error_message}")
        self.row = row


class Camp:
    """Where the processes of one side come from: an interpreter and its environment, with a worker kept running.

    A context manager: leaving it ends every process that it started. `cwd` is where the worker runs, and `pythonpath`
    goes before whatever the interpreter imports from otherwise.
    """

    def __init__(
        self,
        python: str,
        *,
        device: str = "cpu",
        arguments: Sequence[str] = ("-m", "archbench.worker"),
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        log: Path | None = None,
        isolation: Isolation = DEFAULT_ISOLATION,
        facts: FactsOf = catalogue_facts,
    ) -> None:
        self._command = worker_command(python, arguments, device, isolation)
        self._env = env
        self._cwd = cwd
        self._log = log
        self._isolation = isolation
        self.facts = facts
        self._worker: WorkerProcess | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> Ready:
        """Start a worker unless one is waiting; return its greeting. Raises `UnfitError` where that fails."""
        return self._running().ready

    def send(self, message: TurnTask | TurnWord) -> None:
        """Hand it a task or a word, starting a worker if there is none."""
        self._running().send(message)

    def receive(self, patience_s: float) -> Reply:
        """Its next message. Raises `WorkerLostError`, and has ended the worker, when there is none within that time."""
        assert self._worker is not None
        try:
            return self._worker.receive(patience_s)
        except WorkerLostError:
            self._worker = None
            raise

    def dismiss(self) -> None:
        """The child has ended: where there is no fork, so has its worker."""
        if self._isolation == "spawn":
            self.close()

    def kill(self) -> None:
        """End the worker and its child at once."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()

    def close(self) -> None:
        """End the worker, and what it is doing."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()

    def _running(self) -> WorkerProcess:
        if self._worker is None:
            self._worker = WorkerProcess(self._command, self._env, self._log, self._cwd)
        return self._worker


def start_afresh(camps: Sequence[Camp]) -> list[Ready]:
    """End the camps' workers and start new ones, side by side; return their greetings.

    A fork inherits its parent's address space, and with it a good or a bad place for libraries and heap: children of
    one pair of workers differ by the same 1-3 % each time (small networks on a CPU), which no number of pairs from
    them would average out. Pairs that a test takes for independent must come from workers of their own.
    Raises `UnfitError` where one does not start.
    """
    for camp in camps:
        camp.close()
    with ThreadPoolExecutor(len(camps)) as pool:
        return list(pool.map(Camp.start, camps))


class Contender:
    """One live process of one cell. Every method but `begin` raises `ContenderFailedError` once it cannot go on."""

    def __init__(self, camp: Camp, request: TurnTask) -> None:
        self._camp = camp
        self._request = request
        self._protocol = request.task.protocol
        self._started = datetime.now(UTC)
        self._phase = "start"
        self.over = False
        """It has ended, in whatever way."""

    def begin(self) -> None:
        """Start it; it surveys its cell unasked."""
        self._camp.send(self._request)

    def surveyed(self) -> Surveyed:
        """Wait for what it knows before building."""
        return self._answer(Surveyed, self._protocol.cell_deadline_s)

    def build(self) -> None:
        """Have it build; does not wait, since building may go on beside another's."""
        self._camp.send(Build())

    def built(self) -> Built:
        """Wait until it has built."""
        return self._answer(Built, self._protocol.cell_deadline_s)

    def warm_up(self, steps: int | None, rivals: tuple[int, ...] = ()) -> Warmed:
        """Have it make its first call and warm up, or warm up further, for `steps` or until level."""
        compiling = self._protocol.compile_deadline_s if self._request.cell.compile_mode != "off" else 0.0
        self._camp.send(WarmUp(steps=steps, rivals=rivals))
        return self._answer(Warmed, self._protocol.cell_deadline_s + compiling)

    def take_turn(self, steps: int, expected_s: float) -> TurnTaken:
        """Have it time one block, which should take `expected_s`."""
        self._camp.send(TakeTurn(steps=steps))
        return self._answer(TurnTaken, max(TURN_LEAST_PATIENCE_S, TURN_PATIENCE * expected_s))

    def finish(self) -> Record:
        """Have it give its row and end."""
        self._camp.send(Finish())
        finished = self._answer(CellFinished, self._protocol.cell_deadline_s)
        self._see_off()
        return finished.record

    def send_away(self) -> None:
        """End it without wanting to know more; never raises."""
        if not self.over:
            self._camp.send(Finish())
            self._see_off()

    def _answer(self, kind: type[_Answer], patience_s: float) -> _Answer:
        """Its next answer, which must be of this kind unless it has failed."""
        due = time.monotonic() + patience_s
        while True:
            try:
                reply = self._camp.receive(max(0.0, due - time.monotonic()) + HOST_GRACE_S * (self._phase == "start"))
            except WorkerLostError as lost:
                self.over = True
                raise ContenderFailedError(self._obituary(lost.status, lost.message)) from None
            if isinstance(reply, kind):
                return reply
            match reply:
                case CellStarted():
                    continue
                case PhaseStarted():
                    self._phase = reply.phase
                case CellFinished():
                    self._see_off()
                    raise ContenderFailedError(reply.record)
                case ChildDied():
                    self._see_off()
                    raise ContenderFailedError(self._obituary(reply.status, reply.message))
                case _:
                    self.over = True
                    self._camp.kill()
                    message = f"worker killed: it said {type(reply).__name__} where {kind.__name__} was to come"
                    raise ContenderFailedError(self._obituary("crashed", message))

    def _see_off(self) -> None:
        """Wait until its worker has cleared up behind it, whatever it still says; kill it where that takes too long."""
        self.over = True
        due = time.monotonic() + SEEING_OFF_S
        try:
            while not isinstance(self._camp.receive(due - time.monotonic()), GroupFinished):
                pass
        except WorkerLostError:
            return  # the next one starts in a new worker
        self._camp.dismiss()

    def _obituary(self, status: Status, message: str) -> Record:
        cell, context = self._request.cell, self._request.task.context
        return structs.replace(
            empty_record(cell, context, self._camp.facts(cell.network)),
            status=status,
            error_phase=self._phase,
            error_message=message,
            started_at=self._started.isoformat(timespec="milliseconds"),
            duration_s=(datetime.now(UTC) - self._started).total_seconds(),
        )
