"""Runs as the shards of many machines would leave them, with a latency that is told by a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from builders import make_environment, make_suite

from archbench.model.cell import Cell, Plan, Shard
from archbench.model.environment import Environment, Gpu
from archbench.model.record import Facts, Record, RunContext, Sample, empty_record
from archbench.model.suite import Axes, Suite
from archbench.results import RunStore
from archbench.suite.plan import make_plan

SMALL = make_suite(axes=Axes(batch_size=(1,), phase=("inference",)), rounds=1)
"""Five networks under four settings: twenty groups, of which resnet18's eager one is the twin."""
Latency = Callable[[Cell, int, int], float]


def machine(number: int, name: str = "NVIDIA H200", **overrides: Any) -> Environment:
    """One of many machines with one card each."""
    gpu = Gpu(name=name, uuid=f"GPU-{number:08x}-0000", memory_bytes=2**37)
    return make_environment("cuda:0", gpus=(gpu,), node=f"node{number:02d}", hardware_class=name, **overrides)


def rows_of(plan: Plan, run_id: str, environment: Environment, latency: Latency) -> Iterator[Record]:
    """Every row that a run of the plan would have."""
    for number, groups in enumerate(plan.rounds):
        for group in groups:
            context = RunContext(run_id=run_id, round=number, visit=group.visit, environment=environment)
            for cell in group.cells:
                seconds = latency(cell, number, group.visit)
                yield msgspec.structs.replace(
                    empty_record(cell, context, Facts(family="any", source="torchvision", input_size=224)),
                    status="ok",
                    verdict="ok",
                    latency_median_s=seconds,
                    latency_ci_low_s=seconds * 0.999,
                    latency_ci_high_s=seconds * 1.001,
                    samples=30,
                    canary_s=0.001,
                    started_at="2026-01-02T03:04:05.000+00:00",
                    duration_s=4.0,
                )


def shard_run(
    folder: Path,
    number: int,
    of: int,
    *,
    suite: Suite = SMALL,
    environment: Environment | None = None,
    latency: Latency = lambda cell, number, visit: 0.01,
    rows: int | None = None,
    only: tuple[str, ...] = (),
) -> Path:
    """The directory of one shard's run; `rows`: so many of them are finished."""
    environment = environment or machine(number)
    plan = make_plan(suite, "cuda", shard=Shard(number=number, of=of), only=only)
    store = RunStore.create(folder, suite, environment, msgspec.json.encode(suite).decode(), plan.shard)
    for row in list(rows_of(plan, store.run_id, environment, latency))[:rows]:
        sample = Sample(
            cell_id=row.cell_id, round=row.round, visit=row.visit, experiment="latency", block=0, steps=1, host_s=0.01
        )
        store.append(row, [sample])
    store.merge()
    return folder
