"""A comparison as JUnit XML: a cell is a test case. Slower ones and failing findings fail, undecided are skipped."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from archbench.model.comparison import CellComparison, Comparison, Finding
from archbench.rendering.comparison.document import Document
from archbench.rendering.comparison.words import headline, side_line

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, even escaped: an error message may carry a terminal's control codes."""


def junit(comparison: Comparison) -> tuple[Document, ...]:
    """One suite of one test case a cell, with elements and attributes of the schema that Jenkins' xUnit plugin has."""
    about: dict[str, list[Finding]] = defaultdict(list)
    for finding in comparison.findings:
        about[finding.cell_id].append(finding)
    timed = {cell.cell_id: cell for cell in comparison.cells}
    suite = ET.Element("testsuite", name=_clean(f"archbench {comparison.head.suite or comparison.kind}"))
    _properties(suite, comparison)
    for cell_id in (*timed, *(cell_id for cell_id in about if cell_id not in timed)):
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
    return (Document(text='<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"),)


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


def _case(suite: ET.Element, cell_id: str, cell: CellComparison | None, findings: Sequence[Finding]) -> None:
    network, _, toggles = cell_id.rpartition("@")
    case = ET.SubElement(suite, "testcase", classname=_clean(network or cell_id), name=_clean(toggles or cell_id))
    if cell and cell.head.latency_s is not None:
        case.set("time", f"{cell.head.latency_s:.9f}")
    failing = [finding.what for finding in findings if finding.fails]
    if cell and cell.verdict == "slower":
        failing.insert(0, f"slower: {cell.why.sentence}")
    if failing:
        failure = ET.SubElement(case, "failure", type="regression", message=_clean("; ".join(failing)))
        failure.text = _clean("\n".join(failing))
    elif cell and cell.verdict in ("undecided", "invalid"):
        ET.SubElement(case, "skipped", message=_clean(f"{cell.verdict}: {cell.why.sentence}"))
    elif both := [finding.what for finding in findings if finding.failed_on_both]:
        ET.SubElement(case, "skipped", message=_clean(both[0]))
    told = [finding.what for finding in findings if not finding.fails]
    if cell and cell.verdict in ("same", "faster"):
        told.insert(0, f"{cell.verdict}: {cell.why.sentence}")
    if told:
        ET.SubElement(case, "system-out").text = _clean("\n".join(told))


def _clean(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
