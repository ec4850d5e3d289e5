"""Live processes that take turns block by block, so that what the machine does meanwhile happens to all of them alike.

Each process is a fresh child of a worker of its side; the parent passes the turn by a word and waits for the answer,
so that never two of them work at once. Processes one after the other differ by whatever the machine did in between:
on a noisy shared CPU 9-24 % for identical networks, against 0.7-1.1 % in turns.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from msgspec import structs

from archbench.device.kind import kind_named
from archbench.model.comparison import Frozen, ProcessPair, Turn
from archbench.model.environment import Environment
from archbench.model.messages import TurnTaken, TurnTask, Warmed
from archbench.model.record import Record, empty_record
from archbench.worker.client import WorkerClient
from archbench.worker.interleaved import InterleavedProcess, ProcessFailedError

MEMORY_SHARE = 0.9
"""Of the device's memory that processes may fill together."""
MOST_TURNS = 1.5
"""Rejected turns are repeated until there were this many times the turns asked for."""

_Result = TypeVar("_Result")


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
    match_ = _Match(workers, requests, turns=turns, block_s=block_s, rng=rng, frozen=frozen, alike=alike)
    try:
        match_.play()
    except BaseException:
        # Ctrl-C, or a worker that does not start: nobody waits for what the others still have to say.
        for worker in workers:
            worker.kill()
        raise
    return ProcessPair(
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
    kind = kind_named(environment.kind)
    room = kind.room(environment)
    return room is None or sum(known) + kind.process_bytes * len(known) <= MEMORY_SHARE * room


class _OverError(Exception):
    """A process failed, so there is nobody to take turns with."""


class _Match:
    """One pair while it is played: its rows, turns and numbers as far as they are known."""

    def __init__(
        self,
        workers: Sequence[WorkerClient],
        requests: Sequence[TurnTask],
        *,
        turns: int,
        block_s: float,
        rng: random.Random,
        frozen: Frozen | None,
        alike: bool,
    ) -> None:
        self._workers = workers
        self._requests = requests
        self._wanted = turns
        self._block_s = block_s
        self._rng = rng
        self.frozen = frozen
        self._alike = alike
        self.turns: list[Turn] = []
        self.rows = [_blank(worker, request) for worker, request in zip(workers, requests, strict=True)]
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
        processes = [
            InterleavedProcess(worker, request) for worker, request in zip(self._workers, self._requests, strict=True)
        ]
        everybody = range(len(processes))
        try:
            for process in processes:
                process.begin()
            seen = [self._do(index, processes[index].surveyed) for index in everybody]
            environment = self._requests[0].task.context.environment
            fit = fit_together([one.predicted_peak_bytes for one in seen], environment)
            if fit:
                for process in processes:
                    process.build()
                for index in everybody:
                    self.origins[index] = self._do(index, processes[index].built).origin
                self._warm_up(processes, [one.pid for one in seen])
                self._take_turns(processes)
                for index in everybody:
                    self.rows[index] = self._do(index, processes[index].finish)
        except _OverError:
            self.turns = []
            fit = False
        for process in processes:
            process.send_away()
        return fit

    def _warm_up(self, processes: Sequence[InterleavedProcess], pids: Sequence[int]) -> None:
        """One after the other; if they are alike, all by the same number of steps."""
        done: dict[int, int] = {}
        step_s: dict[int, float] = {}
        for index in self._shuffled():
            rivals = tuple(pid for other, pid in enumerate(pids) if other != index)
            steps = self.frozen.warmup_steps[index] if self.frozen else None
            warmed = self._do(index, partial(processes[index].warm_up, steps, rivals))
            done[index], step_s[index] = warmed.steps, warmed.step_s
        if self.frozen is not None:
            return
        if self._alike:
            most = max(done.values())
            for index in [index for index, steps_done in done.items() if steps_done < most]:
                self._do(index, partial(processes[index].warm_up, most - done[index]))
            done = dict.fromkeys(done, most)
            step_s = dict.fromkeys(step_s, min(step_s.values()))
        self._freeze(done, step_s)

    def _take_turns(self, processes: Sequence[InterleavedProcess]) -> None:
        kept = 0
        while kept < self._wanted and len(self.turns) < MOST_TURNS * self._wanted:
            order = self._shuffled()
            taken = {index: self._take_turn(index, processes[index]) for index in order}
            seconds = tuple(taken[index].seconds for index in range(len(processes)))
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
        process = InterleavedProcess(self._workers[index], self._requests[index])
        process.begin()
        self._do(index, process.surveyed)
        process.build()
        self.origins[index] = self._do(index, process.built).origin
        # The first cannot make up for what a later one needs, so it sets the number for all.
        model = next(iter(warmed.values()), None) if self._alike else None
        given = self.frozen.warmup_steps[index] if self.frozen else (model.steps if model else None)
        mine = self._do(index, partial(process.warm_up, given))
        warmed[index] = structs.replace(mine, step_s=model.step_s) if model else mine
        steps = self.frozen.steps[index] if self.frozen else self._steps(warmed[index].step_s)
        taken = [self._do(index, partial(process.take_turn, steps, self._block_s)) for _ in range(turns)]
        self.rows[index] = self._do(index, process.finish)
        return taken

    def _take_turn(self, index: int, process: InterleavedProcess) -> TurnTaken:
        assert self.frozen is not None
        return self._do(index, partial(process.take_turn, self.frozen.steps[index], self._block_s))

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
        except ProcessFailedError as failed:
            self.rows[index] = failed.row
            raise _OverError from None

    def _shuffled(self) -> list[int]:
        order = list(range(len(self._requests)))
        self._rng.shuffle(order)
        return order


def _blank(worker: WorkerClient, request: TurnTask) -> Record:
    return empty_record(request.cell, request.task.context, worker.facts(request.cell.network))
