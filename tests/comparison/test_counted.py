"""What is counted is held to the letter, memory to its allowance, and a cell that goes or fails is not overlooked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builders import make_record
from compare_sides import CELL, cell, rows_of

from archbench.comparison import compare
from archbench.model.comparison import Comparison
from archbench.model.record import FAILED
from archbench.rendering.comparison_report import headline, method

MIB = 2**20


def counted(place: Path, base: dict[str, Any], head: dict[str, Any]) -> Comparison:
    sides = (rows_of(place, [make_record(cell_id=CELL, **given)]) for given in (base, head))
    return compare(*sides)


def test_the_same_rows_give_no_finding(tmp_path: Path) -> None:
    assert counted(tmp_path, {}, {}).findings == ()


@pytest.mark.parametrize(
    ("column", "before", "after", "fails"),
    [
        ("params", 1000, 1001, True),
        ("params", 1000, 999, True),
        ("macs", 5000, 5001, True),
        ("macs", None, 5001, False),
        ("macs", 5000, None, True),
        ("params", 1000, None, True),
        ("peak_allocated_bytes", 1000 * MIB, 1007 * MIB, False),
        ("peak_allocated_bytes", 1000 * MIB, 1007 * MIB + 1, True),
        ("peak_allocated_bytes", 1000 * MIB, 500 * MIB, False),
        ("peak_allocated_bytes", 1 * MIB, 3 * MIB, False),
        ("predicted_peak_bytes", 1000 * MIB, 1100 * MIB, True),
        ("graph_breaks", 2, 3, True),
        ("graph_breaks", 0, 1, True),
        ("graph_breaks", 3, 2, False),
        ("graph_breaks", None, 1, False),
    ],
)
def test_a_counted_figure(tmp_path: Path, column: str, before: int | None, after: int | None, fails: bool) -> None:
    answer = counted(tmp_path, {column: before}, {column: after})
    assert [(one.column, one.base, one.head) for one in answer.failures] == ([(column, before, after)] if fails else [])
    assert answer.exit_code() == int(fails)


def test_reserved_memory_counts_where_cuda_graphs_hold_it(tmp_path: Path) -> None:
    for launches, fails in ((3, True), (0, False), (None, False)):
        given = {"cuda_graph_launches": launches, "device": "cuda"}
        answer = counted(
            tmp_path, {**given, "peak_reserved_bytes": 900 * MIB}, {**given, "peak_reserved_bytes": 999 * MIB}
        )
        assert [one.column for one in answer.failures] == ["peak_reserved_bytes"] * fails


@pytest.mark.parametrize(
    ("before", "after", "fails"),
    [
        ("ok", "oom", True),
        ("ok", "crashed", True),
        ("ok", "unsupported", True),
        ("ok", "skipped", True),
        ("unsupported", "error", True),
        ("oom", "crashed", False),
        ("error", "ok", False),
    ],
)
def test_a_cell_that_ends_otherwise(tmp_path: Path, before: str, after: str, fails: bool) -> None:
    message = {"error_message": "it broke"} if after != "ok" else {}
    answer = counted(tmp_path, {"status": before}, {"status": after, **message})
    (finding,) = answer.findings
    assert (finding.column, finding.base, finding.head, finding.fails) == ("status", before, after, fails)
    assert ("it broke" in finding.what) == bool(message)
    assert answer.cells == ()


@pytest.mark.parametrize("column", ["peak_allocated_bytes", "predicted_peak_bytes", "graph_breaks"])
def test_another_figure_that_the_head_lacks_is_told_with_its_reason(tmp_path: Path, column: str) -> None:
    answer = counted(tmp_path, {column: 0}, {column: None, "reasons": (f"{column}:phase_failed",)})
    (finding,) = answer.findings
    assert (finding.column, finding.base, finding.head, finding.fails) == (column, 0, None, False)
    assert finding.what.startswith(f"{column} 0 → none: the pass that fills it failed")
    assert answer.exit_code() == 0


def test_what_the_suite_no_longer_asks_for_is_not_lost(tmp_path: Path) -> None:
    for column in ("macs", "peak_allocated_bytes"):
        head = {column: None, "reasons": ("latency_p99_s:too_few_samples", f"{column}:not_requested")}
        assert counted(tmp_path, {column: 5000}, head).findings == ()


def test_a_figure_that_a_failed_cell_lacks_is_not_told_besides(tmp_path: Path) -> None:
    answer = counted(tmp_path, {"params": 1000}, {"params": None, "status": "error"})
    assert [one.column for one in answer.findings] == ["status"]


def test_reserved_memory_is_judged_where_the_head_could_not_count_its_launches(tmp_path: Path) -> None:
    base = {"cuda_graph_launches": 3, "peak_reserved_bytes": 900 * MIB, "device": "cuda"}
    for peak, fails in ((999 * MIB, True), (None, False)):
        head = {**base, "cuda_graph_launches": None, "peak_reserved_bytes": peak}
        (finding,) = counted(tmp_path, base, head).findings
        assert (finding.column, finding.fails) == ("peak_reserved_bytes", fails)


@pytest.mark.parametrize("status", sorted(FAILED))
def test_failing_on_both_sides_is_told_among_cells_that_do_not(tmp_path: Path, status: str) -> None:
    failing = make_record(cell_id=cell("vgg16"), status=status, error_message="it broke")
    rows = [make_record(cell_id=CELL), failing]
    answer = compare(rows_of(tmp_path, rows), rows_of(tmp_path, rows))
    (finding,) = answer.findings
    assert finding.what == f"ended with {status} on both sides: it broke"
    assert (finding.fails, answer.failed_on_both, answer.blind) == (False, (finding,), False)
    assert (answer.exit_code(), answer.exit_code(strict=True)) == (0, 3)
    assert "1 cell failed on both sides" in headline(answer)


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [("error", "error", 3), ("oom", "crashed", 3), ("error", "ok", 3), ("ok", "error", 1)],
)
def test_where_every_common_cell_failed_nothing_could_be_compared(
    tmp_path: Path, before: str, after: str, code: int
) -> None:
    message = "No module named 'timm'"
    never = make_record(cell_id=cell("never"), status="unsupported", error_message="compiled training is off")
    base, head = (
        [never, *(make_record(cell_id=cell(name), status=status, error_message=message) for name in "ab")]
        for status in (before, after)
    )
    answer = compare(rows_of(tmp_path, base), rows_of(tmp_path, head))
    assert (answer.blind, answer.exit_code(), answer.exit_code(strict=True)) == (True, code, code)
    assert method(answer) == "No common cell ended ok on both sides, so nothing could be compared."
    if code == 3:
        line = "Nothing could be compared: no common cell ended ok on both sides, and 2 failed, such as a@batch_size=1"
        assert headline(answer).startswith(line)
        assert message in headline(answer)


@pytest.mark.parametrize("status", ["unsupported", "skipped"])
def test_what_is_not_run_on_either_side_is_no_failure(tmp_path: Path, status: str) -> None:
    answer = counted(tmp_path, {"status": status}, {"status": status})
    assert (answer.findings, answer.blind, answer.exit_code(strict=True)) == ((), False, 0)


def test_a_cell_that_is_gone_fails_and_a_new_one_does_not(tmp_path: Path) -> None:
    base, head = (
        rows_of(tmp_path, [make_record(cell_id=CELL), make_record(cell_id=cell(other))]) for other in ("old", "new")
    )
    found = {one.cell_id.partition("@")[0]: (one.base, one.head, one.fails) for one in compare(base, head).findings}
    assert found == {"old": ("ok", None, True), "new": (None, "ok", False)}


def test_a_process_that_failed_beside_others_is_told(tmp_path: Path) -> None:
    base = [make_record(cell_id=CELL, round=number) for number in range(3)]
    crash = make_record(cell_id=CELL, round=2, status="crashed", error_phase="latency", error_message="signal 11")
    (finding,) = compare(rows_of(tmp_path, base), rows_of(tmp_path, [*base[:2], crash])).findings
    assert (finding.fails, "signal 11" in finding.what) == (False, True)
