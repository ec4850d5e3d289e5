"""From pairs to verdicts."""

from __future__ import annotations

import numpy as np
import pytest
from gate_builders import make_cell, make_log, make_pair, make_spec
from msgspec import structs

from archbench.comparison.gate import conclude
from archbench.comparison.judge import judge_pairs
from archbench.comparison.noise import Threshold
from archbench.comparison.sides import SideRun
from archbench.stats.twostage import power, trimmed

NOISE = np.random.default_rng(5).normal(0, 0.004, 12)


def verdict_of(log):
    (cell,) = judge_pairs([log])
    return cell


def noisy(mean, count, spread=1.0):
    return list(mean + spread * (NOISE[:count] - NOISE[:count].mean()))


@pytest.mark.parametrize(
    ("screen", "confirm", "verdict", "code"),
    [
        (noisy(0.0, 5), [], "same", "equivalent"),
        (noisy(0.04, 5), noisy(0.03, 12), "slower", "shown"),
        (noisy(-0.04, 5), noisy(-0.03, 12), "faster", "shown"),
        (noisy(0.04, 5), noisy(0.0, 12), "same", "equivalent"),
        (noisy(0.04, 5), noisy(0.012, 12, 6), "undecided", "not_confirmed"),
        (noisy(0.04, 5), noisy(0.0145, 12), "undecided", "small"),
        (noisy(0.0, 5, 8), [], "undecided", "not_shown"),
        (noisy(0.0, 3, 8), [], "undecided", "out_of_time"),
        (noisy(0.04, 5), noisy(0.03, 5), "undecided", "out_of_time"),
        (noisy(0.04, 5), noisy(0.03, 7), "slower", "shown"),
        ([], [], "undecided", "out_of_time"),
    ],
)
def test_verdicts(screen, confirm, verdict, code):
    cell = verdict_of(make_log(screen, confirm))
    assert (cell.verdict, cell.why.code) == (verdict, code), cell.why.sentence
    if screen:
        assert cell.ci_low < cell.ratio < cell.ci_high
        assert cell.detectable > 0


def test_a_flagged_cell_is_judged_by_its_fresh_pairs_alone():
    cell = verdict_of(make_log([0.2] * 5, noisy(0.03, 12)))
    assert cell.pairs == 12
    assert cell.ratio == pytest.approx(1.03, abs=0.004)


def test_two_broken_processes_in_twelve_blame_nobody_and_hide_nothing():
    assert verdict_of(make_log([0.04] * 5, [*noisy(0.0, 10), 0.3, 0.3])).verdict != "slower"
    assert verdict_of(make_log([0.04] * 5, [*noisy(0.03, 10), -0.3, -0.3])).verdict == "slower"


def test_a_noisy_cell_has_its_own_threshold_and_says_so():
    own = Threshold(screen=0.02, confirm=0.03, noisy=True, spread=0.02)
    assert verdict_of(make_log([0.05] * 5, noisy(0.025, 12), threshold=own)).why.code == "small"
    slower = verdict_of(make_log([0.05] * 5, noisy(0.06, 12), threshold=own))
    assert slower.verdict == "slower"
    assert slower.noisy
    assert slower.threshold == pytest.approx(0.0305, abs=1e-3)
    assert "threshold" in slower.why.sentence


def test_sides_at_different_clocks_are_undecided():
    log = make_log()
    for ratio in noisy(0.0, 5):
        log.add("screen", make_pair(ratio, base={"sm_clock_mhz": 1980.0}, head={"sm_clock_mhz": 1900.0}))
    cell = verdict_of(log)
    assert (cell.verdict, cell.why.code) == ("undecided", "clocks_differ")
    assert "-4.0 %" in cell.why.sentence


THROTTLED = {"verdict": "invalid", "reasons": ("throttled",)}


def test_unfit_pairs_do_not_count_and_as_many_as_fit_ones_make_a_cell_invalid():
    log = make_log(noisy(0.0, 3, 8))
    for _ in range(2):
        log.add("screen", make_pair(0.5, head=THROTTLED))
    assert verdict_of(log).verdict == "undecided"
    assert verdict_of(log).pairs == 3
    log.add("screen", make_pair(0.5, head=THROTTLED))
    cell = verdict_of(log)
    assert (cell.verdict, cell.why.code) == ("invalid", "invalid_rows")
    assert "3 of 6 pairs are not fit to be used (throttled)" in cell.why.sentence
    assert "cool the device" in cell.why.sentence


@pytest.mark.parametrize("late", [{"head": THROTTLED}, {"head": {"status": "crashed", "latency_median_s": None}}])
def test_a_slowdown_that_was_shown_stays_shown_whatever_comes_after(late):
    log = make_log(noisy(0.1, 5), noisy(0.1, 11))
    for _ in range(2):
        log.add("confirm", make_pair(**late))
    assert verdict_of(log).verdict == "slower"


def failing(**columns):
    return {"status": "error", "latency_median_s": None, "verdict": None, "params": None, **columns}


