"""Which pair comes next: what decides most goes first, and nothing is played that decides nothing."""

from __future__ import annotations

import numpy as np
from gate_builders import make_cell, make_log, make_pair
from hypothesis import given, settings
from hypothesis import strategies as st

from archbench.comparison.noise import Threshold
from archbench.comparison.schedule import MOST_WASTED, leaning, next_pairs, outlook
from archbench.stats.twostage import SCREEN_EFFECT, SCREEN_PAIRS, cleared, may_hide, screen

ratios = st.lists(st.floats(-0.1, 0.1), min_size=SCREEN_PAIRS, max_size=SCREEN_PAIRS)


@given(ratios)
@settings(deadline=None)
def test_leaning_says_what_the_screen_says(values):
    lean = leaning(values, SCREEN_EFFECT)
    assert (lean == "faster") == (np.median(values) < -SCREEN_EFFECT)
    assert (lean == "slower") == (bool(screen(values)) and lean not in ("faster", "same"))
    assert lean != "open"
    assert lean != "same" or cleared(values[:3]) or cleared(values[:4]) or cleared(values)


@given(ratios)
@settings(deadline=None)
def test_what_it_says_early_it_still_says_at_the_end(values):
    end = leaning(values, SCREEN_EFFECT)
    for seen in range(SCREEN_PAIRS):
        early = leaning(values[:seen], SCREEN_EFFECT)
        assert early in ("open", end) or (early == "level" and (end == "same" or may_hide(values)))


def test_a_cell_too_wide_to_rule_a_slowdown_out_is_confirmed():
    wide = make_log([0.005, 0.008, 0.06, -0.03, 0.05])
    assert next_of(wide) == [("resnet50", "confirm")]
    assert next_of(make_log([-0.005, -0.008, -0.06, 0.03, -0.05])) == [], "it leans to the other side"


def test_pairs_after_the_screen_do_not_change_it():
    assert leaning([0.0] * 5 + [0.1] * 7, SCREEN_EFFECT) == "same"
    assert leaning([0.0, 0.03, -0.03, 0.0, 0.005] + [0.1] * 7, SCREEN_EFFECT) == "level"


def next_of(*logs, **options):
    found = next_pairs(
        {log.cell.cell_id: log for log in logs},
        {log.cell.cell_id: [n] for n, log in enumerate(logs)},
        **options,
    )
    return [(one.cell_id.partition("@")[0], one.stage) for one in found]


def test_first_a_look_at_all_then_what_decides_whether_the_gate_passes():
    fresh = make_log(cell=make_cell("fresh"))
    slow = make_log([0.05, 0.05, 0.05], cell=make_cell("slow"))
    open_ = make_log([0.05, 0.05, 0.0], cell=make_cell("open"))
    fast = make_log([-0.05, -0.05, -0.05], [-0.05], cell=make_cell("fast"))
    level = make_log([0.0, 0.0, 0.06, 0.0005], cell=make_cell("level"))
    done = make_log([0.0, 0.0, 0.06, 0.0005, 0.0], cell=make_cell("done"))
    cleared_ = make_log([0.0, 0.001, 0.0], cell=make_cell("cleared"))
    assert next_of(done, cleared_, level, fast, open_, slow, fresh) == [
        ("fresh", "screen"),
        ("slow", "confirm"),
        ("open", "screen"),
        ("fast", "confirm"),
        ("level", "screen"),
    ]


def test_a_confirmed_cell_is_done_and_so_is_one_that_keeps_failing():
    assert next_of(make_log([0.05] * 5, [0.05] * 12)) == []
    broken = make_log()
    for _ in range(MOST_WASTED):
        broken.add("screen", make_pair(head={"status": "crashed", "latency_median_s": None, "verdict": None}))
    assert next_of(broken) == []
    assert outlook({"x": broken}) == {}


def test_two_unfit_pairs_among_many_fit_ones_end_nothing():
    log = make_log([0.0, 0.0099, -0.0099])
    for _ in range(2):
        log.add("screen", make_pair(head={"verdict": "invalid", "reasons": ("throttled",)}))
    assert next_of(log) == [("resnet50", "screen")]
    log.add("screen", make_pair(head={"verdict": "invalid", "reasons": ("throttled",)}))
    assert next_of(log) == [], "every other pair is unfit"


def test_time_to_spare_settles_the_nearest_first():
    near = make_log([0.002, 0.018, -0.02, 0.015, -0.012], cell=make_cell("near"))
    far = make_log([0.04, -0.04, 0.009, -0.05, 0.05], cell=make_cell("far"))
    same = make_log([0.001, -0.001, 0.0, 0.0005, 0.0], cell=make_cell("same"))
    assert next_of(far, near, same) == []
    assert next_of(far, near, same, settle=True) == [("near", "screen"), ("far", "screen")]


def test_a_noisy_cell_is_flagged_by_its_own_threshold():
    log = make_log([0.02] * 5)
    assert next_of(log) == [("resnet50", "confirm")]
    log.threshold = Threshold(screen=0.03, confirm=0.045, noisy=True)
    assert next_of(log) == []


def test_learning_plays_more_pairs_of_every_cell():
    logs = make_log([0.0] * 5), make_log([0.05] * 5, [0.0] * 12, cell=make_cell("flagged"))
    assert [stage for _, stage in next_of(*logs, screen_pairs=12)] == ["screen", "screen"]


def test_the_outlook_counts_what_is_left():
    logs = {
        "fresh": make_log(),
        "level": make_log([0.0, 0.0099, -0.0099, 0.02]),
        "slow": make_log([0.05] * 3, [0.05] * 2),
        "wide": make_log([0.05] * 3, [0.02 + 0.03 * (-1) ** n for n in range(12)]),
        "done": make_log([0.0] * 3),
    }
    assert outlook(logs) == {"fresh": 5, "level": 1, "slow": 10, "wide": 8}
