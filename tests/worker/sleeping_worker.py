"""A worker that only sleeps: sleeping_worker.py CLASS SECONDS; a card of its own, whoever starts it.

The class is that of its node, where a node says one.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from msgspec import structs
from worker_fakes import FACTS, make_environment

from archbench.model.environment import Gpu
from archbench.model.messages import CellFinished, CellStarted, PhaseStarted, Task
from archbench.model.record import empty_record
from archbench.worker.child import Receive, Send, Wire
from archbench.worker.host import serve


def measure_group(task: object, send: Send, receive: Receive) -> None:
    assert isinstance(task, Task)
    for cell in task.group.cells:
        send(CellStarted(cell_id=cell.cell_id, deadline_s=60.0))
        send(PhaseStarted(cell_id=cell.cell_id, phase="latency"))
        time.sleep(float(sys.argv[2]))
        row = empty_record(cell, task.context, FACTS)
        send(CellFinished(record=structs.replace(row, status="ok", verdict="ok", latency_median_s=float(sys.argv[2]))))


signal.signal(signal.SIGINT, signal.SIG_IGN)
name = os.environ.get("CARD_CLASS", sys.argv[1])
gpu = Gpu(name=name, uuid=f"GPU-{os.getpid():08x}")
environment = structs.replace(
    make_environment("cuda:0"), hardware_class=name, gpus=(gpu,), node=os.environ.get("ARCHBENCH_NODE", "here")
)
serve(Wire(), measure_group, environment=environment)
