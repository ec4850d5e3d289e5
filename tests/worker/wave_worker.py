"""A worker whose cells take the time that their options say to prepare and to measure, and fail where told.

Each cell writes when it prepared and when it measured, for a test to see what overlapped.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from pathlib import Path

from msgspec import structs
from worker_fakes import FACTS, make_environment

from archbench.model.cell import Cell
from archbench.model.messages import CellFinished, CellStarted, Proceed, Task, Waiting
from archbench.model.record import empty_record
from archbench.worker.child import Receive, Send, Wire
from archbench.worker.host import serve


def measure_group(task: object, send: Send, receive: Receive) -> None:
    """The real one's protocol of waves, with sleeps for work."""
    assert isinstance(task, Task)
    for cell in task.group.cells:
        finished = measure_cell(task, cell, send, receive)
        send(finished)
        if finished.record.status != "ok":
            return


def measure_cell(task: Task, cell: Cell, send: Send, receive: Receive) -> CellFinished:
    options = cell.network.options

    def wait(prepared: bool) -> int:
        if not task.wave:
            return 0
        send(Waiting(cell_id=cell.cell_id, pid=os.getpid(), prepared=prepared))
        if options.get("dies") == "asleep" and prepared:
            os.kill(os.getpid(), signal.SIGKILL)
        word = receive()
        assert isinstance(word, Proceed), word
        return word.neighbours

    def work(what: str) -> None:
        send(CellStarted(cell_id=cell.cell_id, deadline_s=task.protocol.cell_deadline_s))
        begun = time.monotonic()
        time.sleep(float(str(options[what])))
        with Path(str(options["book"])).open("a") as file:
            file.write(f"{what} {cell.network.name} {begun} {time.monotonic()}\n")

    neighbours = wait(False)
    work("prepare")
    row = empty_record(cell, task.context, FACTS)
    if options.get("dies") == "of memory" and neighbours:
        return CellFinished(record=structs.replace(row, status="oom"))
    wait(True)
    work("measure")
    return CellFinished(record=structs.replace(row, status="ok", compile_neighbours=neighbours))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    serve(Wire(), measure_group, environment=make_environment(arguments.device))


main()
