from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from archbench.stats.intervals import (
    Interval,
    block_length_for,
    block_medians,
    blocked_interval,
    median_interval,
    minimum_samples,
    percentile,
    stretch,
)

times = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=200)


@pytest.mark.parametrize("count", [*range(1, 60), 100, 101, 1000, 20_001])
def test_ranks_are_those_of_the_binomial_distribution(count: int) -> None:
    interval = median_interval(np.arange(1, count + 1))
    # The largest r that leaves at most 5 % outside, straight from the definition.
    ranks = np.arange(1, count // 2 + 1)
    outside = 2 * stats.binom.cdf(ranks - 1, count, 0.5)
    fitting = ranks[outside <= 0.05]
    if not fitting.size:
        assert (interval.low, interval.high, interval.confidence) == (None, None, None)
        return
    rank = fitting[-1]
    assert (interval.low, interval.high) == (rank, count + 1 - rank)
    assert interval.confidence == pytest.approx(1 - outside[rank - 1])


def test_six_values_are_the_fewest_for_95_percent() -> None:
    assert median_interval([1, 2, 3, 4, 5]) == Interval(median=3)
    six = median_interval([6, 1, 5, 2, 4, 3])
    assert six == Interval(median=3.5, low=1, high=6, confidence=1 - 2 / 2**6)
    assert six.half_width == pytest.approx(2.5 / 3.5)


@given(times)
def test_interval_is_made_of_the_values_around_their_median(values: list[float]) -> None:
    interval = median_interval(values)
    assert interval.median == pytest.approx(float(np.median(values)))
    assert (interval.low is None) == (len(values) < 6)
    if interval.low is not None and interval.high is not None:
        assert interval.low in values
        assert interval.high in values
        assert interval.low <= interval.median <= interval.high


@given(times, st.integers(-20, 20), st.randoms())
def test_unit_and_order_do_not_matter(values: list[float], power: int, random: object) -> None:
    unit = 2.0**power  # a power of two scales floats exactly
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    here, there = median_interval(values), median_interval([unit * value for value in shuffled])
    assert there.median == here.median * unit
    assert there.low == (None if here.low is None else here.low * unit)
    assert there.half_width == here.half_width
    blocked, scaled = blocked_interval(values), blocked_interval(np.array(values) * unit)
    assert scaled.median == blocked.median * unit
    assert scaled.half_width == (None if blocked.half_width is None else pytest.approx(blocked.half_width))


@given(st.lists(st.floats(1, 2), min_size=6, max_size=80), st.floats(0.5, 0.9), st.floats(0.01, 0.05))
def test_more_confidence_is_never_narrower(values: list[float], confidence: float, more: float) -> None:
    less, sure = median_interval(values, confidence), median_interval(values, confidence + more)
    if sure.low is not None and sure.high is not None:
        assert less.low is not None
        assert less.high is not None
        assert sure.low <= less.low
        assert sure.high >= less.high


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_no_values_and_values_not_finite_are_refused(values: list[float]) -> None:
    for function in (median_interval, blocked_interval):
        with pytest.raises(ValueError, match="value"):
            function(values)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1.0, 1.5, math.nan])
def test_confidence_outside_0_to_1_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        median_interval([1, 2, 3], confidence)


def test_block_medians_leave_out_the_oldest() -> None:
    assert block_medians([99, 1, 2, 3, 30, 20, 10], 3).tolist() == [2, 20]
    assert block_medians([99, 1, 3, 20, 10], 2).tolist() == [2, 15]
    assert block_medians([1, 2], 3).tolist() == []


