"""Devices as a random effect: known effects come back, and intervals hold as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from archbench.choose.summary import devices_of, shares, summarise
from archbench.stats.variance import estimated


def balanced(effects: list[float], processes: int, noise: np.ndarray | None = None) -> pd.DataFrame:
    """Two cells on every device, so many processes each."""
    rows = [
        (cell, machine, cell * 0.5 + effect)
        for cell in (0, 1)
        for machine, effect in enumerate(effects)
        for _ in range(processes)
    ]
    frame = pd.DataFrame(rows, columns=["cell", "machine", "log"])
    if noise is not None:
        frame["log"] += noise
    return frame


def found(frame: pd.DataFrame):
    names = [f"m{number}" for number in range(frame["machine"].max() + 1)]
    return estimated(frame["log"].to_numpy(), frame["cell"].to_numpy(), frame["machine"].to_numpy(), names)


def test_effects_and_variances_are_those_of_the_balanced_table_in_closed_form() -> None:
    """One-way by hand: effects are means less the grand mean, sigma_d^2 = (MS_between - MS_within) / n."""
    effects = [-0.02, 0.0, 0.01, 0.01]
    noise = np.tile([0.003, -0.003], 8)
    one = found(balanced(effects, 2, noise))
    assert one.effects == pytest.approx({f"m{n}": effect for n, effect in enumerate(effects)}, abs=1e-12)
    within = 2 * 0.003**2  # of two processes, each 0.003 from their mean
    assert one.within == pytest.approx(math.sqrt(within))
    between = float(np.var(effects, ddof=1)) - within / 4  # four processes on each device
    assert one.between == pytest.approx(math.sqrt(between))
    assert one.range(one.effects) == pytest.approx(math.expm1(0.03), abs=1e-6)
    assert one.cells == 2
    assert one.far == ()


def test_devices_that_do_not_share_all_cells_are_told_by_those_they_share() -> None:
    """a and b share one cell, b and c another: a chain is enough."""
    rows = [(0, 0, 0.10), (0, 1, 0.13), (1, 1, 5.03), (1, 2, 5.01)]
    one = found(pd.DataFrame(rows, columns=["cell", "machine", "log"]))
    assert one.effects["m1"] - one.effects["m0"] == pytest.approx(0.03)
    assert one.effects["m2"] - one.effects["m1"] == pytest.approx(-0.02)
    assert one.within is None


@pytest.mark.parametrize(
    ("effects", "far"),
    [
        ([0.0, 0.001, -0.001, 0.0, 0.2], ("m4",)),
        ([0.0, 0.001, -0.001, 0.0, -0.2], ("m4",)),
        ([0.0, 0.0, 0.0, 0.04], ()),  # within 5 %
        ([-0.1, -0.05, 0.0, 0.05, 0.1], ()),  # a class that differs
        ([0.0, 0.3], ()),  # of two, nobody can say which
    ],
)
def test_a_device_far_from_its_class_is_named(effects: list[float], far: tuple[str, ...]) -> None:
    assert found(balanced(effects, 2)).far == far


def test_a_sick_device_changes_nothing_of_what_is_said_of_the_others() -> None:
    """Its own effect is its time over theirs."""
    well = [-0.01, 0.0, 0.0, 0.01]
    one, other = found(balanced(well, 2)), found(balanced([*well, 0.3], 2))
    assert other.far == ("m4",)
    assert other.effects == pytest.approx({**one.effects, "m4": 0.3})
    assert other.between == pytest.approx(one.between)
    assert other.range(other.well) == one.range(one.effects)


def test_the_variance_between_devices_is_unbiased_and_does_not_count_processes() -> None:
    rng, squares = np.random.default_rng(3), []
    for _ in range(400):
        effects = rng.normal(0, 0.02, 8)
        frame = balanced(list(effects), 3, rng.normal(0, 0.03, 48))
        squares.append(found(frame).between ** 2)
    assert np.mean(squares) == pytest.approx(0.02**2, rel=0.12)


def test_shares_of_the_variance_between_devices() -> None:
    machine = pd.Series(["a", "a", "b", "a", "b", "c", "a"])
    group = np.array([0, 0, 0, 1, 1, 1, 2])
    assert shares(machine, group, 3) == pytest.approx([(4 + 1) / 9, 3 / 9, 1.0])


def frame_of(rng: np.random.Generator, devices: int, spread: float, noise: float, sick: float = 0.0) -> pd.DataFrame:
    """A merged run: the twin on every device, a cell on one each; three rounds. The last device may be `sick`."""
    from builders import make_record

    rows = []
    effects = rng.normal(0, spread, devices)
    effects[-1] += sick
    for device, effect in enumerate(effects):
        for cell in ("twin", f"cell{device}"):
            for number in range(3):
                seconds = 0.01 * math.exp(effect + rng.normal(0, noise))
                rows.append(
                    make_record(
                        cell_id=f"{cell}@batch_size=1",
                        round=number,
                        visit=3 * device if cell == "twin" else 0,
                        machine=f"m{device}",
                        latency_median_s=seconds,
                        latency_ci_low_s=seconds * 0.9999,
                        latency_ci_high_s=seconds * 1.0001,
                        canary_s=None,
                    )
                )
    import msgspec

    frame = pd.DataFrame([msgspec.structs.asdict(row) for row in rows])
    derived = {"speed_index": np.nan, "latency_median_corrected_s": np.nan, "throughput_corrected_img_s": np.nan}
    return frame.assign(**derived).astype({"throughput_img_s": float})


def test_an_interval_of_one_device_contains_the_class_as_often_as_it_says() -> None:
    """The truth is the class's mean, 10 ms; without the devices' part a third of the intervals would hold it."""
    rng = np.random.default_rng(5)
    inside, total = 0, 0
    for _ in range(40):
        cells = summarise(frame_of(rng, 8, 0.03, 0.01))
        low, high = cells["rank_latency_low_s"], cells["rank_latency_high_s"]
        alone = cells["cell_id"].str.startswith("cell").to_numpy()
        inside += int(((low <= 0.01) & (high >= 0.01))[alone].sum())
        total += int(alone.sum())
    assert 0.91 <= inside / total <= 0.99


def test_the_interval_of_what_a_sick_device_alone_measured_is_as_much_wider() -> None:
    cells = summarise(frame_of(np.random.default_rng(6), 8, 0.005, 0.001, sick=0.3)).set_index("cell_id")
    low, high = cells["rank_latency_low_s"], cells["rank_latency_high_s"]
    assert ((low <= 0.01) & (high >= 0.01)).all()
    wide = (high / low).drop(["cell7@batch_size=1"])
    assert wide.max() < 1.05


def test_one_device_is_no_fleet() -> None:
    assert devices_of(frame_of(np.random.default_rng(0), 1, 0.0, 0.01)) == {}
