"""When two figures are too close to call."""

from __future__ import annotations

import math
import shlex

import pytest

from archbench.choose.margins import Estimate, duel, margin, settled_by
from archbench.model.axes import DeviceKind, Phase
from archbench.model.cell import Cell, Network
from archbench.suite.plan import parse_cell


def latency(value: float, spread: float = 0.0) -> Estimate:
    ends = {"low": value * math.exp(-spread), "high": value * math.exp(spread)} if spread else {}
    return Estimate(column="latency_median_s", value=value, **ends)


def test_the_noise_floor_decides_where_intervals_are_narrow() -> None:
    assert margin(latency(1.0, 0.001), latency(1.04, 0.001), 0.05).tie
    assert not margin(latency(1.0, 0.001), latency(1.06, 0.001), 0.05).tie
    assert margin(latency(1.0, 0.001), latency(1.06, 0.001), 0.05).within == pytest.approx(0.05)


def test_the_interval_decides_where_it_is_wider_than_the_floor() -> None:
    # Two figures with ±3 % and ±4 % (of the log) differ by an interval of ±5 %.
    close = margin(latency(1.0, 0.03), latency(math.exp(0.049), 0.04), 0.01)
    apart = margin(latency(1.0, 0.03), latency(math.exp(0.051), 0.04), 0.01)
    assert (close.tie, apart.tie) == (True, False)
    assert apart.low == pytest.approx(math.exp(0.001))
    assert apart.high == pytest.approx(math.exp(0.101))


def test_the_ratio_is_of_the_worse_to_the_better_whichever_is_larger() -> None:
    fast, slow = (Estimate(column="throughput_img_s", value=value) for value in (200.0, 100.0))
    assert margin(fast, slow, None).ratio == margin(latency(1.0), latency(2.0), None).ratio == 2.0


def test_without_floor_and_intervals_only_equal_figures_tie() -> None:
    assert margin(latency(1.0), latency(1.0), None).tie
    assert not margin(latency(1.0), latency(1.0001), None).tie


def test_counted_figures_tie_only_where_equal_and_bytes_within_half_a_percent() -> None:
    one, other = (Estimate(column="params", value=value) for value in (1e6, 1.001e6))
    assert not margin(one, other, 0.5).tie
    near, far = (Estimate(column="peak_allocated_bytes", value=value) for value in (1.004e9, 1.006e9))
    base = Estimate(column="peak_allocated_bytes", value=1e9)
    assert margin(base, near, 0.5).tie
    assert not margin(base, far, 0.5).tie


def test_no_ratio_of_nothing() -> None:
    assert margin(latency(1.0), Estimate(column="latency_median_s", value=None), None) is None
    assert (
        margin(Estimate(column="settings_failed", value=0.0), Estimate(column="settings_failed", value=2.0), None)
        is None
    )
    assert margin(latency(0.0), latency(0.0), None).tie


def test_the_duel_names_both_cells_as_short_as_can_be() -> None:
    plain = Cell(network=Network(name="resnet50"), batch_size=4)
    other = Cell(
        network=Network(name="densenet121", options={"memory_efficient": True}),
        batch_size=4,
        phase="training",
        precision="amp-bf16",
        device="cuda",
    )
    assert duel(plain.cell_id, other.cell_id) == (
        "archbench duel resnet50@batch_size=4 "
        "'densenet121[memory_efficient=true]@batch_size=4,phase=training,precision=amp-bf16'"
    )


@pytest.mark.parametrize("name", ["resnet50", "torchvision:resnet18", "mine.networks:small"])
@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize("phase", ["inference", "training"])
def test_the_duel_command_reads_what_is_printed(name: str, kind: DeviceKind, phase: Phase) -> None:
    cell = Cell(network=Network(name=name, input_size=192), batch_size=8, phase=phase, precision="fp32", device=kind)
    _, command, one, other, *options = shlex.split(duel(cell.cell_id, cell.cell_id))
    assert (command, options) == ("duel", ["--allow-code"] if name.startswith("mine") else [])
    assert parse_cell(one, kind, allow_code=bool(options)) == parse_cell(other, kind, allow_code=bool(options)) == cell


def test_no_command_settles_a_tie_with_a_network_that_was_passed_as_an_object() -> None:
    cells = "resnet50@batch_size=1,device=cpu", "TinyNet#3f2a91bc@batch_size=1,device=cpu"
    assert settled_by("latency_median_s", *cells) is None
    assert settled_by("latency_median_s", cells[0], "mine:build@batch_size=1,device=cpu") == (
        "archbench duel resnet50@batch_size=1 mine:build@batch_size=1 --allow-code"
    )
