from __future__ import annotations

import math

import numpy as np
import pytest
import simulated_gate as gate

from archbench.stats.paired import paired
from archbench.stats.twostage import (
    CONFIRM_TRIM,
    cleared,
    confirm,
    confirmed_enough,
    may_hide,
    power,
    screen,
    usual_scatter,
)


def test_screen_flags_by_the_median_of_a_cells_pairs() -> None:
    one_bad_process = [0.0, 0.001, -0.002, 0.001, 0.2]
    assert not screen(one_bad_process)
    assert screen([0.011, 0.012, 0.0, 0.013, 0.02])
    assert screen([one_bad_process, [0.02] * 5]).tolist() == [False, True]
    assert screen([[0.02] * 5, [0.02] * 5], effect=[0.01, 0.03]).tolist() == [True, False]


def test_screen_flags_what_may_hide_a_slowdown() -> None:
    scatter = [0.005, 0.008, 0.06, -0.03, 0.05]
    assert may_hide(scatter)
    assert screen(scatter)
    assert not may_hide([-value for value in scatter])
    assert not may_hide([0.001, 0.0, 0.002, -0.001, 0.2]), "one bad process"
    assert not may_hide([0.1, 0.0])
    estimate = paired(scatter, CONFIRM_TRIM)
    ends = estimate.interval(0.8)
    assert ends is not None
    bound = math.log(ends[1])
    assert may_hide(scatter, math.expm1(bound) - 1e-9)
    assert not may_hide(scatter, math.expm1(bound) + 1e-9)


@pytest.mark.parametrize("wrong", [[], [math.nan, 0.1], 0.1])
def test_screen_refuses_what_is_no_pair(wrong: object) -> None:
    with pytest.raises(ValueError, match="pair"):
        screen(wrong)  # type: ignore[arg-type]


def test_confirm_blames_the_slow_cell_alone() -> None:
    rng = np.random.default_rng(0)
    innocent, slow, faster = (rng.normal(mean, 0.007, 12) for mean in (0.0, 0.03, -0.03))
    answers = confirm([innocent, slow, faster])
    assert [answer.regressed for answer in answers] == [False, True, False]
    assert all(answer.p_adjusted >= answer.p for answer in answers)
    assert answers[1].median == pytest.approx(float(np.median(slow)))


def test_a_certain_but_tiny_slowdown_fails_nobody() -> None:
    (answer,) = confirm([[0.01, 0.0101, 0.0099, 0.01, 0.01, 0.0102]])
    assert answer.p_adjusted < 0.01
    assert not answer.regressed
    assert confirm([[0.02] * 12], effects=[0.015])[0].regressed
    assert not confirm([[0.02] * 12], effects=[0.05])[0].regressed


def test_one_pair_confirms_nothing() -> None:
    (answer,) = confirm([[0.5]])
    assert (answer.regressed, answer.p) == (False, 1.0)
    assert confirm([]) == ()
    with pytest.raises(ValueError, match="value"):
        confirm([[]])


def test_more_cells_ask_for_more_certainty() -> None:
    d = np.random.default_rng(1).normal(0.02, 0.02, 12)
    alone, in_company = confirm([d])[0], confirm([d, *np.random.default_rng(2).normal(0, 0.01, (30, 12))])[0]
    assert in_company.p == alone.p
    assert in_company.p_adjusted > alone.p_adjusted


@pytest.mark.parametrize("unequal", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("bad", [0.02, 0.10])
def test_aa_suites_of_300_cells_stay_silent(bad: float, unequal: float) -> None:
    line = gate.rates(100, slowdown=0.0, bad=bad, unequal=unequal, seed=11)
    assert line.blamed == 0
    assert line.confirmed < (15 if unequal else 5), "cells that scatter by 2 to 4 % are conspicuous oftener"


@pytest.mark.parametrize("bad", [0.02, 0.10])
@pytest.mark.parametrize(("sd", "slowdown", "least"), [(0.007, 0.03, 0.98), (0.011, 0.03, 0.95), (0.011, 0.05, 0.995)])
@pytest.mark.parametrize("unequal", [0.0, 0.6])
def test_a_slow_cell_is_found(sd: float, slowdown: float, least: float, unequal: float, bad: float) -> None:
    line = gate.rates(200, slowdown=slowdown, bad=bad, sd=sd, unequal=unequal, cells=40, seed=12)
    assert line.found >= least
    assert line.blamed <= 0.01


@pytest.mark.parametrize("bad", [0.02, 0.10])
def test_four_pairs_a_cell_suffice_where_pairs_scatter_little(bad: float) -> None:
    assert gate.rates(40, slowdown=0.03, bad=bad, seed=13).pairs <= 4


def test_the_stated_power_is_what_is_found() -> None:
    """Without bad processes, one cell alone: the formula is of the same normal pairs that are drawn."""
    for sd in (0.007, 0.02, 0.03):
        found = gate.rates(400, slowdown=0.03, bad=0.0, sd=sd, cells=1, seed=14).found
        # The formula knows of one look at 20 pairs; the gate stops at 12 where these suffice, or leave no hope.
        assert found == pytest.approx(power(sd), abs=0.12), sd
    assert power(0.0) == 1.0
    assert power(0.0, slowdown=0.01) == 0.0
    assert power(0.5) < 0.05


def test_what_other_cells_scatter_by_clears_a_cell_sooner() -> None:
    pool = usual_scatter([[0.003, -0.003, 0.0]] * 6)
    assert pool is not None
    assert pool.variance == pytest.approx(0.003**2)
    few = [0.012, 0.0, 0.006]
    assert not cleared(few)
    assert cleared(few, pool)
    assert not cleared([0.03, 0.02, 0.025], pool)
    assert not cleared([0.0, 0.0], pool), "two pairs are no look"
    assert usual_scatter([[0.0, 0.01, 0.0]] * 4) is None, "too few cells"
    assert usual_scatter([[0.0] * 3] * 6).variance == 0.0  # type: ignore[union-attr]


def test_further_fresh_pairs_are_played_where_twelve_leave_it_open() -> None:
    steps = np.tile(np.linspace(-1, 1, 10), 2)
    certain, hopeless = (list(mean + 0.005 * steps) for mean in (0.05, 0.0))
    open_ = list(0.013 + 0.03 * steps)
    assert confirmed_enough(certain[:12], 1, 0.015)
    assert confirmed_enough(hopeless[:12], 1, 0.015)
    assert not confirmed_enough(open_[:12], 1, 0.015)
    assert confirmed_enough(open_, 1, 0.015), "there are no more"
    assert not confirmed_enough(certain[:11], 1, 0.015)


def test_both_looks_are_paid_for() -> None:
    d = list(np.random.default_rng(3).normal(0.01, 0.01, 20))
    looks = [paired(d[:count], CONFIRM_TRIM).p_slower() for count in (12, 20)]
    assert confirm([d])[0].p == pytest.approx(2 * min(p for p in looks if p is not None))
    assert confirm([d[:12]])[0].p == pytest.approx(2 * (looks[0] or 0.0))


def test_a_conspicuous_cell_is_not_judged_by_its_calm_neighbours() -> None:
    pool = usual_scatter([[0.001, -0.001, 0.0]] * 20)
    wide = paired(np.linspace(-0.05, 0.07, 12), CONFIRM_TRIM)
    assert wide.moderated(pool).error < wide.error  # type: ignore[operator]
    assert wide.moderated(pool, cautious=True) == wide
