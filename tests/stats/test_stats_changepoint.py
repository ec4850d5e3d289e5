from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archbench.stats.changepoint import _split_scores, change_points


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
    found = [bool(change_points(rng.normal(size=20), level=0.05, permutations=99)) for _ in range(250)]
    assert 0.02 < np.mean(found) < 0.08


def test_the_seed_settles_the_answer() -> None:
    series = steps(0.0, 0.08, each=25)
    assert change_points(series, seed=3) == change_points(series, seed=3)


@settings(max_examples=12, deadline=None)
@given(st.integers(4, 30), st.integers(4, 30), st.floats(1, 100), st.integers(-3, 3))
def test_scale_and_offset_do_not_matter(before: int, after: int, scale: float, offset: int) -> None:
    series = np.repeat([0.0, 1.0], [before, after]) + 0.05 * np.random.default_rng(before).normal(size=before + after)
    here, there = (change_points(values, permutations=99) for values in (series, series * scale + offset))
    assert [point.index for point in here] == [point.index for point in there]


@pytest.mark.parametrize("shortest", [1, 2, 3])
def test_scores_are_the_energy_distance_by_definition(shortest: int) -> None:
    values = np.random.default_rng(2).normal(size=11)

    def mean_distance(a: np.ndarray) -> float:
        pairs = [abs(a[i] - a[j]) for i in range(len(a)) for j in range(i)]
        return sum(pairs) / len(pairs) if pairs else 0.0

    def energy(split: int) -> float:
        a, b = values[:split], values[split:]
        between = float(np.mean([abs(x - y) for x in a for y in b]))
        return len(a) * len(b) / len(values) * (2 * between - mean_distance(a) - mean_distance(b))

    expected = [energy(split) for split in range(shortest, len(values) - shortest + 1)]
    scores = _split_scores(np.abs(values[:, None] - values[None, :]), shortest)
    assert scores.tolist() == pytest.approx(expected)


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
