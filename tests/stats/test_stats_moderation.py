"""Pooled and moderated variances against closed forms, against what they were drawn from, and as properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stats_simulations import script

from archbench.stats.variance import ALIKE, LEAST_PRIOR, Pool, joined, median_variance, moderated, pooled

variances = st.lists(st.floats(0, 1e6), min_size=1, max_size=30)


def drawn(prior: float, groups: int, freedom: int, seed: int) -> np.ndarray:
    """Sample variances of things whose true ones are a scaled inverse chi-squared about 4."""
    rng = np.random.default_rng(seed)
    true = np.full(groups, 4.0) if math.isinf(prior) else 4.0 * prior / rng.chisquare(prior, groups)
    return np.asarray(true * rng.chisquare(freedom, groups) / freedom)


def test_many_repeats_give_the_limit_of_iso_5725() -> None:
    pool = pooled([1e-4], [20_000])
    assert pool is not None
    assert pool.limit() == pytest.approx(2.77 * 0.01, rel=0.002)


def test_two_repeats_give_students_t_with_one_degree_of_freedom() -> None:
    pool = pooled([np.var([1.0, 1.1], ddof=1)], [1])
    assert pool is not None
    assert pool.limit() == pytest.approx(0.1 * math.tan(0.95 * math.pi / 2))


def test_no_repeat_tells_nothing_and_equal_ones_tell_nought() -> None:
    assert pooled([], []) is None
    assert pooled([1.0, 2.0], [0, 0]) is None
    assert pooled([0.0, 0.0, 0.0, 0.0], [2] * 4) == Pool(variance=0.0, freedom=8, prior=ALIKE)
    for wrong in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="variance"):
            pooled([wrong], [1])


def test_variances_that_are_alike_are_averaged_by_their_degrees_of_freedom() -> None:
    pool = pooled([1.0, 2.0, 1.5], [1, 2, 5])
    assert pool is not None
    assert pool.variance == pytest.approx((1 + 4 + 7.5) / 8)
    assert (pool.freedom, pool.prior) == (8, ALIKE)
    assert moderated(pool, [1.0, 9.0], [1, 5])[0] == pytest.approx([pool.variance] * 2, rel=1e-4)


@pytest.mark.parametrize("prior", [3.0, 10.0, math.inf])
@pytest.mark.parametrize("freedom", [1, 4])
def test_what_the_variances_were_drawn_from_is_found_again(prior: float, freedom: int) -> None:
    pool = pooled(drawn(prior, 4000, freedom, 1), [freedom] * 4000)
    assert pool is not None
    assert pool.variance == pytest.approx(4.0, rel=0.1)
    assert pool.prior > 40 if math.isinf(prior) else pool.prior == pytest.approx(prior, rel=0.25)


def test_moderation_is_smyths_formula_and_never_surer_than_the_pool() -> None:
    pool = Pool(variance=4.0, freedom=9.0, prior=6.0)
    variance, freedom = moderated(pool, [1.0, 10.0, math.nan], [2, 4, 0])
    assert variance == pytest.approx([(6 * 4 + 2) / 8, (6 * 4 + 4 * 10) / 10, 4.0])
    assert freedom == pytest.approx([8, 9, 6])


def test_repeats_taken_in_one_go_count_once() -> None:
    pool = pooled([1.0, 1.0, 2.0, 2.0], [1] * 4, freedom=2)
    assert pool is not None
    assert pool.freedom == 2


@given(variances, st.integers(1, 9), st.floats(1e-6, 1e6))
def test_a_pool_scales_with_its_unit_and_stays_among_its_variances(s2: list[float], freedom: int, unit: float) -> None:
    pool, scaled = pooled(s2, [freedom] * len(s2)), pooled(np.array(s2) * unit, [freedom] * len(s2))
    assert pool is not None
    assert scaled is not None
    assert 0 <= pool.variance <= max(s2) * (1 + 1e-9)
    assert pool.prior > 0
    if min(s2) > 1e-100:
        assert scaled.variance == pytest.approx(pool.variance * unit, rel=1e-6)
    own, known = moderated(pool, s2, [freedom] * len(s2))
    assert ((own >= min(pool.variance, *s2) * (1 - 1e-9)) & (own <= max(s2) * (1 + 1e-9))).all()
    assert ((known > 0) & (known <= pool.freedom)).all()


def test_earlier_pools_count_for_as_much_as_they_resemble_each_other() -> None:
    own = Pool(variance=1.0, freedom=8.0, prior=ALIKE)
    alike = [Pool(variance=4.0 + 0.1 * number, freedom=12.0, prior=5.0) for number in range(4)]
    unlike = [Pool(variance=4.0 ** (number - 1.5), freedom=12.0, prior=5.0) for number in range(4)]
    by_alike, by_unlike = joined(own, alike), joined(own, unlike)
    assert by_alike is not None
    assert by_unlike is not None
    assert by_alike.freedom > by_unlike.freedom > own.freedom
    assert 1.0 < by_alike.variance < 4.3
    assert joined(own, []) is own
    assert joined(None, []) is None
    assert joined(None, alike[:1]) == Pool(variance=4.0, freedom=4.0, prior=5.0)
    few = joined(own, alike[:1])
    assert few is not None
    assert few.freedom == 12.0  # one run does not tell how much runs differ: it counts for four degrees


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9, 20])
def test_the_variance_of_a_median(count: int) -> None:
    medians = np.median(np.random.default_rng(3).normal(size=(100_000, count)), axis=1)
    found = float(median_variance(count)) / medians.var()
    assert 0.97 < found < (1.03 if count % 2 or count == 2 else 1.16)


@pytest.mark.parametrize(("groups", "unequal"), [(6, 0.0), (6, 0.6), (40, 0.3)])
def test_intervals_and_the_statement_hold_as_often_as_they_say(groups: int, unequal: float) -> None:
    found = script("simulated_spread").simulated(
        np.random.default_rng(5), runs=300, groups=groups, visits=2, unequal=unequal
    )
    assert 0.90 < found.covered < 0.97
    assert 0.02 < found.beyond < 0.09


def test_a_run_of_few_repeats_is_not_thrown_away_by_one_outlier() -> None:
    """Ten cells measured twice, beside others measured once: Student's t of one degree is 12.7."""
    variances = [1e-4, 2e-4, 1e-6, 3e-3, 1e-7, 2e-4, 0.1, 4e-4, 2e-7, 1e-4]
    loose, held = (pooled(variances, [1] * 10, least_prior=least) for least in (0.0, LEAST_PRIOR))
    assert loose is not None
    assert loose.prior < 1.5
    assert held is not None
    assert held.prior == LEAST_PRIOR
    found = script("simulated_spread").simulated(
        np.random.default_rng(7), runs=200, groups=10, visits=2, unequal=0.3, once=47
    )
    assert found.covered > 0.93
    assert 0.02 < found.beyond < 0.08
    assert found.unlucky < 2.2 * found.stated
