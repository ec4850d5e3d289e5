"""Live processes that take turns block by block, so that what the machine does meanwhile happens to all of them alike.

Each process is a fresh child of a worker of its side; the parent passes the turn by a word and waits for the answer,
so that never two of them work at once. Processes one after the other differ by whatever the machine did in between:
on a noisy shared CPU 9-24 % for identical networks, against 0.7-1.1 % in turns.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from msgspec import structs

from archbench.device.kind import kind_named
from archbench.model.comparison import Frozen, ProcessPair, Turn
from archbench.model.environment import Environment
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
from archbench.model.record import Record, Status, empty_record
from archbench.worker.client import HOST_GRACE_S, WorkerClient, WorkerLostError
from archbench.worker.group_tracker import GroupTracker

MEMORY_SHARE = 0.9
"""Of the device's memory that processes may fill together."""
MOST_TURNS = 1.5
"""Rejected turns are repeated until there were this many times the turns asked for."""
TURN_PATIENCE = 50.0
"""A block that takes so many times what it should is hung; a machine that swaps is slower by less."""
TURN_LEAST_PATIENCE_S = 60.0
CLOSING_S = 60.0
"""For a process to end; one that builds, or compiles, hears only afterwards that it was sent away."""

_Answer = TypeVar("_Answer", Surveyed, Built, Warmed, TurnTaken, CellFinished)


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


def take_turns(
    workers: Sequence[WorkerClient],
    requests: Sequence[TurnTask],
    *,
    turns: int,
    block_s: float,
    rng: random.Random,
    frozen: Frozen | None = None,
    alike: bool = True,
) -> ProcessPair:
    """Start one fresh process a worker, warm all of them up, and let them take turns; their rows and times.

    Without `frozen` each process warms up until its step is level; if they are `alike` (two sides of one cell) those
    that needed fewer steps then make up for it, and all blocks have the same number of steps. The answer's `frozen`
    holds the numbers, for later pairs to be equal.
    A process that fails ends the pair: its row says how, and no time is given. Processes that are predicted not to
    fit in memory together, or that run out of it together, run one after the other. Raises `UnfitError` where a worker
    does not start, and nothing else.
    """
    began, started_at = time.monotonic(), datetime.now(UTC).isoformat(timespec="milliseconds")
    processes = [InterleavedProcess(worker, request) for worker, request in zip(workers, requests, strict=True)]
    match_ = _Match(processes=processes, wanted=turns, block_s=block_s, rng=rng, frozen=frozen, alike=alike)
    try:
        match_.play()
    except BaseException:
        # Ctrl-C, or a worker that does not start: nobody waits for what the others still have to say.
        for worker in workers:
            worker.kill()
        raise
    return ProcessPair(
        rows=tuple(process.row for process in processes),
        turns=tuple(match_.turns),
        frozen=match_.frozen,
        origins=tuple(process.origin for process in processes),
        started_at=started_at,
        duration_s=time.monotonic() - began,
    )


def fit_together(predicted: Sequence[int | None], environment: Environment) -> bool:
    """Whether processes with these predicted peaks fit in the device's memory at the same time.

    What cannot be predicted is tried: a process that runs out of memory says so in its row.
    """
    known = [peak for peak in predicted if peak is not None]
    if len(known) < len(predicted):
        return True
    kind = kind_named(environment.kind)
    room = kind.room(environment)
    return room is None or sum(known) + kind.process_bytes * len(known) <= MEMORY_SHARE * room


class ProcessFailedError(Exception):
    """The process ended, with a row that says how, before it could do what it was told."""


