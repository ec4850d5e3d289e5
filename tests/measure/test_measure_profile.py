"""The metric `profile` in a measured group."""

from __future__ import annotations

import pytest
import tiny_networks
import torch
from test_measure_group import measure

from archbench.device.kind import kind_of
from archbench.measure.workload import Workload
from archbench.model.cell import Cell, Network
from archbench.model.environment import Calibration
from archbench.model.messages import CellFinished
from archbench.profiler.rows import profile_stages


def finished(events: list[object]) -> list[CellFinished]:
    return [event for event in events if isinstance(event, CellFinished)]


@pytest.fixture(autouse=True)
def _restored_state():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.mark.parametrize("phase", ["inference", "training"])
def test_each_cell_gets_its_table(phase: str) -> None:
    found = finished(measure(batches=(2, 4) if phase == "inference" else (2,), metrics=("profile",), phase=phase))
    assert {one.record.status for one in found} == {"ok"}
    for one in found:
        table = one.profile
        assert table is not None
        assert (table.cell_id, table.round, table.visit) == (one.record.cell_id, 0, 0)
        parts = sum(part.total_s for part in table.parts)
        assert table.whole.total_s + parts == pytest.approx(table.observed_step_s, rel=1e-6)
        assert sum(stage.total_s for stage in table.stages) <= table.whole.total_s * 1.000001
        assert (table.whole.backward_s is None) == (phase == "inference")
        assert table.whole.macs > 0
        assert table.whole.roofline_share is None, "no ceilings were measured"


def test_shares_of_the_roofline_need_the_ceilings() -> None:
    cell = Cell(network=Network(name="tiny_networks:convolution", input_size=16), batch_size=2)
    workload = Workload(cell, tiny_networks.convolution(), (3, 16, 16), torch.device("cpu"), ring=1, seed=0)
    workload.step()
    ceilings = Calibration(matmul_flops={"fp32": 1e11}, copy_bytes_per_s=1e10)
    clock = kind_of(workload.device).clock(workload.device)
    whole = profile_stages(workload, clock, ceilings, round=0, visit=0, allow_code=True).whole
    assert whole.roofline_share == pytest.approx(whole.least_s / whole.total_s)
    assert whole.least_s >= whole.bytes_moved / 1e10 * 0.999


def test_a_cell_that_does_not_ask_has_none() -> None:
    (found,) = finished(measure(metrics=("static", "compile")))
    assert found.profile is None


def test_a_profile_that_fails_costs_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no hooks today")

    monkeypatch.setattr("archbench.profiler.rows.profile_stages", fail)
    (found,) = finished(measure(metrics=("static", "profile")))
    assert (found.record.status, found.profile) == ("ok", None)
    assert found.record.params > 0
