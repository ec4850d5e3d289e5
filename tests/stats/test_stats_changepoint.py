from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from stats_simulations import script

from archbench.stats.changepoint import change_points, explained


def steps(*levels: float, each: int = 20, noise: float = 0.1, seed: int = 0) -> np.ndarray:
    return np.repeat(levels, each) + noise * np.random.default_rng(seed).normal(size=each * len(levels))


def test_one_clean_step_is_found_where_it_is() -> None:
    (found,) = change_points([1.0] * 10 + [2.0] * 10)
    assert (found.index, found.before, found.after) == (10, 1.0, 2.0)
    assert found.p <= 0.01


def test_several_steps_are_found_in_order() -> None:
    found = change_points(steps(1.0, 2.0, 1.5))
    assert [point.index for point in found] == [20, 40]
    assert [point.after for point in found] == pytest.approx([2.0, 1.5], abs=0.1)
    assert found[0].after == found[1].before


def test_a_level_series_has_none() -> None:
    assert change_points([1.0] * 50) == ()
    assert change_points([]) == ()
    assert change_points([1.0, 9.0]) == ()
    assert change_points([1.0, 1.0, 9.0, 9.0, 9.0]) == ()


def test_an_outlier_is_no_change() -> None:
    series = steps(1.0, each=40)
    series[20] = 5.0
    assert change_points(series) == ()


def test_false_change_points_come_up_as_often_as_the_level_says() -> None:
    rng = np.random.default_rng(1)
    found = [bool(change_points(rng.normal(size=20), level=0.05)) for _ in range(250)]
    assert 0.02 < np.mean(found) < 0.08
    found = [bool(change_points(rng.normal(size=9), level=0.05)) for _ in range(1000)]
    assert 0.03 < np.mean(found) < 0.07


def test_the_same_series_gives_the_same_answer() -> None:
    for each in (4, 25):
        series = steps(0.0, 0.2, each=each)
        assert change_points(series) == change_points(series)


@settings(max_examples=12, deadline=None)
@given(st.integers(4, 30), st.integers(4, 30), st.floats(1, 100), st.integers(-3, 3))
def test_scale_and_offset_do_not_matter(before: int, after: int, scale: float, offset: int) -> None:
    series = np.repeat([0.0, 1.0], [before, after]) + 0.05 * np.random.default_rng(before).normal(size=before + after)
    here, there = (change_points(values) for values in (series, series * scale + offset))
    assert [point.index for point in here] == [point.index for point in there]


@pytest.mark.parametrize("shortest", [1, 2, 3])
def test_what_a_split_explains_is_that_of_students_t(shortest: int) -> None:
    values = np.random.default_rng(2).normal(size=11)
    splits = range(shortest, len(values) - shortest + 1)
    t2 = np.array([stats.ttest_ind(values[:split], values[split:]).statistic ** 2 for split in splits])
    assert explained(values, shortest).tolist() == pytest.approx((t2 / (t2 + len(values) - 2)).tolist())


@pytest.mark.parametrize(("before", "after"), [(3, 3), (4, 3), (6, 3), (8, 3), (5, 5)])
def test_a_step_of_thirty_per_cent_is_found_in_few_runs(before: int, after: int) -> None:
    found = [
        [point.index for point in change_points(np.log1p([0.0] * before + [0.3] * after) + noise)]
        for noise in np.random.default_rng(before).normal(0, 0.02, (40, before + after))
    ]
    assert np.mean([indices == [before] for indices in found]) >= 0.95


def test_p_of_a_single_split_is_that_of_students_t() -> None:
    series = np.array([0.0, 0.1, -0.1, 0.22, 0.3, 0.15])
    (found,) = change_points(series, level=0.5)
    assert found.p == pytest.approx(stats.ttest_ind(series[:3], series[3:]).pvalue, abs=0.01)


def test_ranks_vote_where_there_are_enough_of_them() -> None:
    few, many = (change_points([0.0, 0.1, -0.1] * times + [0.9, 1.2, 1.0] * times) for times in (1, 4))
    assert [(one.votes, one.voters) for one in few] == [(1, 1)]
    assert few[0].p_ranks == pytest.approx(0.1, abs=0.02)  # 2 of the 20 ways in which three of six can be the high ones
    assert [(one.votes, one.voters) for one in many] == [(2, 2)]


def test_ranks_see_a_step_that_wild_runs_hide_from_the_means() -> None:
    series = steps(0.0, 1.0, each=15)
    series[[3, 9, 22, 26]] = 8.0
    (found,) = change_points(series)
    assert abs(found.index - 15) <= 2
    assert (found.votes, found.voters) == (1, 2)
    assert found.p > 0.01 >= found.p_ranks


def test_both_detectors_err_little_more_and_find_more() -> None:
    history = script("simulated_history")
    for runs in (6, 20):
        first, any_of = history.false_alarms(history.NOISE["exponential"], runs, 400)
        assert first <= any_of <= 0.03
    first, any_of = history.found(history.wild, 10, 10, 6.0, 100)
    assert any_of > first + 0.1
    for before, after in ((3, 3), (8, 3)):
        assert min(history.found(history.NOISE["normal"], before, after, 10.0, 100)) > 0.95


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        change_points([1.0, math.nan])
    with pytest.raises(ValueError, match="segment"):
        change_points([1.0, 2.0], shortest=0)


def test_histories_of_many_cells_take_seconds() -> None:
    rng = np.random.default_rng(3)
    start = time.perf_counter()
    for _ in range(50):
        change_points(rng.normal(size=100))
    assert time.perf_counter() - start < 4
