"""When two figures are too close to call."""

from __future__ import annotations

import math
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archbench.choose.cell_summary import Estimate, duel, margin, settled_by
from archbench.model.axes import DeviceKind, Phase
from archbench.model.cell import Cell, Network
from archbench.suite.cells import parse_cell


def latency(value: float, spread: float = 0.0) -> Estimate:
    ends = (value * math.exp(-spread), value * math.exp(spread)) if spread else (None, None)
    return Estimate("latency_median_s", value, *ends)


def test_the_intervals_decide() -> None:
    # Two figures with ±3 % and ±4 % (of the log) differ by an interval of ±5 %.
    close = margin(latency(1.0, 0.03), latency(math.exp(0.049), 0.04))
    apart = margin(latency(1.0, 0.03), latency(math.exp(0.051), 0.04))
    assert (close.tie, apart.tie) == (True, False)
    assert apart.low == pytest.approx(math.exp(0.001))
    assert apart.high == pytest.approx(math.exp(0.101))
    assert apart.within == pytest.approx(math.expm1(0.05))


def test_the_ratio_is_of_the_worse_to_the_better_whichever_is_larger() -> None:
    fast, slow = (Estimate(column="throughput_img_s", value=value) for value in (200.0, 100.0))
    assert margin(fast, slow).ratio == margin(latency(1.0), latency(2.0)).ratio == 2.0


def test_without_intervals_only_equal_figures_tie() -> None:
    assert margin(latency(1.0), latency(1.0)).tie
    assert not margin(latency(1.0), latency(1.0001)).tie


def test_a_time_without_an_interval_scatters_as_the_latency_does() -> None:
    near, far = (Estimate("rank_latency_p95_s", value, scatter=0.02) for value in (1.02, 1.04))
    base = Estimate("rank_latency_p95_s", 1.0, scatter=0.02)
    assert margin(base, near).tie
    assert not margin(base, far).tie


figures = st.floats(1e-12, 1e12)


@given(figures, figures, st.floats(0, 100), st.floats(0, 100))
def test_no_ratio_leaves_the_positive_numbers(one: float, other: float, half: float, wider: float) -> None:
    apart = margin(latency(one, half), latency(other, wider))
    assert 1 <= apart.ratio < math.inf
    assert apart.low is None or 0 < apart.low <= apart.ratio <= apart.high < math.inf
    assert apart.within >= 0


def test_counted_figures_tie_only_where_equal_and_bytes_within_half_a_percent() -> None:
    one, other = (Estimate(column="params", value=value) for value in (1e6, 1.001e6))
    assert not margin(one, other).tie
    near, far = (Estimate(column="peak_allocated_bytes", value=value) for value in (1.004e9, 1.006e9))
    base = Estimate(column="peak_allocated_bytes", value=1e9)
    assert margin(base, near).tie
    assert not margin(base, far).tie


def test_no_ratio_of_nothing() -> None:
    assert margin(latency(1.0), Estimate(column="latency_median_s", value=None)) is None
    assert margin(Estimate(column="settings_failed", value=0.0), Estimate(column="settings_failed", value=2.0)) is None
    assert margin(latency(0.0), latency(0.0)).tie


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
