"""Two sets of rows in, verdicts out: pairing, locks, correction, notes and the exit code."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from builders import make_environment, make_record, make_rows, make_suite
from compare_sides import CELL, cell, measured, rows_of, times, twin

from archbench.comparison import MUST_MATCH, NEVER, Rows, compare
from archbench.model.comparison import Comparison, Floor
from archbench.model.errors import UnfitError, UsageError
from archbench.model.record import Record
from archbench.rendering.comparison_formats import render_comparison

STEADY = times(0.010, 8, 0.003, seed=1)
AGAIN = times(0.010, 8, 0.003, seed=2)
SLOWER = times(0.0105, 8, 0.003, seed=3)


def verdicts(comparison: Comparison) -> dict[str, str]:
    return {one.cell_id.partition("@")[0]: one.verdict for one in comparison.cells}


def codes(comparison: Comparison) -> dict[str, str]:
    return {one.cell_id.partition("@")[0]: one.why.code for one in comparison.cells}


def both(
    place: Path, base: list[Record], head: list[Record], allow: Collection[str] = (), floors: Sequence[Floor] = ()
) -> Comparison:
    return compare(rows_of(place, base), rows_of(place, head), allow=allow, floors=floors)


def test_each_cell_is_judged_by_its_own_processes(tmp_path: Path) -> None:
    names, apart = ("a", "b", "c", "d"), (0.0100, 0.0104)
    bases = (STEADY, STEADY, STEADY, apart)
    base = [*twin(0.01), *(row for name, time in zip(names, bases, strict=True) for row in measured(time, cell(name)))]
    heads = (AGAIN, SLOWER, times(0.0095, 8, 0.003, seed=4), apart)
    head = [*twin(0.012), *(row for name, time in zip(names, heads, strict=True) for row in measured(time, cell(name)))]
    answer = both(tmp_path, base, head)
    assert verdicts(answer) == {"a": "same", "b": "slower", "c": "faster", "d": "undecided", "twin": "same"}
    slow = answer.having("slower")[0]
    assert slow.ratio == pytest.approx(1.05, rel=2e-3)
    assert slow.ci_low < slow.ratio < slow.ci_high
    assert (slow.pairs, slow.base.processes, slow.head.processes) == (8, 8, 8)
    assert slow.base.process_times_s == pytest.approx(STEADY)
    # Of the processes of all cells but `d`, whose two lie 4 % apart: 2.8 times about 0.3 %.
    assert answer.floor is not None
    assert 0.008 < answer.floor.spread < 0.012
    assert re.fullmatch(r"the (base|head)'s processes, 5 groups", answer.floor.origin)
    assert (answer.kind, answer.regressed, answer.exit_code()) == ("stored", True, 1)


def test_it_always_says_that_the_baseline_is_stored_and_what_its_floor_is(tmp_path: Path) -> None:
    with_floor = both(tmp_path, [*twin(0.02), *measured(STEADY)], [*twin(0.01), *measured(AGAIN)])
    assert "baseline is stored, from 2025-01-02 03:04 UTC" in with_floor.notes[0]
    assert re.search(r"noise floor is 0\.\d+ % \(the (base|head)'s processes, 2 groups\)", with_floor.notes[0])
    without = both(tmp_path, measured(STEADY[:1]), measured(SLOWER[:1]))
    assert "baseline is stored" in without.notes[0]
    assert "No noise floor is known" in without.notes[0]
    assert codes(without) == {"resnet50": "one_process"}
    assert without.exit_code() == 0
    assert without.exit_code(strict=True) == 3


def test_the_widest_known_floor_counts(tmp_path: Path) -> None:
    sides = ([*twin(0.02), *measured(STEADY)], [*twin(0.01), *measured(SLOWER)])
    known = Floor(spread=0.08, origin="gate --aa of 2026-03-01")
    assert codes(both(tmp_path, *sides, floors=[known]))["resnet50"] == "below_floor"
    assert codes(both(tmp_path, *sides, floors=[Floor(spread=0.001, origin="gate --aa")]))["resnet50"] == "shown"


def test_one_process_a_side_is_undecided(tmp_path: Path) -> None:
    answer = both(tmp_path, [*twin(0.01), *measured([0.010])], [*twin(0.01), *measured([0.020])])
    assert codes(answer)["resnet50"] == "one_process"
    assert answer.cells[-1].ratio == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("column", "before", "after"),
    [
        ("hardware_class", "NVIDIA H200", "NVIDIA H100"),
        ("protocol_version", 1, 2),
        ("torch_version", "2.14.0", "2.15.0"),
        ("driver_version", "570.1", "580.2"),
    ],
)
def test_other_circumstances_are_refused_by_name(tmp_path: Path, column: str, before: object, after: object) -> None:
    base, head = measured(STEADY, CELL, **{column: before}), measured(AGAIN, CELL, **{column: after})
    with pytest.raises(UnfitError, match=f"{column} differs: {before} in .*, {after} in ") as caught:
        both(tmp_path, base, head)
    assert caught.value.exit_code == 3
    if column in NEVER:
        with pytest.raises(UsageError, match="never compared"):
            both(tmp_path, base, head, allow=[column])
    else:
        assert f"--allow-different {column}" in str(caught.value)
        answer = both(tmp_path, base, head, allow=[column])
        assert verdicts(answer) == {"resnet50": "same"}
        assert any(f"{before} → {after}" in note for note in answer.notes)


def test_other_flags_of_the_process_are_refused_by_name(tmp_path: Path) -> None:
    def flags(threads: int) -> str:
        return json.dumps({"threads": threads, "interop_threads": 1, "grad_mode": "inference"})

    base, head = measured(STEADY, applied=flags(4)), measured(AGAIN, applied=flags(2))
    with pytest.raises(UnfitError, match=r"threads 4 in the base, 2 in the head.*--allow-different applied"):
        both(tmp_path, base, head)
    assert any("threads 4" in note for note in both(tmp_path, base, head, allow=["applied"]).notes)
    both(tmp_path, base, measured(AGAIN, applied=flags(4)))

    # On half the threads the network takes 1.54 times as long, and the canary 1.71 times: no machine's slow day.
    base, head = (
        [*twin(0.01), *measured(STEADY, applied=flags(2), canary_s=0.001)],
        [*twin(0.01), *measured([1.54 * time for time in STEADY], applied=flags(1), canary_s=0.00171)],
    )
    answer = both(tmp_path, base, head, allow=["applied"])
    assert verdicts(answer)["resnet50"] == "slower"
    assert answer.cells[-1].ratio == pytest.approx(1.54)
    assert any("71.0 % more time in the head, which may be the machine or the flags" in note for note in answer.notes)


def test_sides_at_other_threads_are_compared_where_that_is_the_question(tmp_path: Path) -> None:
    def side(threads: int, factor: float, canary_s: float) -> list[Record]:
        given = {"threads": threads, "applied": json.dumps({"threads": threads}), "canary_s": canary_s}
        rows = measured([factor * time for time in STEADY], cell("resnet50", threads=threads), **given)
        return [*twin(0.01, cell("twin", threads=threads), **given), *rows]

    base, head = side(2, 1.0, 0.001), side(1, 1.54, 0.00171)
    with pytest.raises(UnfitError, match=r"threads 2 in .*, 1 in .*--allow-different threads"):
        both(tmp_path, base, head)
    answer = both(tmp_path, base, head, allow=["threads"])
    assert {one.cell_id: one.verdict for one in answer.cells}[CELL] == "slower"
    assert answer.cells[-1].ratio == pytest.approx(1.54)
    assert any(note.startswith("The sides differ in threads 2") for note in answer.notes)
    with pytest.raises(UsageError, match="a side has one number of threads"):
        both(tmp_path, base, [*head, *side(4, 0.7, 0.001)], allow=["threads"])
    assert verdicts(both(tmp_path, base, side(2, 1.0, 0.001)))["resnet50"] == "same"


def test_an_unlocked_column_cannot_be_allowed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"torch_versoin: not a locked column.*did you mean torch_version"):
        both(tmp_path, measured(STEADY), measured(AGAIN), allow=["torch_versoin"])
    assert set(MUST_MATCH).isdisjoint(NEVER)


def test_other_suites_are_refused_and_on_request_compared_in_what_they_share(tmp_path: Path) -> None:
    suites = [make_suite(suite="one"), make_suite(suite="other")]
    base, head = (
        msgspec.structs.replace(rows_of(tmp_path, [*measured(STEADY), *measured(STEADY, cell(name))]), suite=suite)
        for suite, name in zip(suites, ("vgg16", "alexnet"), strict=True)
    )
    with pytest.raises(UnfitError, match=r"suite differs: one in .*, other in .*--allow-different suite"):
        compare(base, head)
    answer = compare(base, head, allow=["suite"])
    assert verdicts(answer) == {"resnet50": "same"}
    assert [(one.cell_id, one.fails) for one in answer.findings] == [(cell("vgg16"), False), (cell("alexnet"), False)]
    assert answer.exit_code() == 0


def test_sides_without_a_common_cell_name_one_of_each(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no cell in common; the first has resnet50@.*the second vgg16@"):
        both(tmp_path, measured(STEADY), measured(AGAIN, cell("vgg16")))


def test_a_side_that_was_killed_is_not_one_whose_cells_are_gone_or_new(tmp_path: Path) -> None:
    suite = make_suite()
    rows = [row for row in make_rows(suite) if row.status == "ok"]
    whole = msgspec.structs.replace(rows_of(tmp_path, rows), suite=suite)
    half = msgspec.structs.replace(rows_of(tmp_path, rows[: len(rows) // 6]), suite=suite)
    for name, sides in (("base", (half, whole)), ("head", (whole, half))):
        cause = f"{half.label}, the {name}: was killed, is still running, or was narrowed by --only"
        remedy = r"have no row yet, such as .*; the same `archbench run` finishes it"
        with pytest.raises(UnfitError, match=f"{re.escape(cause)}.*{remedy}"):
            compare(*sides)
        assert not compare(*sides, allow=["suite"]).regressed
    # Killed later, every cell has a process: fewer pairs, and nothing else.
    later = msgspec.structs.replace(rows_of(tmp_path, rows[: len(rows) // 2]), suite=suite)
    assert {one.pairs for one in compare(whole, later).cells} >= {1}


def test_a_base_that_never_had_the_cells_is_finished(tmp_path: Path) -> None:
    suite = make_suite()
    shorter = make_suite(architectures=suite.architectures[:-1])
    rows = [row for row in make_rows(suite) if row.status == "ok"]
    kept = [row for row in rows if row.architecture != suite.architectures[-1].name]
    head = msgspec.structs.replace(rows_of(tmp_path, rows), suite=suite)
    travelling = rows_of(tmp_path, kept)  # a file alone, of which nothing tells what was planned
    for base in (travelling, msgspec.structs.replace(travelling, suite=shorter)):
        answer = compare(base, head)
        assert {one.what for one in answer.findings} == {"is new: the base has no row"}
        assert not answer.regressed


def test_a_cell_that_left_the_suite_is_gone_and_fails(tmp_path: Path) -> None:
    suite = make_suite()
    shorter = make_suite(architectures=suite.architectures[:-1])
    rows = [row for row in make_rows(suite) if row.status == "ok"]
    base = msgspec.structs.replace(rows_of(tmp_path, rows), suite=suite)
    kept = [row for row in rows if row.architecture != suite.architectures[-1].name]
    answer = compare(base, msgspec.structs.replace(rows_of(tmp_path, kept), suite=shorter))
    assert {one.cell_id.partition("@")[0] for one in answer.failures} == {"vgg16"}
    assert answer.exit_code() == 1


def test_the_same_row_twice_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds resnet50@.* of round 0 .* twice \(2 such rows\)"):
        both(tmp_path, measured(STEADY), [*measured([0.01, 0.01]), *measured([0.01, 0.01])])


def test_a_side_of_two_machines_is_refused(tmp_path: Path) -> None:
    mixed = [*measured([0.01]), *measured([0.01], cell("b"), hardware_class="another")]
    with pytest.raises(UnfitError, match=r"mixes hardware_class .* and another"):
        both(tmp_path, measured(STEADY), mixed)


def test_several_runs_are_one_side(tmp_path: Path) -> None:
    base = [*twin(0.01), *measured(STEADY[:4], run_id="first"), *measured(STEADY[4:], run_id="second")]
    answer = both(tmp_path, base, measured(AGAIN))
    assert answer.base.run_ids[-2:] == ("first", "second")
    assert answer.cells[-1].pairs == 8


def test_latencies_that_are_no_numbers_are_left_out_and_none_left_is_invalid(tmp_path: Path) -> None:
    some = measured([*AGAIN, float("nan"), float("inf"), -1.0, 0.0])
    answer = both(tmp_path, measured(STEADY), some)
    assert (answer.cells[0].head.processes, answer.cells[0].verdict) == (8, "same")
    none = both(tmp_path, measured(STEADY), measured([float("nan")] * 8))
    assert codes(none) == {"resnet50": "invalid_rows"}
    assert "the head has no time" in none.cells[0].why.sentence
    assert none.exit_code() == 3, "nothing could be judged"


def test_invalid_rows_are_left_out_and_nothing_but_them_is_invalid(tmp_path: Path) -> None:
    throttled: dict[str, Any] = {"verdict": "invalid", "reasons": ("throttled",)}
    mostly = [*measured(AGAIN), make_record(cell_id=CELL, round=8, latency_median_s=0.03, canary_s=None, **throttled)]
    answer = both(tmp_path, measured(STEADY), mostly)
    assert (answer.cells[0].pairs, answer.cells[0].verdict) == (8, "same")
    only = both(tmp_path, measured(STEADY), measured(AGAIN, **throttled))
    assert verdicts(only) == {"resnet50": "invalid"}
    assert "throttled" in only.cells[0].why.sentence
    assert "cool the device" in only.cells[0].why.sentence


def test_clocks_that_differ_leave_it_undecided(tmp_path: Path) -> None:
    base, head = (measured(time, sm_clock_mhz=clock) for time, clock in ((STEADY, 1980.0), (SLOWER, 1900.0)))
    answer = both(tmp_path, [*twin(0.01), *base], [*twin(0.01), *head])
    assert codes(answer)["resnet50"] == "clocks_differ"
    assert "-4.0 % off" in answer.cells[-1].why.sentence


def test_on_the_cpu_one_canary_takes_a_slow_day_out_of_both_sides(tmp_path: Path) -> None:
    def day(speed: float, seed: int) -> list[Record]:
        steps = zip(times(0.010, 8, 0.003, seed), times(1.0, 8, 0.02, seed + 9), strict=True)
        return [
            make_record(cell_id=CELL, round=number, latency_median_s=time * luck * speed, canary_s=0.001 * luck * speed)
            for number, (time, luck) in enumerate(steps)
        ]

    answer = both(tmp_path, day(1.0, 1), day(1.2, 2))
    assert answer.cells[0].ratio == pytest.approx(1.0, abs=0.004)
    assert verdicts(answer) == {"resnet50": "same"}
    assert any("20.0 % more time in the head; all times are divided by it" in note for note in answer.notes)
    # Another torch runs another canary: then its time says nothing about the machine.
    newer = [msgspec.structs.replace(row, torch_version="2.16.0") for row in day(1.2, 2)]
    other = both(tmp_path, day(1.0, 1), newer, allow=["torch_version"])
    assert other.cells[0].ratio == pytest.approx(1.2, abs=0.004)
    assert any("may be the machine or torch" in note for note in other.notes)


def beside_canaries(seconds: list[float], wild: int, speed: float) -> list[Record]:
    """One process a time; the machine ran `speed` times slower beside the first `wild` of them."""
    speeds = [speed if number < wild else 1.0 for number in range(len(seconds))]
    return [
        msgspec.structs.replace(row, canary_s=0.001 * speed)
        for row, speed in zip(measured(seconds), speeds, strict=True)
    ]


@pytest.mark.parametrize(("speed", "why"), [(1.5, "(`drift`)"), (20.0, "as invalid")])
def test_a_process_beside_a_wild_canary_is_left_out(tmp_path: Path, speed: float, why: str) -> None:
    answer = both(tmp_path, beside_canaries(STEADY, 1, speed), beside_canaries(AGAIN, 2, speed))
    assert (answer.cells[0].verdict, answer.cells[0].base.processes, answer.cells[0].head.processes) == ("same", 7, 6)
    assert any(why in note and "1 of the base, 2 of the head" in note for note in answer.notes)


def test_drifting_processes_stay_where_too_few_would_be_left(tmp_path: Path) -> None:
    few = both(tmp_path, beside_canaries(STEADY[:4], 0, 1.5), beside_canaries(AGAIN[:3], 1, 1.5))
    assert few.cells[0].head.processes == 3, "two would be left, so all stay"


def test_a_missing_canary_leaves_the_cell_as_it_was_measured_on_both_sides(tmp_path: Path) -> None:
    base, head = measured(STEADY, canary_s=0.001), measured(AGAIN, canary_s=0.002)
    head[0] = msgspec.structs.replace(head[0], canary_s=None)
    assert both(tmp_path, base, head).cells[0].ratio == pytest.approx(1.0, abs=0.004)


def test_throughput_is_compared_where_no_latency_was_asked_for(tmp_path: Path) -> None:
    def rates(seconds: list[float]) -> list[Record]:
        return [
            msgspec.structs.replace(row, latency_median_s=None, throughput_img_s=1 / row.latency_median_s)
            for row in measured(seconds)
        ]

    answer = both(tmp_path, [*twin(0.01), *rates(STEADY)], [*twin(0.01), *rates(SLOWER)])
    cell_ = answer.cells[-1]
    assert (cell_.metric, cell_.verdict) == ("throughput", "slower")
    assert cell_.ratio == pytest.approx(1.05, rel=2e-3)


def test_cells_without_a_time_are_counted_and_not_judged(tmp_path: Path) -> None:
    nothing = {"latency_median_s": None, "throughput_img_s": None}
    rows = [make_record(cell_id=CELL, **nothing)]
    answer = both(tmp_path, rows, rows)
    assert answer.cells == ()
    assert "Common cells without a time on either side: 1" in answer.notes[-1]
    assert answer.exit_code(strict=True) == 0


def test_what_all_cells_share_is_said(tmp_path: Path) -> None:
    names = [f"net{number}" for number in range(6)]
    base = [row for name in names for row in measured(STEADY, cell(name))]
    head = [row for name in names for row in measured(times(0.0102, 8, 0.003, seed=7), cell(name))]
    # Sessions that lie 5 % apart: no cell is called slower for what all of them share.
    answer = both(tmp_path, base, head, floors=[Floor(spread=0.05, origin="gate --aa of 2026-03-01")])
    assert "Over all 6 cells together: +2.0 % time in the head, not shown to exceed 3.0 %." in answer.notes
    assert answer.exit_code() == 0


def test_what_none_of_the_cells_shows_alone_all_of_them_may(tmp_path: Path) -> None:
    """+10 % on every one of six cells, of which three processes each show none: no chance does that."""
    names = [f"net{number}" for number in range(6)]
    base = [row for n, name in enumerate(names) for row in measured(times(0.010, 3, 0.04, seed=n), cell(name))]
    head = [row for n, name in enumerate(names) for row in measured(times(0.011, 3, 0.04, seed=9 + n), cell(name))]
    answer = both(tmp_path, base, head)
    assert set(verdicts(answer).values()) == {"undecided"}
    assert answer.whole is not None
    assert (answer.whole.verdict, answer.whole.cells, answer.exit_code()) == ("slower", 6, 1)
    assert answer.whole.ratio == pytest.approx(1.1)
    line = "Regressed: all 6 cells together (+10.0 % time): 6 undecided of 6 timed cells."
    assert render_comparison(answer, "text").endswith(f"{line}\n")
    assert "::error title=archbench::Over all 6 cells together: +10.0 %25" in render_comparison(answer, "annotations")
    assert json.loads(render_comparison(answer, "json"))["whole"]["verdict"] == "slower"
    back = both(tmp_path, head, base)
    assert back.whole is not None
    assert (back.whole.verdict, back.exit_code()) == ("faster", 0)
    known = both(tmp_path, base, head, floors=[Floor(spread=0.3, origin="gate --aa")])
    assert known.whole is not None
    assert known.whole.verdict == "undecided", "sessions here differ by 30 %"
    assert both(tmp_path, base[:12], head[:12]).whole is None, "four cells are too few"


def test_differences_of_the_machines_are_noted(tmp_path: Path) -> None:
    def side(seconds: list[float], **environment: Any) -> Rows:
        return msgspec.structs.replace(
            rows_of(tmp_path, measured(seconds)), environment=make_environment(**environment)
        )

    answer = compare(
        side(STEADY, kernel="6.1", libraries={"numpy": "2.4"}, settings={}),
        side(AGAIN, kernel="6.2", libraries={"numpy": "2.5"}, settings={"OMP_NUM_THREADS": "4"}),
    )
    (note,) = [note for note in answer.notes if note.startswith("Besides the code")]
    for part in ("kernel 6.1 → 6.2", "numpy 2.4 → 2.5", "OMP_NUM_THREADS none → 4"):
        assert part in note


def test_swapping_the_sides_turns_every_verdict_round(tmp_path: Path) -> None:
    base = [*twin(0.01), *measured(STEADY, cell("a")), *measured(SLOWER, cell("b"))]
    head = [*twin(0.01), *measured(SLOWER, cell("a")), *measured(AGAIN, cell("b"))]
    there, back = both(tmp_path, base, head), both(tmp_path, head, base)
    turned = {"slower": "faster", "faster": "slower", "same": "same", "undecided": "undecided"}
    assert verdicts(back) == {name: turned[verdict] for name, verdict in verdicts(there).items()}
    for one, other in zip(there.cells, back.cells, strict=True):
        assert one.ratio == pytest.approx(1 / other.ratio)
