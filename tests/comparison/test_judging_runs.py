"""Verdicts from estimates of known size and error."""

from __future__ import annotations

import math

import numpy as np
import pytest
from simulated_stored import whole_slower

from archbench.comparison import judge
from archbench.model.comparison import LEAST_EFFECT, WHY, CellComparison, Figures, Floor, Why
from archbench.stats.paired import VISIBLE_EFFECT, LogRatio, unpaired

FLOOR = Floor(spread=0.01, origin="the twin")


def estimate(change: float, error: float | None = 0.001, count: int = 12) -> LogRatio:
    log = math.log1p(change)
    freedom = None if error is None else 2.0 * (count - 1)
    return LogRatio(count=count, mean=log, median=log, sd=error, error=error, freedom=freedom)


UNJUDGED = CellComparison(
    cell_id="net",
    architecture="net",
    variant="net",
    verdict="undecided",
    why=Why("not_shown", ""),
    base=Figures(),
    head=Figures(),
)


def judge_runs(estimates, clocks, floor):
    return judge.judge_runs([UNJUDGED] * len(estimates), estimates, clocks, floor)


def one(change: float, *, error: float | None = 0.001, floor: Floor | None = FLOOR, clock: float | None = None):
    (judged,) = judge_runs([estimate(change, error)], [clock], floor)
    assert judged.why.code in WHY
    assert judged.why.sentence
    return judged.verdict, judged.why.code


@pytest.mark.parametrize(
    ("change", "verdict", "code"),
    [
        (0.05, "slower", "shown"),
        (-0.05, "faster", "shown"),
        (0.0, "same", "equivalent"),
        (0.009, "same", "equivalent"),
        (0.0145, "undecided", "small"),
        (-0.0142, "undecided", "small"),
    ],
)
def test_a_sharp_estimate(change: float, verdict: str, code: str) -> None:
    assert one(change) == (verdict, code)


def test_a_blunt_estimate_is_undecided_and_says_what_it_could_have_seen() -> None:
    assert one(0.01, error=0.02) == ("undecided", "not_shown")
    (judged,) = judge_runs([estimate(0.01, 0.02)], [None], FLOOR)
    assert judged.detectable is not None
    assert judged.detectable > VISIBLE_EFFECT
    assert f"{100 * judged.detectable:.1f} %" in judged.why.sentence
    assert judged.noisy
    assert (1 + judged.threshold) * (1 + FLOOR.spread) == pytest.approx(1 + judged.detectable)


def test_a_noisy_cell_is_slower_only_beyond_its_own_threshold() -> None:
    (judged,) = judge_runs([estimate(0.40, 0.02)], [None], FLOOR)
    assert (judged.verdict, judged.noisy) == ("slower", True)
    assert LEAST_EFFECT < VISIBLE_EFFECT < judged.threshold < 0.4
    (near,) = judge_runs([estimate(0.062, 0.02)], [None], FLOOR)
    assert near.p is not None
    assert near.p < 0.01
    assert (near.verdict, near.why.code) == ("undecided", "small")


def test_one_process_a_side_is_never_decided() -> None:
    assert one(0.5, error=None) == ("undecided", "one_process")
    (judged,) = judge_runs([estimate(0.5, None)], [None], FLOOR)
    assert (judged.ci_low, judged.detectable, judged.p) == (None, None, None)
    assert "--rounds" in judged.why.sentence
    assert judged.ratio == pytest.approx(1.5)


def test_without_a_floor_nothing_is_slower_or_faster() -> None:
    for change in (-0.3, 0.3):
        assert one(change, floor=None) == ("undecided", "no_floor")
    assert one(0.0, floor=None) == ("same", "equivalent")


def test_within_the_floor_nothing_is_slower_or_faster() -> None:
    floor = Floor(spread=0.05, origin="gate --aa")
    assert one(0.04, floor=floor) == ("undecided", "below_floor")
    assert one(-0.04, floor=floor) == ("undecided", "below_floor")
    assert one(0.051, floor=floor) == ("undecided", "below_floor"), "beyond it, but not certainly"
    assert one(0.06, floor=floor) == ("slower", "shown")
    assert one(-0.06, floor=floor) == ("faster", "shown")


