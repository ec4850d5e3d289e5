"""What is counted is held to the letter, memory to its allowance, and a cell that goes or fails is not overlooked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builders import make_record
from compare_sides import CELL, cell, rows_of

from archbench.compare import compare
from archbench.model.comparison import Comparison

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
        ("macs", 5000, None, False),
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


def test_failing_on_both_sides_is_no_news(tmp_path: Path) -> None:
    assert counted(tmp_path, {"status": "oom"}, {"status": "oom"}).findings == ()


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
