"""A comparison for continuous integration: annotations on a pull request, and JUnit XML.

An annotation is a line of a step's output that GitHub shows. In JUnit a cell is a test case: slower ones and failing
findings fail, undecided ones are skipped.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from xml.etree import ElementTree as ET

from archbench.model.cell import short_id
from archbench.model.comparison import CellComparison, Comparison, CountedDifference, SuiteLines
from archbench.rendering.comparison.report import (
    because,
    by_network,
    conditions_of,
    headline,
    in_order,
    network_of,
    side_line,
)

LIMIT = 10
"""GitHub shows so many errors of a step, and so many warnings, and drops the rest in silence."""
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, even escaped: an error message may carry a terminal's control codes."""


def workflow_commands(comparison: Comparison) -> str:
    """An error for each network that fails, a warning for each that is undecided, the verdict as a notice.

    They stand at the network's line of the suite, where that is known.
    """
    errors: dict[str, list[str]] = defaultdict(list)
    doubts: dict[str, list[str]] = defaultdict(list)
    for cell in in_order(comparison):
        told = errors if cell.fails else doubts if cell.verdict in ("undecided", "invalid") else None
        if told is not None:
            told[network_of(cell.cell_id)].append(f"{conditions_of(cell.cell_id)}: {cell.verdict}, {cell.why.sentence}")
    for mark, network, cells, what in by_network(comparison):
        if mark == "fails":
            errors[network].append(f"{cells}: {what}")
    for finding in comparison.failed_on_both:
        doubts[network_of(finding.cell_id)].append(f"{conditions_of(finding.cell_id)}: {finding.what}")
    if comparison.whole is not None and comparison.whole.verdict == "slower":
        errors["archbench"].append(comparison.whole.sentence)
    lines = [
        *_lines("error", errors, comparison.suite_file),
        *_lines("warning", doubts, comparison.suite_file),
        _line("notice", "archbench", headline(comparison)),
    ]
    return "".join(f"{line}\n" for line in lines)


def _lines(level: str, told: Mapping[str, Sequence[str]], suite: SuiteLines | None) -> Iterator[str]:
    names = list(told)
    shown = names if len(names) <= LIMIT else names[: LIMIT - 1]
    for name in shown:
        yield _line(level, name, "\n".join(told[name]), suite)
    if len(names) > len(shown):
        yield _line(level, "archbench", f"{len(names) - len(shown):,} more networks; the step summary has all", suite)


def _line(level: str, title: str, message: str, suite: SuiteLines | None = None) -> str:
    line = suite.lines.get(title) if suite else None
    place = f"file={_escaped(suite.path, in_property=True)},line={line or 1}," if suite else ""
    return f"::{level} {place}title={_escaped(title, in_property=True)}::{_escaped(message)}"


def _escaped(text: str, *, in_property: bool = False) -> str:
    """As the runner unescapes workflow commands (its toolkit's `command.ts`); the percent sign must go first."""
    for character, code in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A")):
        text = text.replace(character, code)
    if in_property:
        text = text.replace(":", "%3A").replace(",", "%2C")
    return text


def junit(comparison: Comparison) -> str:
    """One suite of one test case a cell, those only counted too; the schema is that of Jenkins' xUnit plugin."""
    about: dict[str, list[CountedDifference]] = defaultdict(list)
    for finding in comparison.findings:
        about[finding.cell_id].append(finding)
    timed = {cell.cell_id: cell for cell in comparison.cells}
    suite = ET.Element("testsuite", name=_clean(f"archbench {comparison.head.suite or comparison.kind}"))
    _properties(suite, comparison)
    for cell_id in dict.fromkeys((*timed, *about, *(comparison.compared or ()))):
        _case(suite, cell_id, timed.get(cell_id), about.get(cell_id, ()))
    ET.SubElement(suite, "system-out").text = _clean("\n".join((headline(comparison), *comparison.notes)))
    for element in (suite, root := ET.Element("testsuites", name="archbench")):
        element.set("tests", str(len(suite.findall("testcase"))))
        element.set("failures", str(len(suite.findall("testcase/failure"))))
        element.set("errors", "0")
    suite.set("skipped", str(len(suite.findall("testcase/skipped"))))
    suite.set("time", f"{comparison.duration_s or 0:.3f}")
    if comparison.head.started_at:
        suite.set("timestamp", comparison.head.started_at[:19])
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _properties(suite: ET.Element, comparison: Comparison) -> None:
    properties = ET.SubElement(suite, "properties")
    floor = comparison.floor
    for name, value in (
        ("kind", comparison.kind),
        ("base", side_line(comparison.base)),
        ("head", side_line(comparison.head)),
        ("hardware_class", comparison.head.hardware_class),
        ("noise_floor", f"{floor.spread:.4f} ({floor.origin})" if floor else "unknown"),
    ):
        ET.SubElement(properties, "property", name=name, value=_clean(value))


def _case(suite: ET.Element, cell_id: str, cell: CellComparison | None, findings: Sequence[CountedDifference]) -> None:
    network, _, toggles = short_id(cell_id).rpartition("@")
    case = ET.SubElement(suite, "testcase", classname=_clean(network or cell_id), name=_clean(toggles or cell_id))
    if cell and cell.head.latency_s is not None:
        case.set("time", f"{cell.head.latency_s:.9f}")
    failing = [finding.what for finding in findings if finding.fails]
    if cell and cell.fails:
        failing.insert(0, f"slower: {cell.why.sentence}")
    if failing:
        failure = ET.SubElement(case, "failure", type="regression", message=_clean("; ".join(failing)))
        failure.text = _clean("\n".join(failing))
    elif cell and cell.verdict in ("undecided", "invalid"):
        ET.SubElement(case, "skipped", message=_clean(f"{cell.verdict}: {cell.why.sentence}"))
    elif both := [finding.what for finding in findings if finding.failed_on_both]:
        ET.SubElement(case, "skipped", message=_clean(both[0]))
    told = [finding.what for finding in findings if not finding.fails]
    if cell and (cell.verdict in ("same", "faster") or cell.accepted is not None):
        told.insert(0, f"{cell.verdict}: {because(cell)}")
    if told:
        ET.SubElement(case, "system-out").text = _clean("\n".join(told))


def _clean(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
