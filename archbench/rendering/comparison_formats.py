"""A comparison as the documents that people, continuous integration and two other benchmark tools read.

A further format is a function from `Comparison` to one text, or to several by the suffix of their files, and a line in
`FORMATS`. In JUnit a cell is a test case: slower ones and failing findings fail, undecided ones are skipped.
"""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from archbench.model.cell import short_id
from archbench.model.comparison import (
    CELL_VERDICTS,
    CellComparison,
    Comparison,
    CountedDifference,
    Figures,
    Side,
    SuiteLines,
)
from archbench.model.errors import UsageError, did_you_mean
from archbench.model.units import MIB, MS, indented_json, percent
from archbench.rendering.comparison_report import (
    as_step_summary,
    as_text,
    because,
    by_network,
    conditions_of,
    headline,
    in_order,
    network_of,
    side_line,
)

VERSION = 1
"""Of the JSON document; raised when a field changes its meaning or goes, while new ones may come at any time."""
LIMIT = 10
"""GitHub shows so many errors of a step, and so many warnings, and drops the rest in silence."""
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, even escaped: an error message may carry a terminal's control codes."""
_VERDICTS = {0: "passed", 1: "regressed", 3: "unfit"}
"""What exit codes mean."""
SEVERAL_FILES = ("github-action-benchmark", "pytest-benchmark")
_NEVER = "1970-01-01T00:00:00"


def check_format(name: str, out: Path | None) -> None:
    """Raises `UsageError` for an unknown format, and for one of two files where there is no place to put them."""
    if name not in FORMATS:
        raise UsageError(f"--format {name}: no such format, known: {', '.join(FORMATS)}{did_you_mean(name, FORMATS)}")
    if out is None and name in SEVERAL_FILES:
        raise UsageError(f"--format {name} makes two files: give --out PATH, and they are named after it")


def render_comparison(comparison: Comparison, name: str) -> str:
    """The text of a format of one document. Raises `UsageError` as `check_format` does."""
    check_format(name, None)
    text = FORMATS[name](comparison)
    assert isinstance(text, str), "check_format refuses those of several files"
    return text


def write_comparison(comparison: Comparison, name: str, out: Path) -> tuple[Path, ...]:
    """Write all documents of a format: one as `out`, several as `out` with their suffix before its extension.

    Returns where they are. Raises `UsageError` for an unknown format, and `UnfitError` where it cannot be written.
    """
    from archbench.results.files import write_bytes

    check_format(name, out)
    made = FORMATS[name](comparison)
    texts = {"": made} if isinstance(made, str) else made
    places = {out.with_name(f"{out.stem}-{end}{out.suffix or '.json'}") if end else out: texts[end] for end in texts}
    for place, text in places.items():
        write_bytes(place, text.encode())
    return tuple(places)


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


def structured(comparison: Comparison) -> str:
    """One object; `cells` in the order of the base.

    Times in seconds, sizes in bytes, ratios as head over base; what is unknown or infinite is null.
    """
    document = {
        "comparison_version": VERSION,
        "kind": comparison.kind,
        "verdict": _VERDICTS[comparison.exit_code()],
        "headline": headline(comparison),
        "regressed": comparison.regressed,
        "exit_code": comparison.exit_code(),
        "exit_code_strict": comparison.exit_code(strict=True),
        "counts": {verdict: sum(cell.verdict == verdict for cell in comparison.cells) for verdict in CELL_VERDICTS},
        "base": comparison.base,
        "head": comparison.head,
        "floor": comparison.floor,
        "whole": comparison.whole,
        "comparable": None if comparison.compared is None else len(comparison.compared),
        "duration_s": comparison.duration_s,
        "notes": comparison.notes,
        "findings": comparison.findings,
        "cells": comparison.cells,
    }
    return indented_json(document)


