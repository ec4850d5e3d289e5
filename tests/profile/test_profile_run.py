"""Whole profiles of small networks: everything adds up, and odd networks go through."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
from builders import make_environment

from archbench.analyze.counts import count
from archbench.model.cell import Cell, Network
from archbench.model.environment import Calibration
from archbench.model.errors import UnfitError
from archbench.model.messages import ProfileRequest
from archbench.model.profile import ModuleProfile, Profile
from archbench.profiler import run
from archbench.profiler.boundaries import count_by_module
from archbench.profiler.run import profile_cell


def known(figure: int | None) -> int:
    assert figure is not None
    return figure


@cache
def profile(name: str, phase: str = "training", batch: int = 2, trace: str | None = None) -> Profile:
    cell = Cell(network=Network(name=name), batch_size=batch, phase=phase, threads=1)  # type: ignore[arg-type]
    request = ProfileRequest(
        cell=cell,
        environment=make_environment(memory_bytes=16 * 2**30),
        timing_s=0.1,
        calibration=Calibration(matmul_flops={"fp32": 1e11}, copy_bytes_per_s=1e10),
        allow_code=True,
        memory=False,
        gradients=False,
        trace=trace,
    )
    return profile_cell(request)


def test_a_trace_has_ranges_of_modules_forward_and_backward(tmp_path: Path) -> None:
    place = tmp_path / "trace.json"
    profile("odd_networks:in_place", trace=str(place))
    names = {event.get("name") for event in json.loads(place.read_text())["traceEvents"]}
    assert {"module: blocks.1.conv", "module: blocks.1.conv backward", "module: head backward"} <= names


def rows(found: Profile) -> dict[str, ModuleProfile]:
    return {row.path: row for row in found.modules}


def check_sums(found: Profile) -> None:
    """Own figures over all rows make the whole; a row is its own and what stands right below it."""
    whole = found.modules[0]
    assert found.attributed_s == pytest.approx(found.observed_step_s)
    assert sum(row.own_s for row in found.modules) == pytest.approx(whole.total_s)
    assert sum(known(row.own_macs) for row in found.modules) == whole.macs == found.macs
    assert sum(row.own_bytes for row in found.modules) == whole.bytes_moved
    if found.cell.phase == "training":
        assert sum(row.own_saved_bytes or 0 for row in found.modules) == whole.saved_bytes
    for row in found.modules:
        below = [r for r in found.modules if r.depth == row.depth + 1 and r.path.startswith(f"{row.path}.".lstrip("."))]
        assert row.total_s == pytest.approx(row.own_s + sum(r.total_s for r in below), abs=1e-9)
        assert row.macs == known(row.own_macs) + sum(known(r.macs) for r in below)


@pytest.mark.parametrize("name", ["in_place", "shared", "gives_tuple", "gives_dict", "looks_at_values", "recomputes"])
def test_odd_networks_have_a_profile_that_adds_up(name: str) -> None:
    found = profile(f"odd_networks:{name}")
    check_sums(found)
    assert found.macs == count(Network(name=f"odd_networks:{name}"), allow_code=True).macs
    assert {part.name for part in found.parts} >= {"loss", "optimizer"}


@pytest.mark.filterwarnings("error:Casting complex")
@pytest.mark.parametrize("phase", ["inference", "training"])
def test_complex_numbers_are_profiled_whole(phase: str) -> None:
    cell = Cell(network=Network(name="odd_networks:waves"), batch_size=2, phase=phase, threads=1)  # type: ignore[arg-type]
    environment = make_environment(memory_bytes=16 * 2**30)
    calibration = Calibration(matmul_flops={"fp32": 1e11}, copy_bytes_per_s=1e10)
    found = profile_cell(
        ProfileRequest(
            cell=cell, environment=environment, timing_s=0.1, calibration=calibration, allow_code=True, gradients=True
        )
    )
    check_sums(found)
    assert set(found.missing) <= {"gradients"}, found.missing
    assert found.memory is not None
    assert rows(found)["mix"].macs == 4 * 4
    if phase == "training":
        assert found.gradients is not None
        with_gradient = {layer.path for layer in found.gradients.layers if layer.gradient_norm is not None}
        assert with_gradient == {"stem", "mix", "filter", "head"}
        assert all(known.median > 0 for layer in found.gradients.layers if (known := layer.gradient_norm))


def test_a_module_under_two_names_has_one_row_and_all_its_calls() -> None:
    found = rows(profile("odd_networks:shared"))
    assert (found["blocks.0"].calls, found["blocks.0.conv"].calls) == (2, 4)
    assert found["blocks"].calls == 0  # a list is never called
    assert not any(path.startswith("again") for path in found)
    assert found["blocks"].macs == found["blocks.0"].macs
    assert found[""].params == found["stem"].params + found["blocks.0"].params + found["head"].params


def test_inference_has_no_backward_and_nothing_kept() -> None:
    found = profile("lenet5", "inference")
    check_sums(found)
    whole = found.modules[0]
    assert whole.backward_s is None
    assert whole.saved_bytes is None
    assert whole.flops == 2 * whole.macs * found.cell.batch_size
    assert found.missing["gradients"]


def test_what_cannot_be_counted_has_no_macs_rather_than_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise RuntimeError("looks at values")

    monkeypatch.setattr(run, "count_by_module", refuses)
    found = profile.__wrapped__("lenet5", "inference")
    whole = found.modules[0]
    assert (whole.macs, whole.own_macs, whole.flops, whole.intensity, whole.achieved_flops) == (None,) * 5
    assert (whole.least_s, whole.roofline_share, whole.bound) == (None,) * 3
    assert found.roofline.points == ()
    assert found.missing["macs"] == "RuntimeError: looks at values"
    assert found.missing["memory"] == "left out on request"


def test_roofline_and_operators_are_there() -> None:
    found = profile("odd_networks:in_place")
    assert found.roofline is not None
    assert found.roofline.points[-1].name == "all"
    assert all(point.intensity > 0 for point in found.roofline.points)
    assert found.operators[0].self_s == max(one.self_s for one in found.operators)
    assert sum(one.share for one in found.operators) == pytest.approx(1, abs=0.05)
    assert all(one.tensor_core is None for one in found.operators)  # a CPU has none
    named = {one.name for one in found.operators}
    assert "aten::convolution_backward" in named


@pytest.mark.parametrize("name", ["mobilenet_v2", "densenet121", "googlenet", "vit_b_16", "swin_t"])
def test_macs_by_module_add_up_to_what_show_prints(name: str) -> None:
    network = Network(name=name)
    counted = count_by_module(network)
    assert counted.macs == sum(counted.own_macs.values()) == count(network).macs


def test_no_room_is_told_before_anything_is_run() -> None:
    cell = Cell(network=Network(name="vgg16"), batch_size=512, phase="training")
    request = ProfileRequest(cell=cell, environment=make_environment(memory_bytes=8 * 2**30))
    with pytest.raises(
        UnfitError, match=r"vgg16: no room on cpu: .* needs about .* GiB, .* free; batch size \d+ would"
    ):
        profile_cell(request)
