"""The metric `compile`, by the worker's own processes; and that eager cells do without the compiler."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from test_measure_group import ALL, task_for

from archbench.model.messages import CellFinished, PhaseStarted
from archbench.worker.client import WorkerClient
from archbench.worker.sweep import run_tasks


def on_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_compiled_cell_is_measured_cold_and_in_a_fresh_process_warm(tmp_path):
    task = task_for(batches=(1, 2), metrics=(*ALL, "compile"), compile_mode="default")
    with WorkerClient(env=on_path(), log=tmp_path / "log") as worker:
        events = list(run_tasks(worker, [task]))
    found = [event.record for event in events if isinstance(event, CellFinished)]
    assert len(found) == 2
    for row in found:
        assert row.status == "ok", row.error_message
        assert row.compile_cold_s == row.first_call_s
        assert (row.graph_breaks, row.recompiles, row.compile_neighbours) == (0, 0, 0)
    assert found[0].compile_cold_s > found[0].compile_warm_s > 0, (tmp_path / "log").read_text()
    assert found[1].compile_warm_s is None
    assert "compile_warm_s:first_batch_only" in found[1].reasons
    assert found[0].output_rel_error < 1e-4
    assert found[0].compile_error_ratio > 0
    assert "cuda_graph_launches:not_on_device" in found[0].reasons
    # The second batch pays what the first did: neither finds a cache, and what every process does once was done before.
    assert 0.2 < found[0].compile_cold_s / found[1].compile_cold_s < 5
    phases = [event.phase for event in events if isinstance(event, PhaseStarted)]
    assert phases.index("compiler") < phases.index("compile") < phases.index("latency") < phases.index("compile again")


EAGER = """
import sys
import torch
from test_measure_group import measure, rows
def fail():
    raise AssertionError("where CUDA is in use this imports inductor, which takes 1.7 s")
torch._dynamo.reset = fail
found = rows(measure(batches=(1, 2), precision="amp-bf16"))
assert [row.status for row in found] == ["ok", "ok"], found
print(*(name for name in ("codecache", "compile_fx", "cudagraph_trees") if f"torch._inductor.{name}" in sys.modules))
"""


def test_eager_cells_do_without_the_compiler():
    done = subprocess.run([sys.executable, "-c", EAGER], env=on_path(), capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stdout + done.stderr
