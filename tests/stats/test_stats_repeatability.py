"""The repeatability limit against its closed forms, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from archbench.stats.repeatability import repeatability_limit


def test_many_repeats_give_the_limit_of_iso_5725() -> None:
    values = np.random.default_rng(0).normal(5.0, 0.01, 20_000)
    assert repeatability_limit([values]) == pytest.approx(2.77 * 0.01, rel=0.02)


def test_two_repeats_give_students_t_with_one_degree_of_freedom() -> None:
    assert repeatability_limit([[1.0, 1.1]]) == pytest.approx(0.1 * math.tan(0.95 * math.pi / 2))


def test_groups_share_their_scatter_and_not_their_middle() -> None:
    together = repeatability_limit([[1.0, 1.1], [7.0, 7.1], [0.0, 0.1]])
    assert together == pytest.approx(0.1 * 3.18245, rel=1e-5)  # t of three degrees of freedom, from any table


def test_no_repeat_tells_nothing_and_equal_ones_tell_nought() -> None:
    assert repeatability_limit([]) is None
    assert repeatability_limit([[1.0], [2.0]]) is None
    assert repeatability_limit([[0.1] * 3]) == 0.0
    with pytest.raises(ValueError, match="finite"):
        repeatability_limit([[1.0, math.nan]])


@pytest.mark.parametrize(("groups", "repeats"), [(1, 3), (2, 3), (1, 12)])
def test_it_holds_for_19_of_20_further_pairs(groups: int, repeats: int) -> None:
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(4000):
        limit = repeatability_limit(rng.normal(size=(groups, repeats)))
        assert limit is not None
        one, other = rng.normal(size=2)
        held += abs(one - other) <= limit
    assert held / 4000 == pytest.approx(0.95, abs=0.012)
