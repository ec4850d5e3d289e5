"""With the real imports: what a host has loaded must not cripple the children that it forks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import pytest
from msgspec import structs
from worker_fakes import FACTS, make_task, measure, rows_of

from archbench.model.cell import Cell, Group, Network
from archbench.model.messages import Task
from archbench.model.protocol import protocol_for
from archbench.model.record import RunContext
from archbench.worker import WorkerClient, run_tasks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TORCH_WORKER = str(Path(__file__).with_name("torch_worker.py"))


def group(name: str, *batch_sizes: int, compile_mode: Literal["off", "default"] = "off") -> Task:
    network = Network(name=name)
    cells = tuple(Cell(network=network, batch_size=size, compile_mode=compile_mode) for size in batch_sizes)
    task = make_task("ok", deadline_s=300.0)
    return structs.replace(task, group=Group(cells=cells))


def test_forked_children_compute_on_two_threads_train_and_compile(tmp_path: Path) -> None:
    """After any OpenMP operation in the host, the first of these would hang."""
    groups = [
        group("resnet18", 1, 4),
        group("resnet18", 1, compile_mode="default"),
        group("deit_small_patch16_224", 2, compile_mode="default"),
        group("resnet50", 2),
    ]
    env = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor")}
    rows = measure(*groups, arguments=(TORCH_WORKER,), env=env, log=tmp_path / "log")
    log = (tmp_path / "log").read_text()
    assert [row.status for row in rows] == ["ok"] * 5, f"{[row.error_message for row in rows]}\n{log}"
    assert {row.params for row in rows} == {2}


def test_unknown_network_costs_its_own_row_alone() -> None:
    with WorkerClient(facts=lambda network: FACTS) as worker:
        rows = rows_of(list(run_tasks(worker, [group("torchvision:of_another_version", 1)])))
    assert [row.status in ("error", "crashed") for row in rows] == [True]
    assert "of_another_version" in (rows[0].error_message or "")


def test_the_real_worker_measures_a_real_network(tmp_path: Path) -> None:
    with WorkerClient(log=tmp_path / "log") as worker:
        ready = worker.start()
        assert ready.environment.torch_version is not None
        task = Task(
            group=Group(cells=(Cell(network=Network(name="resnet18"), batch_size=1),)),
            context=RunContext(run_id="run", round=0, environment=ready.environment),
            protocol=protocol_for("cpu", {"max_sampling_s": 0.5, "max_throughput_s": 0.5, "warmup_cap_s": 1.0}),
            metrics=("static", "latency"),
        )
        (row,) = rows_of(list(run_tasks(worker, [task])))
    assert row.status == "ok", row.error_message
    assert row.latency_median_s is not None
    assert row.params == 11_689_512


def test_environment_does_not_depend_on_who_collects_it() -> None:
    """The parent's and the worker's own, for the same interpreter: else a run could not be resumed."""
    from archbench.device import collect_environment

    with WorkerClient() as worker:
        theirs = worker.start().environment
    ours = collect_environment("cpu")
    # A commit, or an edit, between the two is no difference of theirs.
    assert structs.replace(theirs, git_commit=None) == structs.replace(ours, git_commit=None)
