from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from stats_simulations import autocorrelated

from archbench.stats.sampling import _t_quantile, drifting


def noise(kind: str, count: int, rng: np.random.Generator) -> np.ndarray:
    return autocorrelated(count, rng) if kind == "autocorrelated" else rng.normal(size=count)


@pytest.mark.parametrize("kind", ["independent", "autocorrelated"])
@pytest.mark.parametrize("count", [12, 30, 60, 120, 500])
def test_level_samples_are_seldom_flagged(kind: str, count: int) -> None:
    rng = np.random.default_rng(0)
    flagged = [drifting(1 + 0.05 * noise(kind, count, rng)).drifting for _ in range(400)]
    assert np.mean(flagged) <= 0.03


@pytest.mark.parametrize("count", [12, 30, 60, 120, 500])
@pytest.mark.parametrize("shape", ["ramp", "late ramp", "step"])
def test_drift_is_found(shape: str, count: int) -> None:
    rng = np.random.default_rng(1)
    time = np.arange(count) / count
    # Each moves the mean of the second half by 1.5 %.
    drift = {"ramp": 0.03 * time, "late ramp": 0.06 * np.maximum(time - 0.5, 0), "step": 0.015 * (time >= 0.5)}[shape]
    for _ in range(20):
        found = drifting(1 + drift + 0.002 * noise("independent", count, rng))
        assert found.drifting
        assert found.change == pytest.approx(0.015, abs=0.005)
        assert found.noise is not None
        assert found.noise < 0.012


def test_speeding_up_is_drift_too() -> None:
    found = drifting(np.linspace(1.1, 1.0, 60))
    assert found.drifting
    assert found.change == pytest.approx(-0.048, abs=0.002)


def test_a_certain_change_below_the_limit_is_none() -> None:
    ramp = 1 + 0.004 * np.arange(100) / 100
    assert not drifting(ramp).drifting
    assert drifting(ramp, limit=0.001).drifting
    assert not drifting([1.0] * 100).drifting


def test_too_few_samples_say_nothing() -> None:
    found = drifting([1.0] * 5 + [2.0] * 6)
    assert (found.drifting, found.noise) == (False, None)
    assert drifting([1.0] * 6 + [2.0] * 6).drifting
    with pytest.raises(ValueError, match="two samples"):
        drifting([1.0])
    with pytest.raises(ValueError, match="finite"):
        drifting([1.0, math.nan])


@given(st.lists(st.floats(0.5, 2), min_size=2, max_size=100), st.integers(-10, 10))
def test_the_unit_does_not_matter(values: list[float], power: int) -> None:
    here, there = drifting(values), drifting([value * 2.0**power for value in values])
    assert here.change == there.change
    assert here.noise == (None if there.noise is None else pytest.approx(there.noise))


def test_quantile_without_scipy_is_scipys() -> None:
    for freedom in range(6, 40):
        assert _t_quantile(freedom, 0.995) == pytest.approx(stats.t.ppf(0.995, freedom), rel=3e-3)
