"""Waves: what prepares together, what never does, and that no cell is lost when one of them dies."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import psutil
import pytest
from worker_fakes import FACTS, make_environment

from archbench.model.cell import Cell, Group, Network
from archbench.model.messages import CellFinished, CellStarted, Task
from archbench.model.protocol import Protocol
from archbench.model.record import RunContext
from archbench.worker import WorkerClient, run_tasks
from archbench.worker.sweep import in_waves

WORKER = str(Path(__file__).with_name("wave_worker.py"))


def task(
    name: str, book: Path, *, wave: int = 1, batches: int = 1, deadline_s: float = 20.0, **options: object
) -> Task:
    known = {"book": str(book), "prepare": 0.3, "measure": 0.1, **options}
    network = Network(name=name, options=known)  # type: ignore[arg-type]
    cells = tuple(Cell(network=network, batch_size=1 << n, compile_mode="default") for n in range(batches))
    return Task(
        group=Group(cells=cells),
        context=RunContext(run_id="run", round=0, environment=make_environment()),
        protocol=Protocol(cell_deadline_s=deadline_s),
        metrics=("latency",),
        wave=wave,
    )


def measured(tasks: list[Task], *, company: int = 3) -> list[CellFinished]:
    worker = WorkerClient(arguments=(WORKER,), facts=lambda network: FACTS)
    with worker:
        events = list(run_tasks(worker, tasks, company=company))
    return [event for event in events if isinstance(event, CellFinished)]


def spans(book: Path, what: str) -> list[tuple[float, float]]:
    lines = (line.rsplit(" ", 2) for line in book.read_text().splitlines() if line.startswith(what))
    return [(float(begun), float(ended)) for _, begun, ended in lines]


def overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def test_cells_of_a_wave_prepare_together_and_nothing_else_happens_while_one_is_measured(tmp_path):
    book = tmp_path / "book"
    rows = [one.record for one in measured([task(name, book, batches=2) for name in "abc"])]
    assert sorted((row.architecture, row.batch_size, row.status) for row in rows) == [
        (name, batch, "ok") for name in "abc" for batch in (1, 2)
    ]
    assert {row.compile_neighbours for row in rows} == {2}
    prepared, timed = spans(book, "prepare"), spans(book, "measure")
    assert all(overlap(*pair) for pair in itertools.combinations(prepared[:3], 2))
    assert not any(overlap(*pair) for pair in itertools.combinations(timed, 2))
    assert not any(overlap(one, other) for one in prepared for other in timed)


def test_without_company_each_is_alone(tmp_path):
    book = tmp_path / "book"
    rows = [one.record for one in measured([task(name, book) for name in "ab"], company=0)]
    assert [row.compile_neighbours for row in rows] == [0, 0]
    assert not overlap(*spans(book, "prepare"))


def test_a_wave_shrinks_where_memory_runs_out_and_nothing_is_lost(tmp_path):
    book = tmp_path / "book"
    tasks = [task("large", book, dies="of memory"), *(task(name, book) for name in "abcdefg")]
    rows = {one.record.architecture: one.record for one in measured(tasks)}
    assert {name: row.status for name, row in rows.items()} == dict.fromkeys(("large", *"abcdefg"), "ok")
    assert rows["large"].compile_neighbours == 0  # at its second try
    assert [rows[name].compile_neighbours for name in "abc"] == [3, 3, 3]
    assert [rows[name].compile_neighbours for name in "defg"] == [1, 1, 1, 1]


def test_who_dies_in_its_sleep_is_measured_alone(tmp_path):
    book = tmp_path / "book"
    rows = [one.record for one in measured([task("a", book), task("b", book, dies="asleep"), task("c", book)])]
    assert sorted((row.architecture, row.status, row.compile_neighbours) for row in rows) == [
        ("a", "ok", 2),
        ("b", "ok", 0),
        ("c", "ok", 2),
    ]


def test_sleep_does_not_count_against_the_deadline(tmp_path):
    book = tmp_path / "book"
    tasks = [task(name, book, prepare=0.1, measure=0.8, deadline_s=1.5) for name in "abcd"]
    assert [one.record.status for one in measured(tasks)] == ["ok"] * 4  # the last has waited for 2.4 s


def test_to_stop_while_they_prepare_ends_every_process(tmp_path):
    worker = WorkerClient(arguments=(WORKER,), facts=lambda network: FACTS)
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    events = run_tasks(worker, [task(name, tmp_path / "book", prepare=60.0) for name in "ab"], company=1)
    assert isinstance(next(events), CellStarted)
    ours = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert len(ours) == 4  # two hosts, a child each
    with pytest.raises(KeyboardInterrupt):
        events.throw(KeyboardInterrupt)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(one.is_running() for one in ours):
        time.sleep(0.05)
    assert not any(one.is_running() for one in ours)
    assert os.getpid() not in {one.pid for one in ours}


def test_waves_are_neighbours_of_one_number(tmp_path):
    numbers = [0, 1, 1, 2, 2, 0, 0, 3]
    tasks = [task("a", tmp_path, wave=number) for number in numbers]
    assert [[one.wave for one in wave] for wave in in_waves(tasks)] == [[0], [1, 1], [2, 2], [0], [0], [3]]
