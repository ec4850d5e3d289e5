"""Pairs of made-up processes (see `turn_taking_worker.py`)."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from worker_fakes import FACTS, make_environment

from archbench.model.cell import Cell, Group, Network
from archbench.model.comparison import Frozen, ProcessPair
from archbench.model.messages import Task, TurnTask
from archbench.model.protocol import Protocol
from archbench.model.record import RunContext
from archbench.worker import WorkerClient
from archbench.worker.turns import take_turns

TURN_TAKING_WORKER = str(Path(__file__).with_name("turn_taking_worker.py"))


def make_turn_worker(**arguments: Any) -> WorkerClient:
    """A worker whose processes make up their times."""
    return WorkerClient(arguments=(TURN_TAKING_WORKER,), facts=lambda network: FACTS, **arguments)


def make_request(name: str = "fake", *, survey: bool = False, **options: Any) -> TurnTask:
    """A process that costs `true_s` a step (0.01 s unless given) and otherwise does what the options say."""
    cell = Cell(network=Network(name=name, options={"true_s": 0.01, **options}), batch_size=1)
    context = RunContext(run_id="run", round=0, environment=make_environment())
    task = Task(group=Group(cells=(cell,)), context=context, protocol=Protocol(), metrics=())
    return TurnTask(task=task, survey=survey)


def play(
    workers: list[WorkerClient],
    *requests: TurnTask,
    turns: int = 9,
    seed: int = 0,
    frozen: Frozen | None = None,
    alike: bool = True,
) -> ProcessPair:
    """One pair."""
    rng = random.Random(seed)
    return take_turns(workers, requests, turns=turns, block_s=0.1, rng=rng, frozen=frozen, alike=alike)
