"""Groups to measure without torch: what each cell does to its process is written in the network's options."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from archbench.model.cell import Cell, Group, Network
from archbench.model.environment import Environment
from archbench.model.messages import CellFinished, Event, Task
from archbench.model.protocol import Protocol
from archbench.model.record import Facts, Record, RunContext

if TYPE_CHECKING:
    from archbench.worker import WorkerClient

MISBEHAVING_WORKER = str(Path(__file__).with_name("misbehaving_worker.py"))
FACTS = Facts(family="fake", source="archbench", top1=12.5)


def make_environment(device: str = "cpu") -> Environment:
    return Environment(
        hardware_class="fake",
        device=device,
        cpu_model="fake",
        cpu_count=2,
        memory_bytes=1 << 30,
        os="fake",
        kernel="fake",
        python_version="3.11",
        torch_version="2.11.0",
        archbench_version="0.1.0",
    )


def make_task(*acts: str, name: str = "fake", deadline_s: float = 20.0, round: int = 0) -> Task:
    """A group whose cell at batch size 2^i does `acts[i]` (see `misbehaving_worker.py`)."""
    network = Network(name=name, options={f"act{1 << i}": act for i, act in enumerate(acts)})
    cells = tuple(Cell(network=network, batch_size=1 << i) for i in range(len(acts)))
    return Task(
        group=Group(cells=cells),
        context=RunContext(run_id="run", round=round, environment=make_environment()),
        protocol=Protocol(cell_deadline_s=deadline_s),
        metrics=("latency",),
    )


def make_worker(**arguments: Any) -> WorkerClient:
    """A worker that misbehaves as its tasks say."""
    from archbench.worker import WorkerClient  # here, since the worker imports this file too, and should start fast

    arguments.setdefault("arguments", (MISBEHAVING_WORKER,))
    return WorkerClient(facts=lambda network: FACTS, **arguments)


def measure(*tasks: Task, **arguments: Any) -> list[Record]:
    """Run the tasks in a fresh worker; check that each cell has exactly one row; return the rows in order."""
    from archbench.worker import run_tasks

    with make_worker(**arguments) as worker:
        rows = rows_of(list(run_tasks(worker, tasks)))
    asked = Counter((cell.cell_id, task.context.round) for task in tasks for cell in task.group.cells)
    assert Counter((row.cell_id, row.round) for row in rows) == asked
    return rows


def rows_of(events: list[Event]) -> list[Record]:
    return [event.record for event in events if isinstance(event, CellFinished)]


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for something that other processes bring about; fail when it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether the process lives: the dead that nobody has waited for do not count."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