def test_a_head_that_keeps_failing_fails_the_gate_and_the_reason_is_told():
    log, fine = make_log(), make_log(noisy(0.0, 5), cell=make_cell("fine"))
    for _ in range(2):
        log.add("screen", make_pair(head=failing(error_message="no such layer", error_phase="build")))
    result = conclude(make_spec([log.cell, fine.cell]), [log, fine])
    assert result.exit_code() == 1
    (finding,) = result.failures
    assert (finding.column, finding.base, finding.head) == ("status", "ok", "error")
    assert "no such layer" in finding.what
    assert result.cells[0].why.sentence == "the head ended with error in build: no such layer"


def test_one_bad_process_beside_good_ones_fails_nothing():
    log = make_log(noisy(0.0, 5))
    log.add("screen", make_pair(head=failing(status="crashed", error_message="killed")))
    result = conclude(make_spec([log.cell]), [log])
    assert result.exit_code() == 0
    assert not result.failures


def test_a_gate_whose_surveyed_pair_was_lost_is_concluded_all_the_same():
    log = make_log()
    for _ in range(5):
        log.add("screen", make_pair(base={"params": None}, head={"params": None}))
    assert not log.surveyed
    assert conclude(make_spec([log.cell]), [log]).cells[0].verdict == "same"


def test_counted_figures_fail_the_gate_whatever_the_times():
    log = make_log()
    for _ in range(5):
        log.add("screen", make_pair(0.0, base={"graph_breaks": 0}, head={"params": 11, "graph_breaks": 2}))
    result = conclude(make_spec([log.cell]), [log])
    assert {finding.column for finding in result.failures} == {"params", "graph_breaks"}
    assert result.exit_code() == 1


def test_what_to_know_before_believing_it(tmp_path):
    log = make_log()
    for ratio in noisy(0.0, 5):
        log.add("screen", make_pair(ratio, origins=("/site/torchvision/__init__.py",) * 2))
    tree = SideRun(python="python", env={}, tree=tmp_path)
    spec = make_spec([log.cell])
    log.threshold = Threshold(spread=0.01)
    assert conclude(spec, [log]).notes == ()
    (note,) = conclude(spec, [log], [tree, tree]).notes
    assert "No network of the suite comes from the project's own code" in note
    log.threshold = Threshold()
    assert conclude(spec, [log]).notes == (), "its own pairs say how widely it scatters"
    log.threshold = Threshold(screen=0.02, confirm=0.03, noisy=True, spread=0.02)
    (note,) = conclude(spec, [log]).notes
    assert "is noisy" in note
    assert "3.0 %" in note


def test_each_cell_states_its_power_and_those_that_would_miss_a_slowdown_are_named():
    calm, wide = make_log(noisy(0.0, 5), cell=make_cell("calm")), make_log(noisy(0.0, 5, 8), cell=make_cell("wide"))
    result = conclude(make_spec([calm.cell, wide.cell]), [calm, wide])
    powers = {cell.architecture: cell.power for cell in result.cells}
    assert powers["calm"] > 0.99
    scatter = trimmed(wide.ratios("screen")).scatter
    assert powers["wide"] == pytest.approx(power(scatter))
    assert powers["wide"] < 0.8
    (note,) = result.notes
    assert "3 % more time in wide@batch_size=1 (" in note
    assert "archbench gate SUITE --base X --aa" in note
    assert conclude(make_spec([make_cell()]), [make_log()]).cells[0].power is None


def test_what_other_cells_scatter_by_decides_a_cell_after_three_pairs():
    logs = [make_log(noisy(0.0, 3), cell=make_cell(f"n{n}")) for n in range(9)]
    few = make_log([0.012, 0.0, 0.006], cell=make_cell("few"))
    assert verdict_of(few).verdict == "undecided"
    assert judge_pairs([*logs, few])[-1].verdict == "same"


def test_twenty_fresh_pairs_show_what_twelve_leave_open():
    steps = [0.03 * (-1) ** number for number in range(20)]
    twelve, twenty = (make_log([0.05] * 3, [0.025 + one for one in steps[:count]]) for count in (12, 20))
    assert verdict_of(twelve).verdict == "undecided"
    assert verdict_of(twenty).pairs == 20


def test_a_hundred_innocent_cells_are_blamed_for_nothing():
    rng = np.random.default_rng(1)
    logs = [make_log(rng.normal(0, 0.01, 5), rng.normal(0, 0.01, 12), make_cell(f"n{n}")) for n in range(100)]
    assert not [cell for cell in judge_pairs(logs) if cell.verdict == "slower"]


def test_pairs_whose_every_turn_was_rejected_are_unfit_rather_than_played_for_ever():
    log = make_log()
    for _ in range(2):
        pair = make_pair()
        log.add("screen", structs.replace(pair, turns=tuple(structs.replace(one, kept=False) for one in pair.turns)))
    assert log.wasted == 2
    (cell,) = judge_pairs([log])
    assert (cell.verdict, cell.why.code) == ("invalid", "invalid_rows")
    assert "rejected every turn" in cell.why.sentence
