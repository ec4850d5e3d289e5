"""Live processes that take turns block by block, so that what the machine does meanwhile happens to all of them alike.

Each process is a fresh child of a worker of its side; the parent passes the turn by a word and waits for the answer,
so that never two of them work at once. Processes one after the other differ by whatever the machine did in between:
on a noisy shared CPU 9-24 % for identical networks, against 0.7-1.1 % in turns.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from msgspec import structs

from archbench.execute.ledger import FactsOf
from archbench.execute.local import DEFAULT_ISOLATION, HOST_GRACE_S, Isolation, catalogue_facts
from archbench.execute.worker_process import WorkerLostError, WorkerProcess
from archbench.model.blank import blank_record
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
    Reply,
    Surveyed,
    TakeTurn,
    TurnTaken,
    TurnTask,
    TurnWord,
    Warmed,
    WarmUp,
)
from archbench.model.pair import Frozen, Pair, Turn
from archbench.model.record import Record, Status

TURN_PATIENCE = 50.0
"""A block that takes so many times what it should is hung; a machine that swaps is slower by less."""
TURN_LEAST_PATIENCE_S = 60.0
SEEING_OFF_S = 60.0
"""For a process to end; one that builds, or compiles, hears only afterwards that it was sent away."""
MEMORY_SHARE = 0.9
"""Of the device's memory that processes may fill together."""
PROCESS_BYTES = {"cpu": 400 << 20, "cuda": 700 << 20}
"""What a process holds besides the cell's tensors: libraries, workspace, a CUDA context."""
MOST_TURNS = 1.5
"""Rejected turns are repeated until there were this many times the turns asked for."""

_Result = TypeVar("_Result")
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
        alone = () if isolation == "fork" else ("--alone",)
        self._command = (python, *arguments, "--device", device, *alone)
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
            blank_record(cell, context, self._camp.facts(cell.network)),
            status=status,
            error_phase=self._phase,
            error_message=message,
            started_at=self._started.isoformat(timespec="milliseconds"),
            duration_s=(datetime.now(UTC) - self._started).total_seconds(),
        )


