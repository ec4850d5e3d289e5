"""Every format from the same comparison, read back by whatever reads such files."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest
from compare_sides import cell, compared, comparison, finding
from hypothesis import given, settings
from hypothesis import strategies as st

from archbench.model.cell import short_id
from archbench.model.comparison import CellComparison, Comparison, CountedDifference, Floor, Why
from archbench.model.errors import UsageError
from archbench.rendering.comparison_formats import FORMATS, LIMIT_BYTES, render_comparison, write_comparison
from archbench.rendering.comparison_report import ALL_SHOWN, headline

SOME = comparison(
    compared("a", "same", 1.001),
    compared("b", "slower", 1.05),
    compared("c", "faster", 0.9),
    compared("d", "undecided", 1.02, noisy=True),
    compared("e", "invalid", None, detectable=None),
    findings=[finding("b", fails=True), finding("z", fails=True), finding("a", fails=False, what="works now")],
    floor=Floor(spread=0.012, origin="the twin"),
)


def test_exit_codes() -> None:
    same, slower, undecided, invalid = (compared("x", word) for word in ("same", "slower", "undecided", "invalid"))
    table = [
        ([], [], 0, 0),
        ([same, compared("y", "faster")], [], 0, 0),
        ([same, undecided], [], 0, 3),
        ([same, invalid], [], 0, 3),
        ([invalid, invalid], [], 3, 3),
        ([slower, invalid], [], 1, 1),
        ([same], [finding("x", fails=True)], 1, 1),
        ([same], [finding("x", fails=False)], 0, 0),
        ([], [finding("x", fails=True)], 1, 1),
    ]
    for cells, findings, usual, strict in table:
        answer = comparison(*cells, findings=findings)
        assert (answer.exit_code(), answer.exit_code(strict=True)) == (usual, strict)


def test_cells_that_failed_on_both_sides_are_open_and_not_passed() -> None:
    broken = CountedDifference(
        cell_id=cell("x"), column="status", base="oom", head="oom", what="ended with oom", fails=False
    )
    answer = comparison(compared("a", "same"), findings=[broken], compared=(cell("a"),))
    assert (answer.exit_code(), answer.exit_code(strict=True)) == (0, 3)
    assert headline(answer) == "No regression: 1 same of 1 timed cells; 1 cell failed on both sides."
    assert "::warning title=x::batch_size=1: ended with oom" in render_comparison(answer, "annotations")
    (skipped,) = junit_of(answer).findall(".//testcase[@classname='x']/skipped")
    assert skipped.get("message") == "ended with oom"
    assert json.loads(render_comparison(answer, "json"))["comparable"] == 1
    # In turns its verdict says so already.
    judged = comparison(compared("a", "same"), compared("x", "invalid"), findings=[broken])
    assert judged.failed_on_both == ()
    assert render_comparison(judged, "annotations").count("::warning") == 1


def test_headlines() -> None:
    assert headline(SOME) == (
        "Regressed: b (time +5.0 %, params +100.0 %), z (params +100.0 %): 1 slower, 1 faster, 1 undecided, 1 invalid, "
        "1 same of 5 timed cells; 2 failing findings."
    )
    assert headline(comparison(compared("a", "same"))) == "No regression: 1 same of 1 timed cells."
    assert headline(comparison(compared("a", "undecided"), compared("b", "invalid"))) == (
        "Nothing decided, which is not the same as no regression: 1 undecided, 1 invalid of 2 timed cells."
    )
    assert headline(comparison(compared("a", "undecided"), compared("b", "faster"))) == (
        "No regression in what was decided: 1 faster, 1 undecided of 2 timed cells."
    )
    assert headline(comparison(compared("a", "invalid"))) == "Nothing could be judged: 1 invalid of 1 timed cells."
    assert headline(comparison(findings=[finding("a", fails=True)])) == (
        "Regressed: a (params +100.0 %): no timed cell; 1 failing finding."
    )
    assert (
        headline(comparison(compared=tuple(cell(f"n{n}") for n in range(84))))
        == "No regression: what is counted of 84 cells."
    )


def test_short_names_drop_what_is_usual_and_keep_the_network_whole() -> None:
    assert short_id(cell("resnet50", 8)) == "resnet50@batch_size=8"
    assert short_id(cell("n[a=1,b=2]", precision="amp-bf16")) == "n[a=1,b=2]@batch_size=1,precision=amp-bf16"
    assert short_id("twin") == "twin"


def test_text_lists_the_worst_first_with_its_reason() -> None:
    text = render_comparison(SOME, "text")
    order = [line.split()[0] for line in text.splitlines() if "@batch_size=1  " in line]
    assert order == ["slower", "faster", "undecided", "invalid", "same"]
    assert "undecided (noisy)" in text
    assert re.search(r"^  slower +b@batch_size=1: b is slower", text, re.MULTILINE)
    assert re.search(r"^  FAILS +z, batch_size=1: params 1 → 2 \(must be equal\)", text, re.MULTILINE)
    assert "+5.0 %" in text
    assert "took turns on one machine" in text
    assert text.endswith(f"{headline(SOME)}\n")


def test_text_counts_the_same_where_there_are_many() -> None:
    many = [compared(f"n{number}", "same") for number in range(ALL_SHOWN)]
    text = render_comparison(comparison(*many, compared("slow", "slower", 1.1)), "text")
    assert f"... and {ALL_SHOWN} cells that are the same" in text
    assert "n7@" not in text
    assert "slow@" in text


def test_no_control_character_reaches_the_terminal() -> None:
    text = render_comparison(comparison(findings=[finding("a", fails=True, what="\x1b[31mred\x07")]), "text")
    assert "\x1b" not in text
    assert "\x07" not in text


def test_markdown_has_the_verdict_as_its_title() -> None:
    text = render_comparison(SOME, "md")
    assert text.startswith("# Regressed: b (time +5.0 %, params +100.0 %), z (params +100.0 %): 1 slower")
    assert "| slower | b@batch_size=1 |" in text
    assert "<details><summary>The same: 1</summary>" in text
    assert "Mind the gap." in text


def test_a_huge_markdown_is_cut_with_a_note() -> None:
    long = "x" * 300
    many = [compared(f"{long}{number}", "undecided", 1.1, why=Why("not_shown", long)) for number in range(3000)]
    text = render_comparison(comparison(*many), "md")
    assert 100_000 < len(text.encode()) <= LIMIT_BYTES < 2**20
    assert "more are left out here for their length; `--format json` has all." in text


def test_json_holds_everything() -> None:
    data = json.loads(render_comparison(SOME, "json"))
    assert (data["comparison_version"], data["kind"], data["regressed"]) == (1, "turns", True)
    assert (data["exit_code"], data["exit_code_strict"], data["verdict"]) == (1, 1, "regressed")
    assert data["headline"] == headline(SOME)
    assert data["counts"] == {"slower": 1, "faster": 1, "undecided": 1, "invalid": 1, "same": 1}
    assert msgspec.convert(data["cells"], tuple[CellComparison, ...]) == SOME.cells
    assert [one["fails"] for one in data["findings"]] == [True, True, False]
    endless = comparison(compared("a", "undecided", 1.5, ci_high=float("inf")))
    assert json.loads(render_comparison(endless, "json"))["cells"][0]["ci_high"] is None


# Elements, their attributes and their children as the schema of Jenkins' xUnit plugin has them.
JUNIT = {
    "testsuites": ({"name", "time", "tests", "failures", "errors", "disabled"}, {"testsuite"}),
    "testsuite": (
        {
            "name",
            "tests",
            "failures",
            "errors",
            "time",
            "disabled",
            "skipped",
            "timestamp",
            "hostname",
            "id",
            "package",
        },
        {"properties", "testcase", "system-out", "system-err"},
    ),
    "properties": (set(), {"property"}),
    "property": ({"name", "value"}, set()),
    "testcase": ({"name", "assertions", "time", "classname", "status"}, {"skipped", "error", "failure", "system-out"}),
    "skipped": ({"message", "type"}, set()),
    "failure": ({"message", "type"}, set()),
    "system-out": (set(), set()),
}


def junit_of(answer: Comparison) -> ET.Element:
    root = ET.fromstring(render_comparison(answer, "junit"))
    for element in root.iter():
        attributes, children = JUNIT[element.tag]
        assert set(element.attrib) <= attributes
        assert {child.tag for child in element} <= children
    return root


def test_junit_fails_skips_and_passes_the_right_cases() -> None:
    root = junit_of(SOME)
    outcome = {case.get("classname"): [child.tag for child in case] for case in root.iter("testcase")}
    assert outcome == {
        "a": ["system-out"],
        "b": ["failure"],
        "c": ["system-out"],
        "d": ["skipped"],
        "e": ["skipped"],
        "z": ["failure"],
    }
    suite = root.find("testsuite")
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped", "time")} == {
        "tests": "6",
        "failures": "2",
        "errors": "0",
        "skipped": "2",
        "time": "90.000",
    }
    (failure,) = root.findall(".//testcase[@classname='b']/failure")
    assert failure.get("message") == "slower: b is slower; params 1 → 2 (must be equal)"
    assert float(root.find(".//testcase[@classname='b']").get("time", "")) == pytest.approx(0.0105)


def test_cells_of_which_only_counts_were_compared_are_cases_with_short_names() -> None:
    ids = (cell("a"), cell("a", 8, precision="amp-bf16"), cell("b"))
    root = junit_of(comparison(findings=[finding("b", fails=True)], compared=ids))
    outcome = {
        (case.get("classname"), case.get("name")): [child.tag for child in case] for case in root.iter("testcase")
    }
    assert outcome == {
        ("a", "batch_size=1"): [],
        ("a", "batch_size=8,precision=amp-bf16"): [],
        ("b", "batch_size=1"): ["failure"],
    }


def test_junit_survives_what_xml_cannot_hold() -> None:
    root = junit_of(comparison(findings=[finding("a\x00<b>", fails=True, what="\x1b[1m & <worse> \ud800")]))
    assert "& <worse>" in root.find(".//failure").get("message")


@given(text=st.text(min_size=1), what=st.text())
@settings(max_examples=60, deadline=None)
def test_no_text_breaks_a_format(text: str, what: str) -> None:
    answer = comparison(compared("a", "slower", 1.1, why=Why("shown", what)), findings=[finding(text, fails=True)])
    case = junit_of(answer).findall(".//testcase")[-1]
    assert case.find("failure") is not None
    assert json.loads(render_comparison(answer, "json"))["findings"][0]["cell_id"] == cell(text)
    assert all(line.isprintable() for line in render_comparison(answer, "text").split("\n"))


def test_github_action_benchmark_gets_two_files(tmp_path: Path) -> None:
    places = write_comparison(SOME, "github-action-benchmark", tmp_path / "out.json")
    assert [place.name for place in places] == ["out-smaller.json", "out-bigger.json"]
    smaller, bigger = (json.loads(place.read_text()) for place in places)
    for entry in (*smaller, *bigger):
        assert {"name", "unit", "value"} <= set(entry) <= {"name", "unit", "value", "range", "extra"}
    latency = next(entry for entry in smaller if entry["name"] == "b@batch_size=1 latency")
    assert (latency["unit"], latency["value"], latency["range"]) == ("ms", pytest.approx(10.5), "± 1.0 %")
    assert "slower" in latency["extra"]
    assert {entry["unit"] for entry in smaller} == {"ms", "MiB"}
    assert {entry["unit"] for entry in bigger} == {"img/s"}
    with pytest.raises(UsageError, match="makes two files: give --out PATH"):
        render_comparison(SOME, "github-action-benchmark")


def test_pytest_benchmark_compares_both_files(tmp_path: Path) -> None:
    base, head = write_comparison(SOME, "pytest-benchmark", tmp_path / "out.json")
    data = json.loads(head.read_text())
    stats = next(one for one in data["benchmarks"] if one["name"].startswith("b@"))["stats"]
    assert stats["median"] == pytest.approx(0.0105)
    assert stats["data"] == pytest.approx([0.010395, 0.010605])
    assert stats["stddev"] == pytest.approx(statistics.stdev(stats["data"]))
    pytest.importorskip("pytest_benchmark")
    done = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", "compare", str(base), str(head), "--columns=median"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "b@batch_size=1" in done.stdout


def test_its_statistics_are_those_of_pytest_benchmark() -> None:
    module = pytest.importorskip("pytest_benchmark.stats")
    from archbench.rendering.comparison_formats import _stats

    for times in ((0.01,), (0.01, 0.012), (0.01, 0.011, 0.0105, 0.02, 0.0103, 0.0104, 0.0102)):
        theirs = module.Stats()
        for time in times:
            theirs.update(time)
        ours = _stats(times)
        for field in ("min", "max", "mean", "stddev", "rounds", "median", "stddev_outliers", "ops", "total"):
            assert ours[field] == pytest.approx(getattr(theirs, field)), field
        assert set(ours) == {*theirs.fields, "data", "iterations"}


def test_every_format_takes_stored_and_turning_comparisons_and_empty_ones(tmp_path: Path) -> None:
    for answer in (SOME, msgspec.structs.replace(SOME, kind="stored"), comparison()):
        for name in FORMATS:
            for place in write_comparison(answer, name, tmp_path / "out.txt"):
                assert place.read_text().endswith("\n")


def test_an_unknown_format_names_the_near_one() -> None:
    with pytest.raises(UsageError, match=r"--format junitt: no such format.*did you mean junit"):
        render_comparison(SOME, "junitt")