@given(st.integers(1, 100_000))
def test_blocks_are_odd_and_neither_too_few_nor_too_many(samples: int) -> None:
    length = block_length_for(samples)
    assert length in (1, 2) or length % 2 == 1
    assert length <= block_length_for(samples + 1)
    if samples >= 6:
        assert samples // length >= 6
    if samples >= 24 * 9:
        assert 24 <= samples // length <= 30


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("length", [1, 2, 5, 9, 40])
def test_stretch_is_the_ratio_of_long_run_to_block_variance(length: int, rho: float) -> None:
    lags = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
    variance_of_a_block_mean = (rho**lags).sum() / length**2
    long_run_variance = (1 + rho) / (1 - rho) / length
    assert stretch(length, rho) == pytest.approx(math.sqrt(long_run_variance / variance_of_a_block_mean))


def test_stretch_vanishes_for_long_blocks() -> None:
    factors = [stretch(length) for length in range(1, 60)]
    assert factors[0] == pytest.approx(math.sqrt(3))
    assert all(a > b >= 1 for a, b in pairwise(factors))
    assert factors[8] < 1.09
    assert stretch(1000) < 1.001


@given(times)
def test_blocked_interval_holds_the_median_of_the_samples(values: list[float]) -> None:
    interval = blocked_interval(values)
    assert interval.median == pytest.approx(float(np.median(values)))
    assert (interval.low is None) == (len(values) < 6)
    if interval.low is not None and interval.high is not None:
        assert interval.low <= interval.median <= interval.high


def test_blocked_interval_of_level_samples_has_no_width() -> None:
    assert blocked_interval([0.25] * 50).half_width == 0


@pytest.mark.parametrize(("percent", "needed"), [(50, 5), (90, 29), (95, 59), (99, 299), (10, 29), (1, 299)])
def test_minimum_samples_of_the_protocol(percent: int, needed: int) -> None:
    assert minimum_samples(percent) == needed


@pytest.mark.parametrize("percent", range(1, 100))
def test_minimum_samples_are_exactly_enough(percent: int) -> None:
    # In exact arithmetic: the largest of n values misses the percentile with at most 5 %, that of n - 1 with more.
    share, needed = Fraction(max(percent, 100 - percent), 100), minimum_samples(percent)
    assert share**needed <= Fraction(1, 20) < share ** (needed - 1)


def test_percentiles_are_withheld_below_their_minimum() -> None:
    values = np.arange(1.0, 300.0)
    assert percentile(values[:28], 90) is None
    assert percentile(values[:29], 90) == pytest.approx(26.2)
    assert percentile(values[:298], 99) is None
    assert percentile(values, 99) == pytest.approx(296.02)
    assert percentile([], 90) is None
    for percent in (0, 100, 150, -1):
        with pytest.raises(ValueError, match="percentile"):
            percentile(values, percent)


@given(st.integers(299, 400), st.floats(0, 2), st.integers(0, 2**32))
def test_percentiles_rise_and_stay_within_the_values(count: int, spread: float, seed: int) -> None:
    values = np.random.default_rng(seed).lognormal(sigma=spread, size=count)
    p90, p99 = percentile(values, 90), percentile(values, 99)
    assert p90 is not None
    assert p99 is not None
    assert np.median(values) <= p90 <= p99 <= max(values)


@given(st.lists(st.floats(1e-12, 1e12), min_size=6, max_size=80))
def test_no_interval_of_times_leaves_the_positive_numbers(values: list[float]) -> None:
    interval = blocked_interval(values)
    assert interval.low is not None
    assert interval.high is not None
    assert 0 < interval.low <= interval.high < math.inf
    # Rates are the reciprocals, and so is their interval, turned round: but for the middle of an even number.
    assert 0 < 1 / interval.high <= 1 / interval.low < math.inf


def test_a_lopsided_interval_is_stretched_by_ratios() -> None:
    interval = blocked_interval([0.001] * 3 + [0.040] + [3.0] * 3)  # blocks of one: the stretch is the root of 3
    assert interval.low == pytest.approx(0.040 * (0.001 / 0.040) ** math.sqrt(3))
    assert interval.high == pytest.approx(0.040 * (3.0 / 0.040) ** math.sqrt(3))
    with pytest.raises(ValueError, match="not above 0"):
        blocked_interval([0.0, 1.0])
