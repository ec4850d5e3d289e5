"""Static figures: everything that a row can say without a single step of its network."""

from __future__ import annotations

import pytest
import torch
from msgspec import structs
from set_aside import ASIDE
from torch import nn

from archbench.device import collect_environment
from archbench.measure import measure_group
from archbench.measure.metrics.footprint import traced_counts
from archbench.measure.workload import Workload
from archbench.model.axes import STATIC
from archbench.model.cell import Cell, Group, Network
from archbench.model.messages import CellFinished, Event, Task
from archbench.model.protocol import protocol_for
from archbench.model.reasons import explain
from archbench.model.record import RunContext


@pytest.fixture(autouse=True)
def _no_step(monkeypatch):
    def fail(self, *arguments, **options):
        raise AssertionError("a static row must not make a workload")

    monkeypatch.setattr(Workload, "__init__", fail)
    monkeypatch.setattr("archbench.measure.group.FreshProcesses", lambda: ASIDE)


def static_row(network="tiny_networks:convolution", **axes):
    cell = Cell(network=Network(name=network, input_size=16), batch_size=2, **axes)
    task = Task(
        group=Group(cells=(cell,)),
        context=RunContext(run_id="test", round=0, environment=collect_environment("cpu")),
        protocol=protocol_for("cpu", {}),
        metrics=STATIC,
        allow_code=True,
    )
    events: list[Event] = []
    measure_group(task, events.append)
    (row,) = (event.record for event in events if isinstance(event, CellFinished))
    return row


@pytest.mark.parametrize("phase", ["inference", "training"])
def test_counts_and_prediction_are_there_and_nothing_is_timed(phase):
    row = static_row(phase=phase)
    assert (row.status, row.verdict) == ("ok", "ok"), row.error_message
    assert row.params == 8 * 3 * 9 + 8 + 16 + 8 * 10 + 10
    assert row.macs == 7 * 7 * 8 * 27 + 80
    # The weights, one image and its first feature map must be in it; in training the momentum too.
    at_least = row.weight_bytes * (2 if phase == "training" else 1) + 2 * 3 * 16 * 16 * 4
    assert row.predicted_peak_bytes > at_least
    assert row.latency_median_s is row.throughput_img_s is row.peak_allocated_bytes is row.first_call_s is None


def test_every_null_says_why():
    row = static_row()
    explained = {reason.partition(":")[0] for reason in row.reasons}
    figures = {
        *("latency_median_s", "throughput_img_s", "peak_allocated_bytes", "graph_breaks", "output_rel_error"),
        *("applied", "first_call_s", "warmup_steps", "canary_s", "contention", "compile_cold_s", "energy_j_per_img"),
    }
    assert {name for name in figures if structs.asdict(row)[name] is None} == figures
    assert figures <= explained
    for reason in row.reasons:
        explain(reason)


def test_a_compiled_cell_has_its_graph_breaks():
    row = static_row(compile_mode="default")
    assert (row.status, row.graph_breaks, row.recompiles) == ("ok", 0, 0), row.error_message
    assert row.predicted_peak_bytes is None
    assert static_row("tiny_networks:breaks_the_graph", compile_mode="default").graph_breaks >= 1


def test_a_network_that_looks_at_values_is_traced_on_real_ones():
    looks = Cell(network=Network(name="tiny_networks:looks_at_values"), batch_size=2, compile_mode="default")
    assert traced_counts(looks, (3, 16, 16), allow_code=True).graph_breaks >= 1


def test_the_precision_of_the_whole_network_is_traced_in():
    cell = Cell(
        network=Network(name="tiny_networks:convolution"), batch_size=2, compile_mode="default", precision="bf16"
    )
    assert traced_counts(cell, (3, 16, 16), allow_code=True).frames_compiled == 1


def test_a_network_that_cannot_be_traced_is_an_error_row():
    row = static_row("tiny_networks:nowhere")
    assert row.status == "error"
    assert "nowhere" in row.error_message


def test_state_of_the_process_is_left_alone():
    before = torch.get_float32_matmul_precision(), torch.get_num_threads(), torch.get_default_device()
    module = nn.Linear(1, 1)
    static_row(compile_mode="default")
    assert before == (torch.get_float32_matmul_precision(), torch.get_num_threads(), torch.get_default_device())
    assert next(module.parameters()).device.type == "cpu"
