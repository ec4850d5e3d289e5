"""What a process of its own costs a group: forked from a host that has torch imported, and as a fresh interpreter.

    python benchmarks/isolation_cost.py [--groups 8]

Both build the same small network and take one step; the two take turns, group by group, since the machine's speed
drifts. The cost is the group's wall time less the building and the step. Exits with 1 when forking costs more than
0.5 s a group.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

from msgspec import structs

from archbench.device import collect_environment
from archbench.model.cell import Cell, Group, Network
from archbench.model.messages import CellFinished, CellStarted, Task
from archbench.model.protocol import protocol_for
from archbench.model.record import Facts, RunContext, empty_record
from archbench.worker import WorkerClient, run_tasks
from archbench.worker.child import Receive, Send, Wire

TARGET_S = 0.5


def measure_group(task: object, send: Send, receive: Receive) -> None:
    """Build the network, take one step, and say how long these two took."""
    assert isinstance(task, Task)
    (cell,) = task.group.cells
    send(CellStarted(cell_id=cell.cell_id, deadline_s=300.0))
    import torch
    import torchvision

    began = time.perf_counter()
    network = torchvision.models.get_model(cell.network.name, weights=None)
    with torch.inference_mode():
        network.eval()(torch.randn(1, 3, 64, 64))
    row = empty_record(cell, task.context, Facts())
    send(CellFinished(record=structs.replace(row, status="ok", duration_s=time.perf_counter() - began)))


def serve_as_worker() -> None:
    """Be the worker of this benchmark: the real one around `measure_group`."""
    from archbench.worker.host import serve
    from archbench.worker.preload import import_for, import_torch

    wire = Wire()
    import_torch()
    serve(wire, measure_group, environment=collect_environment("cpu"), before_fork=import_for)


def cost_of_one_group(worker: WorkerClient, task: Task) -> float:
    """Seconds from handing over the task to the end of its group, less building and step."""
    began = time.perf_counter()
    (row,) = [event.record for event in run_tasks(worker, [task]) if isinstance(event, CellFinished)]
    wall_s = time.perf_counter() - began
    assert row.status == "ok", row.error_message
    assert row.duration_s is not None
    return wall_s - row.duration_s


def main(groups: int) -> int:
    """Compare, print, and judge."""
    task = Task(
        group=Group(cells=(Cell(network=Network(name="resnet18"), batch_size=1),)),
        context=RunContext(run_id="benchmark", round=0, environment=collect_environment("cpu")),
        protocol=protocol_for("cpu", {}),
        metrics=("latency",),
    )

    with (
        WorkerClient(arguments=(__file__, "--worker")) as fork,
        WorkerClient(arguments=(__file__, "--worker")) as spawn,
    ):
        began = time.perf_counter()
        fork.start()
        print(f"host ready after {time.perf_counter() - began:.2f} s, once a run")
        print(f"its first group, which imports torchvision: {cost_of_one_group(fork, task):.2f} s")
        forked, spawned = [], []
        for number in range(groups):
            forked.append(cost_of_one_group(fork, task))
            spawned.append(cost_of_one_group(spawn, task))
            spawn.close()
            print(f"group {number + 1}: fork {forked[-1]:.3f} s, fresh interpreter {spawned[-1]:.3f} s", flush=True)
    median, worst, fresh = statistics.median(forked), max(forked), statistics.median(spawned)
    print(
        f"fork {median:.3f} s a group (worst {worst:.3f}), fresh interpreter {fresh:.2f} s: {fresh / median:.0f} times"
    )
    print(f"target {TARGET_S} s a group: {'met' if median <= TARGET_S else 'MISSED'}")
    return int(median > TARGET_S)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=8, help="groups a side")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cpu", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        serve_as_worker()
    sys.exit(main(arguments.groups))
