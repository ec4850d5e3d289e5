"""A driver that may be killed: ray_driver.py ADDRESS RUN RESOURCE SECONDS [retry]; sleeps through `many_groups`.

Of the resource `card`, which nodes of several classes have, it goes the whole way of `archbench run`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec
from builders import make_suite

from archbench.fleets import WHOLE, ray_fleets
from archbench.model.messages import CellFinished
from archbench.model.suite import Axes, Setting, Suite
from archbench.options import RunOptions
from archbench.pipeline import Job, carry_out_all
from archbench.results import RunStore, class_folder
from archbench.session import Tasks
from archbench.suite.plan import make_plan
from archbench.worker import run_lock
from archbench.worker.on_ray import Cluster

WORKER = str(Path(__file__).with_name("sleeping_worker.py"))


def many_groups() -> Suite:
    """64 groups of one cell: four networks, two phases, eight settings that share no process."""
    settings = {
        f"{mode}-{precision}": Setting(compile_mode=mode, precision=precision)  # type: ignore[arg-type]
        for mode in ("default", "max-autotune-no-cudagraphs")
        for precision in ("fp32", "amp-bf16", "bf16", "fp16")
    }
    return make_suite(
        architectures=make_suite().architectures[:4],
        twin=None,
        settings=settings,
        axes=Axes(batch_size=(1,), phase=("inference", "training")),
        rounds=1,
        metrics=("latency",),
    )


def mixed(suite: Suite, address: str, place: Path, seconds: str, *, retry_failed: bool) -> None:
    """All classes of the cluster at once, a run each."""
    cluster = Cluster(address, device="cuda", resource="card", arguments=(WORKER, "unknown", seconds))
    jobs = [
        Job(
            suite=suite,
            text=msgspec.json.encode(suite).decode(),
            environment=one.environments[0],
            plan=make_plan(suite, "cuda", shard=WHOLE),
            options=RunOptions(out=place / class_folder(name), force=True, retry_failed=retry_failed),
            fleet=one,
            label=name,
        )
        for one in ray_fleets(cluster, suite, [], timed=False, force=True)
        if (name := one.environments[0].hardware_class)
    ]
    carry_out_all(jobs)


def main(address: str, place: Path, resource: str, seconds: str, *words: str) -> None:
    suite = many_groups()
    if resource == "card":
        mixed(suite, address, place, seconds, retry_failed="retry" in words)
        return
    cluster = Cluster(address, device="cuda", resource=resource, arguments=(WORKER, resource, seconds))
    (fleet,) = ray_fleets(cluster, suite, [], timed=False, force=True)
    first = fleet.environments[0]
    plan = make_plan(suite, "cuda", shard=WHOLE)
    if RunStore.is_run(place):
        store = RunStore.open(place)
    else:
        store = RunStore.create(place, suite, first, "suite: example\n", plan.shard)
    with fleet.held(force=True, timed=False), run_lock(place):
        store.note_machines(fleet.environments)
        finished = store.finished(retry_failed="retry" in words)
        store.measure_again(store.finished() - finished)
        begun = time.monotonic()
        machines = list(store.machines)
        events = fleet.events(Tasks(suite, store.run_id), plan, finished, machines, place=place, env=None)
        for event in events:
            if isinstance(event, CellFinished):
                store.append(event.record)
        print(f"{len(fleet.environments)} devices took {time.monotonic() - begun:.3f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