def take_turns(
    camps: Sequence[Camp],
    requests: Sequence[TurnTask],
    *,
    turns: int,
    block_s: float,
    rng: random.Random,
    frozen: Frozen | None = None,
    alike: bool = True,
) -> Pair:
    """Start one fresh process a camp, warm all of them up, and let them take turns; their rows and times.

    Without `frozen` each process warms up until its step is level; if they are `alike` (two sides of one cell) those
    that needed fewer steps then make up for it, and all blocks have the same number of steps. The answer's `frozen`
    holds the numbers, for later pairs to be equal.
    A process that fails ends the pair: its row says how, and no time is given. Processes that are predicted not to
    fit in memory together, or that run out of it together, run one after the other. Raises `UnfitError` where a worker
    does not start, and nothing else.
    """
    began, started_at = time.monotonic(), datetime.now(UTC).isoformat(timespec="milliseconds")
    match_ = _Match(camps, requests, turns=turns, block_s=block_s, rng=rng, frozen=frozen, alike=alike)
    try:
        match_.play()
    except BaseException:
        # Ctrl-C, or a worker that does not start: nobody waits for what the others still have to say.
        for camp in camps:
            camp.kill()
        raise
    return Pair(
        rows=tuple(match_.rows),
        turns=tuple(match_.turns),
        frozen=match_.frozen,
        origins=tuple(match_.origins),
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
    if environment.gpus:
        room = environment.gpus[0].memory_bytes
    else:
        import psutil

        room = min(environment.memory_bytes, psutil.virtual_memory().available)
    held = PROCESS_BYTES["cuda" if environment.gpus else "cpu"]
    return room is None or sum(known) + held * len(known) <= MEMORY_SHARE * room


class _OverError(Exception):
    """A process failed, so there is nobody to take turns with."""


class _Match:
    """One pair while it is played: its rows, turns and numbers as far as they are known."""

    def __init__(
        self,
        camps: Sequence[Camp],
        requests: Sequence[TurnTask],
        *,
        turns: int,
        block_s: float,
        rng: random.Random,
        frozen: Frozen | None,
        alike: bool,
    ) -> None:
        self._camps = camps
        self._requests = requests
        self._wanted = turns
        self._block_s = block_s
        self._rng = rng
        self.frozen = frozen
        self._alike = alike
        self.turns: list[Turn] = []
        self.rows = [_blank(camp, request) for camp, request in zip(camps, requests, strict=True)]
        self.origins: list[str | None] = [None] * len(requests)

    def play(self) -> None:
        """Play it to its end. Where a process fails the others show alone whether they work, but give no times."""
        alternate = self.frozen is not None and self.frozen.alternate
        if not alternate and self._play_together():
            return
        failed = [index for index, row in enumerate(self.rows) if row.status not in ("ok", "skipped", "oom")]
        if not failed:
            self._play_one_by_one(self._shuffled(), self._wanted)
        else:
            self._play_one_by_one([index for index in self._shuffled() if index not in failed], 1)
            self.turns = []

    def _play_together(self) -> bool:
        """All at once, in turns. False where that did not work: one failed, or there is no memory for all of them."""
        contenders = [Contender(camp, request) for camp, request in zip(self._camps, self._requests, strict=True)]
        everybody = range(len(contenders))
        try:
            for contender in contenders:
                contender.begin()
            seen = [self._do(index, contenders[index].surveyed) for index in everybody]
            environment = self._requests[0].task.context.environment
            fit = fit_together([one.predicted_peak_bytes for one in seen], environment)
            if fit:
                for contender in contenders:
                    contender.build()
                for index in everybody:
                    self.origins[index] = self._do(index, contenders[index].built).origin
                self._warm_up(contenders, [one.pid for one in seen])
                self._take_turns(contenders)
                for index in everybody:
                    self.rows[index] = self._do(index, contenders[index].finish)
        except _OverError:
            self.turns = []
            fit = False
        for contender in contenders:
            contender.send_away()
        return fit

    def _warm_up(self, contenders: Sequence[Contender], pids: Sequence[int]) -> None:
        """One after the other; if they are alike, all by the same number of steps."""
        done: dict[int, int] = {}
        step_s: dict[int, float] = {}
        for index in self._shuffled():
            rivals = tuple(pid for other, pid in enumerate(pids) if other != index)
            steps = self.frozen.warmup_steps[index] if self.frozen else None
            warmed = self._do(index, partial(contenders[index].warm_up, steps, rivals))
            done[index], step_s[index] = warmed.steps, warmed.step_s
        if self.frozen is not None:
            return
        if self._alike:
            most = max(done.values())
            for index in [index for index, steps_done in done.items() if steps_done < most]:
                self._do(index, partial(contenders[index].warm_up, most - done[index]))
            done = dict.fromkeys(done, most)
            step_s = dict.fromkeys(step_s, min(step_s.values()))
        self._freeze(done, step_s)

    def _take_turns(self, contenders: Sequence[Contender]) -> None:
        kept = 0
        while kept < self._wanted and len(self.turns) < MOST_TURNS * self._wanted:
            order = self._shuffled()
            taken = {index: self._take_turn(index, contenders[index]) for index in order}
            seconds = tuple(taken[index].seconds for index in range(len(contenders)))
            turn = Turn(seconds=seconds, first=order[0], kept=all(one.kept for one in taken.values()))
            self.turns.append(turn)
            kept += turn.kept

    def _play_one_by_one(self, order: Sequence[int], turns: int) -> None:
        """Each process from its start to its end before the next one begins."""
        taken: dict[int, list[TurnTaken]] = {}
        warmed: dict[int, Warmed] = {}
        for index in order:
            with suppress(_OverError):
                taken[index] = self._play_alone(index, turns, warmed)
        if len(taken) < len(self._requests):
            return
        if self.frozen is None:
            done = {index: one.steps for index, one in warmed.items()}
            self._freeze(done, {index: one.step_s for index, one in warmed.items()}, alternate=True)
        for blocks in zip(*(taken[index] for index in range(len(taken))), strict=True):
            seconds = tuple(block.seconds for block in blocks)
            self.turns.append(Turn(seconds=seconds, first=order[0], kept=all(block.kept for block in blocks)))

    def _play_alone(self, index: int, turns: int, warmed: dict[int, Warmed]) -> list[TurnTaken]:
        """One process from its start to its end; `warmed` tells what those before it needed, and is added to."""
        contender = Contender(self._camps[index], self._requests[index])
        contender.begin()
        self._do(index, contender.surveyed)
        contender.build()
        self.origins[index] = self._do(index, contender.built).origin
        # The first cannot make up for what a later one needs, so it sets the number for all.
        model = next(iter(warmed.values()), None) if self._alike else None
        given = self.frozen.warmup_steps[index] if self.frozen else (model.steps if model else None)
        mine = self._do(index, partial(contender.warm_up, given))
        warmed[index] = structs.replace(mine, step_s=model.step_s) if model else mine
        steps = self.frozen.steps[index] if self.frozen else self._steps(warmed[index].step_s)
        taken = [self._do(index, partial(contender.take_turn, steps, self._block_s)) for _ in range(turns)]
        self.rows[index] = self._do(index, contender.finish)
        return taken

    def _take_turn(self, index: int, contender: Contender) -> TurnTaken:
        assert self.frozen is not None
        return self._do(index, partial(contender.take_turn, self.frozen.steps[index], self._block_s))

    def _freeze(self, done: Mapping[int, int], step_s: Mapping[int, float], *, alternate: bool = False) -> None:
        self.frozen = Frozen(
            warmup_steps=tuple(done[index] for index in sorted(done)),
            steps=tuple(self._steps(step_s[index]) for index in sorted(step_s)),
            alternate=alternate,
        )

    def _steps(self, step_s: float) -> int:
        return max(1, round(self._block_s / step_s))

    def _do(self, index: int, act: Callable[[], _Result]) -> _Result:
        """Have a process do something; what it leaves behind when it cannot is its row."""
        try:
            return act()
        except ContenderFailedError as failed:
            self.rows[index] = failed.row
            raise _OverError from None

    def _shuffled(self) -> list[int]:
        order = list(range(len(self._requests)))
        self._rng.shuffle(order)
        return order


def _blank(camp: Camp, request: TurnTask) -> Record:
    return blank_record(request.cell, request.task.context, camp.facts(request.cell.network))