class InterleavedProcess:
    """A process of one cell that takes turns with others. What waits for its answer raises `ProcessFailedError`.

    It can begin again once it is over; `row` is what is known of its cell, and `origin` where its network came from.
    """

    def __init__(self, worker: WorkerClient, request: TurnTask) -> None:
        self.task = request.task
        self.row = empty_record(request.cell, request.task.context, worker.facts(request.cell.network))
        self.origin: str | None = None
        self._worker = worker
        self._request = request
        self._over = True

    def begin(self) -> None:
        """Start it; it surveys its cell unasked."""
        self._tracker = GroupTracker(self.task, self._worker.facts)
        self._tracker.begin()
        self._over = False
        self._worker.send(self._request)

    def surveyed(self) -> Surveyed:
        """Wait for what it knows before building."""
        return self._answer(Surveyed, self.task.protocol.cell_deadline_s)

    def build(self) -> None:
        """Have it build; does not wait, since building may go on beside another's."""
        self._worker.send(Build())

    def built(self) -> None:
        """Wait until it has built."""
        self.origin = self._answer(Built, self.task.protocol.cell_deadline_s).origin

    def warm_up(self, steps: int | None, rivals: tuple[int, ...] = ()) -> Warmed:
        """Have it make its first call and warm up, or warm up further, for `steps` or until level."""
        compiling = self.task.protocol.compile_deadline_s if not self._request.cell.is_eager else 0.0
        self._worker.send(WarmUp(steps=steps, rivals=rivals))
        return self._answer(Warmed, self.task.protocol.cell_deadline_s + compiling)

    def take_turn(self, steps: int, expected_s: float) -> TurnTaken:
        """Have it time one block, which should take `expected_s`."""
        self._worker.send(TakeTurn(steps=steps))
        return self._answer(TurnTaken, max(TURN_LEAST_PATIENCE_S, TURN_PATIENCE * expected_s))

    def finish(self) -> Record:
        """Have it give its row and end."""
        self._worker.send(Finish())
        self.row = self._answer(CellFinished, self.task.protocol.cell_deadline_s).record
        self._wait_closed()
        return self.row

    def send_away(self) -> None:
        """End it without wanting to know more; never raises."""
        if not self._over:
            self._worker.send(Finish())
            self._wait_closed()

    def _answer(self, kind: type[_Answer], patience_s: float) -> _Answer:
        """Its next answer, which must be of this kind unless it has failed."""
        due, progress = time.monotonic() + patience_s, self._tracker.progress
        while True:
            try:
                reply = self._worker.receive(max(0.0, due - time.monotonic()) + HOST_GRACE_S * (progress.phase is None))
            except WorkerLostError as lost:
                self._over = True
                raise self._failed(lost.status, lost.message) from None
            if isinstance(reply, kind):
                return reply
            match reply:
                case CellStarted() | PhaseStarted():
                    progress.note(reply)
                case CellFinished():
                    self._wait_closed()
                    self.row = reply.record
                    raise ProcessFailedError
                case ChildDied():
                    self._wait_closed()
                    raise self._failed(reply.status, reply.message)
                case _:
                    self._over = True
                    self._worker.kill()
                    message = f"worker killed: it said {type(reply).__name__} where {kind.__name__} was to come"
                    raise self._failed("crashed", message)

    def _wait_closed(self) -> None:
        """Wait until its worker has cleared up behind it, whatever it still says; kill it where that takes too long."""
        self._over = True
        due = time.monotonic() + CLOSING_S
        with suppress(WorkerLostError):  # the next one starts in a new worker
            while not isinstance(self._worker.receive(due - time.monotonic()), GroupFinished):
                pass

    def _failed(self, status: Status, message: str) -> ProcessFailedError:
        """Enter how it ended; the error that says so."""
        (finished,) = self._tracker.record_failure(status, message)
        self.row = finished.record
        return ProcessFailedError(message)