def test_a_verdict_of_a_stored_baseline_says_so_and_names_the_floor() -> None:
    for change in (0.05, -0.05):
        (judged,) = judge_runs([estimate(change)], [None], FLOOR)
        assert "baseline is stored" in judged.why.sentence
        assert "1.0 % (the twin)" in judged.why.sentence


@pytest.mark.parametrize(("clock", "code"), [(0.02, "clocks_differ"), (-0.02, "clocks_differ"), (0.009, "shown")])
def test_other_clocks_decide_nothing(clock: float, code: str) -> None:
    assert one(0.05, clock=clock)[1] == code


@pytest.mark.parametrize(
    ("slower", "clock", "code"),
    # 2.2 % more time at a clock that is 0.9 % lower is 1.3 % more cycles, within the least effect of 1.5 %.
    [(0.022, -0.009, "cycles"), (0.022, 0.009, "shown"), (0.022, None, "shown"), (-0.022, 0.009, "cycles")],
)
def test_what_the_clock_did_is_not_the_codes(slower: float, clock: float | None, code: str) -> None:
    found = one(slower, error=0.0005, clock=clock)
    assert found[1] == code
    assert found[0] == ("undecided" if code == "cycles" else "slower")


def test_holm_asks_more_of_a_cell_among_many() -> None:
    none = Floor(spread=0.0, origin="none")
    alone = estimate(0.02, 0.006, 12)
    assert judge_runs([alone], [None], none)[0].verdict == "slower"
    among = judge_runs([alone] + [estimate(0.0, 0.006)] * 199, [None] * 200, none)
    assert among[0].verdict == "undecided"
    assert among[0].detectable > judge_runs([alone], [None], none)[0].detectable


def test_the_interval_holds_the_ratio_even_with_a_wild_process() -> None:
    wild = unpaired([1.0, 1.0, 1.0, 1.01, 1.0], [1.0, 1.0, 1.0, 3.0, 1.01])
    (judged,) = judge_runs([wild], [None], FLOOR)
    assert judged.ci_low <= judged.ratio <= judged.ci_high
    assert judged.verdict == "undecided"


def test_equal_suites_alarm_no_more_often_than_they_may() -> None:
    # 150 A/A comparisons of 20 cells by 5 processes, the floor as wide as the twin's; each may alarm with 2 x 1 %.
    rng = np.random.default_rng(5)
    alarms = 0
    for _ in range(150):
        estimates = [unpaired(np.exp(rng.normal(0, 0.01, 5)), np.exp(rng.normal(0, 0.01, 5))) for _ in range(20)]
        judged = judge_runs(estimates, [None] * 20, Floor(spread=0.0, origin="none"))
        alarms += any(cell.verdict in ("slower", "faster") for cell in judged)
    assert alarms <= 8


@pytest.mark.parametrize(
    ("slower", "own_shift", "least", "most"),
    # What all cells take more; the sd by which each cell shifts from session to session; share of suites "slower".
    [(0.0, 0.0, 0.0, 0.002), (0.0, 0.03, 0.0, 0.01), (0.03, 0.0, 0.0, 0.015), (0.10, 0.0, 0.95, 1.0)],
)
def test_all_cells_together_err_as_seldom_as_promised(slower, own_shift, least, most) -> None:
    """Six cells of three processes a side that scatter by 3 %."""
    found = whole_slower(400, cells=6, processes=3, sd=0.03, slower=slower, own_shift=own_shift)
    assert least <= found <= most


def test_a_large_slowdown_is_found_among_equal_cells() -> None:
    rng = np.random.default_rng(6)
    found = 0
    for _ in range(50):
        slow = unpaired(np.exp(rng.normal(0, 0.005, 10)), 1.05 * np.exp(rng.normal(0, 0.005, 10)))
        others = [unpaired(np.exp(rng.normal(0, 0.005, 10)), np.exp(rng.normal(0, 0.005, 10))) for _ in range(30)]
        found += judge_runs([slow, *others], [None] * 31, FLOOR)[0].verdict == "slower"
    assert found == 50
