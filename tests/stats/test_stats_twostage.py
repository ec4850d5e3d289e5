from __future__ import annotations

import math

import numpy as np
import pytest
from stats_simulations import script

from archbench.stats.paired import paired
from archbench.stats.twostage import CONFIRM_TRIM, confirm, may_hide, screen

gate = script("simulated_gate")


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


@pytest.mark.parametrize("bad", [0.02, 0.05, 0.10])
def test_aa_suites_of_300_cells_stay_silent(bad: float) -> None:
    _, blaming, confirmed = gate.rates(200, slowdown=0.0, bad=bad, seed=11)
    assert blaming == 0
    assert confirmed < 5


@pytest.mark.parametrize("bad", [0.02, 0.05])
@pytest.mark.parametrize(("slowdown", "power"), [(0.03, 0.98), (0.05, 0.995)])
def test_a_slow_cell_among_300_is_found(slowdown: float, power: float, bad: float) -> None:
    found, blaming, _ = gate.rates(400, slowdown=slowdown, bad=bad, seed=12)
    assert found >= power
    assert blaming == 0