@dataclass(kw_only=True)
class _Match:
    """One pair while it is played: its turns and numbers as far as they are known; its rows are the processes'."""

    processes: Sequence[InterleavedProcess]
    wanted: int
    """Turns that count."""
    block_s: float
    rng: random.Random
    frozen: Frozen | None
    alike: bool
    turns: list[Turn] = field(default_factory=list)

    def play(self) -> None:
        """Play it to its end. Where a process fails the others show alone whether they work, but give no times."""
        alternate = self.frozen is not None and self.frozen.alternate
        if not alternate and self._play_together():
            return
        order = self._shuffled()
        whole = [process for process in order if process.row.status in ("ok", "skipped", "oom")]
        if len(whole) == len(order):
            self._play_one_by_one(order, self.wanted)
        else:
            self._play_one_by_one(whole, 1)
            self.turns = []

    def _play_together(self) -> bool:
        """All at once, in turns. False where that did not work: one failed, or there is no memory for all of them."""
        processes = self.processes
        try:
            for process in processes:
                process.begin()
            seen = [process.surveyed() for process in processes]
            environment = processes[0].task.context.environment
            fit = fit_together([one.predicted_peak_bytes for one in seen], environment)
            if fit:
                for process in processes:
                    process.build()
                for process in processes:
                    process.built()
                self._warm_up([one.pid for one in seen])
                self._take_turns()
                for process in processes:
                    process.finish()
        except ProcessFailedError:
            self.turns = []
            fit = False
        for process in processes:
            process.send_away()
        return fit

    def _warm_up(self, pids: Sequence[int]) -> None:
        """One after the other; if they are alike, all by the same number of steps."""
        warmed: dict[InterleavedProcess, Warmed] = {}
        for process in self._shuffled():
            number = self.processes.index(process)
            rivals = tuple(pid for other, pid in enumerate(pids) if other != number)
            steps = self.frozen.warmup_steps[number] if self.frozen else None
            warmed[process] = process.warm_up(steps, rivals)
        if self.frozen is not None:
            return
        if self.alike:
            most, step_s = max(one.steps for one in warmed.values()), min(one.step_s for one in warmed.values())
            for process, one in warmed.items():
                if one.steps < most:
                    process.warm_up(most - one.steps)
                warmed[process] = structs.replace(one, steps=most, step_s=step_s)
        self._freeze(warmed)

    def _take_turns(self) -> None:
        assert self.frozen is not None
        steps = dict(zip(self.processes, self.frozen.steps, strict=True))
        kept = 0
        while kept < self.wanted and len(self.turns) < MOST_TURNS * self.wanted:
            order = self._shuffled()
            taken = {process: process.take_turn(steps[process], self.block_s) for process in order}
            kept += self._add_turn([taken[process] for process in self.processes], order[0])

    def _play_one_by_one(self, order: Sequence[InterleavedProcess], turns: int) -> None:
        """Each process from its start to its end before the next one begins."""
        taken: dict[InterleavedProcess, list[TurnTaken]] = {}
        warmed: dict[InterleavedProcess, Warmed] = {}
        for process in order:
            with suppress(ProcessFailedError):
                taken[process] = self._play_alone(process, turns, warmed)
        if len(taken) < len(self.processes):
            return
        if self.frozen is None:
            self._freeze(warmed, alternate=True)
        for blocks in zip(*(taken[process] for process in self.processes), strict=True):
            self._add_turn(blocks, order[0])

    def _play_alone(
        self, process: InterleavedProcess, turns: int, warmed: dict[InterleavedProcess, Warmed]
    ) -> list[TurnTaken]:
        """One process from its start to its end; `warmed` tells what those before it needed, and is added to."""
        process.begin()
        process.surveyed()
        process.build()
        process.built()
        if self.frozen is not None:
            number = self.processes.index(process)
            process.warm_up(self.frozen.warmup_steps[number])
            steps = self.frozen.steps[number]
        else:
            # The first cannot make up for what a later one needs, so it sets the number for all.
            model = next(iter(warmed.values()), None) if self.alike else None
            mine = process.warm_up(model.steps if model else None)
            warmed[process] = structs.replace(mine, step_s=model.step_s) if model else mine
            steps = self._steps(warmed[process])
        taken = [process.take_turn(steps, self.block_s) for _ in range(turns)]
        process.finish()
        return taken

    def _add_turn(self, blocks: Sequence[TurnTaken], first: InterleavedProcess) -> bool:
        """Enter one turn of all, and say whether it counts."""
        kept = all(block.kept for block in blocks)
        seconds = tuple(block.seconds for block in blocks)
        self.turns.append(Turn(seconds=seconds, first=self.processes.index(first), kept=kept))
        return kept

    def _freeze(self, warmed: dict[InterleavedProcess, Warmed], *, alternate: bool = False) -> None:
        ready = [warmed[process] for process in self.processes]
        self.frozen = Frozen(
            warmup_steps=tuple(one.steps for one in ready),
            steps=tuple(self._steps(one) for one in ready),
            alternate=alternate,
        )

    def _steps(self, warmed: Warmed) -> int:
        return max(1, round(self.block_s / warmed.step_s))

    def _shuffled(self) -> list[InterleavedProcess]:
        order = list(self.processes)
        self.rng.shuffle(order)
        return order
