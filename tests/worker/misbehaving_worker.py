"""A worker in everything but the measuring: each cell does to its process what its network's options say."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time

from msgspec import structs
from worker_fakes import FACTS, make_environment

from archbench.model.cell import Cell
from archbench.model.messages import CellFinished, CellStarted, PhaseStarted, Task
from archbench.model.record import Sample, Status, empty_record
from archbench.worker.child import Receive, Send, Wire
from archbench.worker.host import serve


def measure_group(task: object, send: Send, receive: Receive) -> None:
    """Measure like the real one, which returns after a failed row; but mind the options."""
    assert isinstance(task, Task)
    for cell in task.group.cells:
        act = cell.network.options[f"act{cell.batch_size}"]
        if act == "leave":
            return
        send(CellStarted(cell_id=cell.cell_id, deadline_s=task.protocol.cell_deadline_s))
        send(PhaseStarted(cell_id=cell.cell_id, phase="latency"))
        status, samples = misbehave(str(act), cell)
        row = structs.replace(empty_record(cell, task.context, FACTS), status=status, params=os.getpid())
        send(CellFinished(record=row, samples=samples))
        if act == "twice":
            send(CellFinished(record=row))
        if act == "late-death":
            os.kill(os.getpid(), signal.SIGKILL)
        if status in ("error", "oom"):
            return


def misbehave(act: str, cell: Cell) -> tuple[Status, tuple[Sample, ...]]:
    """Do it; return the status and the samples of the row where there is still somebody to write one."""
    act, _, argument = act.partition(":")
    match act:
        case "error" | "oom":
            return act, ()
        case "raise":
            raise RuntimeError("the sky fell down")
        case "system-exit":
            sys.exit(0)
        case "exit":
            print("my last words", file=sys.stderr, flush=True)
            os._exit(int(argument))
        case "sleep":
            time.sleep(float(argument))
        case "hang":
            time.sleep(600)
        case "segfault":
            ctypes.string_at(0)
        case "abort":
            os.abort()
        case "signal":
            os.kill(os.getpid(), getattr(signal, argument))
        case "kill-host":
            time.sleep(0.1)  # for what was said before to get through
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(600)
        case "exhaust-memory":
            resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
            bytearray(4 << 30)
        case "fill-memory":
            bytearray(1 << 30)
        case "print":
            print('{"type": "group-finished"}', flush=True)
            os.write(1, b"\xff\x00 no json\n" * 10_000)
            subprocess.run(["echo", '{"type":"ready"}'], check=True)
        case "read":
            assert sys.stdin.read() == ""
            assert os.read(0, 10) == b""
        case "scribble":  # into every descriptor that is open for writing, the messages' pipe among them
            for fd in range(3, 64):
                with contextlib.suppress(OSError):
                    os.write(fd, b"}{ scribble\n")
            time.sleep(600)
        case "half-line":
            for fd in range(3, 64):
                with contextlib.suppress(OSError):
                    os.write(fd, b'{"type":"cell-finished","rec')
            os.kill(os.getpid(), signal.SIGKILL)
        case "huge":
            sample = Sample(cell_id=cell.cell_id, round=0, experiment="latency", block=0, steps=1, host_s=0.1)
            return "ok", (sample,) * 20_000
        case "offspring":  # one in the same session, one that has left it; both outlive whoever started them
            for own_session in (False, True):
                sleeper = subprocess.Popen(["sleep", "600"], start_new_session=own_session)
                with open(argument, "a") as file:
                    file.write(json.dumps(sleeper.pid) + "\n")
        case "tell-pids":
            with open(argument, "w") as file:
                json.dump({"host": os.getppid(), "child": os.getpid()}, file)
        case "ok" | "twice" | "late-death":
            pass
        case _:
            raise ValueError(act)
    return "ok", ()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(Wire(), measure_group, environment=make_environment(arguments.device))


main()
