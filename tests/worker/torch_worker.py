"""The real worker's imports around a small measurement that does all that a fork could have broken."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from msgspec import structs
from worker_fakes import FACTS, make_environment

from archbench.model.messages import CellFinished, CellStarted, PhaseStarted, Task
from archbench.model.record import empty_record
from archbench.worker.child import Receive, Send, Wire
from archbench.worker.host import serve
from archbench.worker.preload import import_for, import_torch


def measure_group(task: object, send: Send, receive: Receive) -> None:
    """Two-threaded inference, a training step, and a compiled step, each checked against the other."""
    import torch

    assert isinstance(task, Task)
    host = Path(f"/proc/{os.getppid()}")
    for cell in task.group.cells:
        send(CellStarted(cell_id=cell.cell_id, deadline_s=task.protocol.cell_deadline_s))
        assert len(list((host / "task").iterdir())) == 1, "the host has started a thread"
        assert "libcuda.so" not in (host / "maps").read_text(), "the host has loaded the CUDA driver"
        assert not torch.cuda.is_initialized()
        torch.manual_seed(0)
        torch.set_num_threads(2)
        model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(32 * 64 * 64, 10)
        )
        batch = torch.randn(cell.batch_size, 3, 64, 64)
        send(PhaseStarted(cell_id=cell.cell_id, phase="inference"))
        with torch.inference_mode():
            expected = model(batch)
        send(PhaseStarted(cell_id=cell.cell_id, phase="training"))
        model(batch).square().mean().backward()
        assert all(bool(parameter.grad.any()) for parameter in model.parameters())
        if cell.compile_mode != "off":
            send(PhaseStarted(cell_id=cell.cell_id, phase="compile"))
            with torch.inference_mode():
                torch.testing.assert_close(torch.compile(model)(batch), expected, rtol=1e-3, atol=1e-4)
        row = empty_record(cell, task.context, FACTS)
        send(CellFinished(record=structs.replace(row, status="ok", params=torch.get_num_threads())))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    wire = Wire()
    import_torch()
    serve(wire, measure_group, environment=make_environment(arguments.device), before_fork=import_for)


main()
