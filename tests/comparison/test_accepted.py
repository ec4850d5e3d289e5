"""Changes that were meant: what an entry covers, what it no longer covers, and mistakes in the file."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from compare_sides import cell, compared, comparison, finding
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from archbench.comparison.findings import (
    DAYS,
    Accepted,
    accepted_file,
    apply_accepted,
    as_yaml,
    entries_for,
    read_accepted,
)
from archbench.model.comparison import Comparison, CountedDifference
from archbench.model.errors import UsageError
from archbench.model.units import printable
from archbench.rendering.comparison_formats import render_comparison

TODAY = date(2026, 3, 1)


def counted(name: str, column: str, head: float | str | None, batch_size: int = 1) -> CountedDifference:
    return CountedDifference(
        cell_id=cell(name, batch_size), column=column, base=100.0, head=head, what="grew", fails=True
    )


def written(*entries: Accepted) -> str:
    return f"accepted:\n{as_yaml(entries)}"


def entry(**fields: object) -> Accepted:
    given = {"cell": "b", "change": "params", "to": 2, "reason": "wider", "until": "2026-03-01", **fields}
    return Accepted(**given)  # type: ignore[arg-type]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return accepted_file(tmp_path / "speed.yaml")


def judged(answer: Comparison, file: Path, text: str, before: str = "") -> Comparison:
    file.write_text(text)
    return apply_accepted(answer, file, before, None, TODAY)


SLOW = comparison(compared("b", "slower", 1.05), compared("a", "same"), findings=[finding("b", fails=True)])


def test_what_fails_is_written_and_passes_from_then_on(file: Path) -> None:
    assert file.name == "speed.accepted.yaml"
    passed = apply_accepted(SLOW, file, "", "a wider: stem", TODAY)
    assert (SLOW.exit_code(), passed.exit_code()) == (1, 0)
    assert [one.accepted for one in passed.accepted] == ["a wider: stem"] * 2
    assert [one.verdict for one in passed.cells] == ["slower", "same"], "it is slower all the same"
    (time, params) = read_accepted(file.read_text(), str(file))
    assert (time.cell, time.change, time.to) == ("b", "time", 1.05)
    assert (params.cell, params.change, params.to) == ("b", "params", 2)
    assert (date.fromisoformat(time.until) - TODAY).days == DAYS
    again = apply_accepted(SLOW, file, "", None, TODAY)
    assert again == passed
    assert apply_accepted(SLOW, file, "", "twice", TODAY) == passed, "nothing is left to accept"


def test_it_is_told_in_every_format(file: Path) -> None:
    passed = apply_accepted(SLOW, file, "", "a wider stem", TODAY)
    text = " ".join(render_comparison(passed, "text").split())
    assert "slower (accepted) b@batch_size=1" in text
    assert "accepted: a wider stem" in text
    assert "No regression but what was accepted: 1 slower, 1 same of 2 timed cells; 2 changes accepted." in text
    assert "::error" not in render_comparison(passed, "annotations")
    root = ET.fromstring(render_comparison(passed, "junit"))
    assert not root.findall(".//failure")
    assert "accepted: a wider stem" in (root.findtext(".//testcase[@classname='b']/system-out") or "")


@pytest.mark.parametrize(
    ("column", "head", "to", "covered"),
    [
        ("params", 2.0, 2, True),
        ("params", 1.0, 2, False),  # another network than was accepted, be it smaller
        ("peak_allocated_bytes", 190.0, 200, True),
        ("peak_allocated_bytes", 201.0, 200, False),
        ("status", "oom", "oom", True),
        ("status", "error", "oom", False),
        ("cell_id", None, "gone", True),
        ("macs", 2.0, 2, False),  # the entry is of params
    ],
)
def test_an_entry_covers_its_change_and_no_more(file: Path, column, head, to, covered) -> None:
    answer = comparison(findings=[counted("b", column, head)])
    change = "params" if column == "macs" else column
    found = judged(answer, file, written(entry(change=change, to=to)))
    assert found.exit_code() == (0 if covered else 1)


@pytest.mark.parametrize(("low", "code"), [(1.04, 0), (1.06, 1)])
def test_a_time_that_is_shown_to_go_further_fails(file: Path, low: float, code: int) -> None:
    answer = comparison(compared("b", "slower", 1.07, ci_low=low))
    assert judged(answer, file, written(entry(change="time", to=1.05))).exit_code() == code


@pytest.mark.parametrize(
    ("where", "covered"),
    [("b", True), ("b@batch_size=1", True), (cell("b"), True), ("b@batch_size=8", False), ("c", False)],
)
def test_an_entry_is_of_a_network_or_of_one_cell(file: Path, where: str, covered: bool) -> None:
    answer = comparison(findings=[finding("b", fails=True)])
    assert judged(answer, file, written(entry(cell=where))).exit_code() == (0 if covered else 1)


def test_what_is_late_spent_or_idle_counts_no_longer_and_is_named(file: Path) -> None:
    answer = comparison(findings=[finding("b", fails=True)])
    late = judged(answer, file, written(entry(until="2026-02-28")))
    assert late.exit_code() == 1
    assert late.notes[-1] == f"{file}: the entry of b (params) is out of date: delete it."
    spent = judged(answer, file, written(entry()), before=written(entry()))
    assert spent.exit_code() == 1
    assert "is in the base already" in spent.notes[-1]
    assert judged(answer, file, written(entry()), before="gibberish: [").exit_code() == 0
    idle = judged(comparison(compared("a", "same")), file, written(entry()))
    assert "covers nothing that differs" in idle.notes[-1]


def test_entries_are_few_where_a_networks_cells_came_to_the_same() -> None:
    sizes = (1, 8, 32)
    alike = [counted("b", "params", 2.0, size) for size in sizes]
    memory = [counted("b", "peak_allocated_bytes", 100.0 + size, size) for size in sizes]
    macs = [counted("c", "macs", float(size), size) for size in sizes]
    found = entries_for(comparison(findings=[*alike, *memory, *macs]), "wider", TODAY)
    assert [(one.cell, one.change, one.to) for one in found] == [
        ("b", "params", 2),
        ("b", "peak_allocated_bytes", 132),
        *((f"c@batch_size={size}", "macs", size) for size in sizes),
    ]
    passed = comparison(findings=[*alike, *memory, *macs])
    assert all(any(one.covers(finding) for one in found) for finding in passed.findings)


@given(st.text().map(printable).filter(bool), st.text())
@settings(max_examples=80, deadline=None)
def test_any_name_and_reason_is_read_back(name: str, reason: str) -> None:
    answer = comparison(findings=[finding(name, fails=True)])
    (made,) = entries_for(answer, reason, TODAY)
    assert read_accepted(written(made), "a.yaml") == (made,)
    assert made.covers(answer.findings[0])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("accepted: {cell: b}", "a.yaml:1:"),
        ("accepted:\n  - {cell: b, change: params, to: 2, reason: x}", "a.yaml:2:5: .*until"),
        (
            "accepted:\n  - {cell: b, chnage: params, to: 2, reason: x, until: '2026-03-01'}",
            "a.yaml:2.*did you mean change",
        ),
        ("accepted:\n  - {cell: b, change: params, to: 2, reason: x, until: soon}", "a.yaml:2.*'soon' is no day"),
        ("accepted: [", "a.yaml:1:12: not YAML"),
    ],
)
def test_mistakes_have_their_line(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_accepted(text, "a.yaml")
    assert read_accepted("  \n", "a.yaml") == ()


def test_a_further_change_is_written_below_what_is_there(file: Path) -> None:
    apply_accepted(SLOW, file, "", "first", TODAY)
    file.write_text(f"# ours\n{file.read_text()}")
    more = structs.replace(SLOW, findings=(*SLOW.findings, finding("z", fails=True)))
    assert apply_accepted(more, file, "", "second", TODAY).exit_code() == 0
    assert file.read_text().startswith("# ours\n# Changes that were meant")
    assert [one.reason for one in read_accepted(file.read_text(), "")] == ["first", "first", "second"]