def action_benchmark(comparison: Comparison) -> dict[str, str]:
    """The head for github-action-benchmark, `customSmallerIsBetter` and `customBiggerIsBetter`, by suffix.

    `smaller`: latency and peak memory; `bigger`: throughput. One without entries is none: the action refuses it. It
    alarms at a fixed percentage of one figure against the last, so its chart is what to take from it.
    """
    smaller, bigger = [], []
    for cell in comparison.cells:
        name, head = short_id(cell.cell_id), cell.head
        if head.latency_s is not None:
            spread = _range(head.latency_s, head.latency_low_s, head.latency_high_s)
            extra = f"against the base: {cell.verdict} ({cell.why.sentence})".replace("`", "")
            entry = {"name": f"{name} latency", "unit": "ms", "value": head.latency_s / MS.size}
            smaller.append({**entry, **spread, "extra": extra})
        if head.peak_bytes is not None:
            smaller.append({"name": f"{name} peak memory", "unit": "MiB", "value": head.peak_bytes / MIB.size})
        if head.throughput_img_s is not None:
            spread = _range(head.throughput_img_s, head.throughput_low_img_s, head.throughput_high_img_s)
            bigger.append({"name": f"{name} throughput", "unit": "img/s", "value": head.throughput_img_s, **spread})
    return {name: indented_json(entries) for name, entries in (("smaller", smaller), ("bigger", bigger)) if entries}


def _range(value: float, low: float | None, high: float | None) -> dict[str, str]:
    return {} if low is None or high is None else {"range": f"± {percent(max(high - value, value - low) / value)}"}


def pytest_benchmark(comparison: Comparison) -> dict[str, str]:
    """Both sides as files that `pytest-benchmark compare` reads, with every cell that was timed there, by suffix.

    A round there is a process here: each value is one process's median, so its deviation is between processes.
    """
    sides = {"base": comparison.base, "head": comparison.head}
    return {name: indented_json(_file(comparison, side, name)) for name, side in sides.items()}


def _file(comparison: Comparison, side: Side, name: str) -> dict[str, Any]:
    timed = [(cell, getattr(cell, name)) for cell in comparison.cells]
    return {
        "machine_info": {
            "node": "",
            "processor": side.hardware_class,
            "machine": side.hardware_class,
            "python_version": side.python_version or "",
            "cpu": {"brand_raw": side.hardware_class},
            "torch_version": side.torch_version or "",
            "driver_version": side.driver_version or "",
        },
        "commit_info": {"id": side.label, "time": side.started_at or _NEVER, "dirty": False, "branch": side.label},
        "benchmarks": [_benchmark(cell, figures) for cell, figures in timed if figures.process_times_s],
        "datetime": side.started_at or _NEVER,
        "version": "5.0.0",  # of the format
    }


def _benchmark(cell: CellComparison, figures: Figures) -> dict[str, Any]:
    name = short_id(cell.cell_id)
    return {
        "group": None,
        "name": name,
        "fullname": f"archbench::{name}",
        "params": None,
        "param": None,
        "extra_info": {
            "cell_id": cell.cell_id,
            "params": figures.params,
            "macs": figures.macs,
            "peak_bytes": figures.peak_bytes,
            "throughput_img_s": figures.throughput_img_s,
            "archbench_verdict": cell.verdict,
        },
        "options": {"timer": "archbench", "warmup": True, "disable_gc": True},
        "stats": _stats(figures.process_times_s),
    }


def _stats(times: tuple[float, ...]) -> dict[str, Any]:
    """The fields that pytest-benchmark stores of its rounds, as it defines them."""
    mean, median = statistics.mean(times), statistics.median(times)
    deviation = statistics.stdev(times) if len(times) > 1 else 0.0
    q1, _, q3 = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else (median, median, median)
    low, high = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)
    beyond = sum(abs(time - mean) > deviation for time in times)
    outside = sum(not low <= time <= high for time in times)
    return {
        "min": min(times),
        "max": max(times),
        "mean": mean,
        "stddev": deviation,
        "rounds": len(times),
        "median": median,
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": outside,
        "stddev_outliers": beyond,
        "outliers": f"{beyond};{outside}",
        "ld15iqr": min(time for time in times if time >= low),
        "hd15iqr": max(time for time in times if time <= high),
        "ops": 1 / mean,
        "total": sum(times),
        "data": list(times),
        "iterations": 1,
    }


FORMATS: dict[str, Callable[[Comparison], str | dict[str, str]]] = {
    "text": as_text,
    "md": as_step_summary,
    "json": structured,
    "junit": junit,
    "annotations": workflow_commands,
    "github-action-benchmark": action_benchmark,
    "pytest-benchmark": pytest_benchmark,
}
