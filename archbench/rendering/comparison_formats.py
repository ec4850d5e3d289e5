"""A comparison as the documents that continuous integration and two other benchmark tools read.

A further format is a function from `Comparison` to one text, or to several by the suffix of their files, and a line in
`FORMATS`. In JUnit a cell is a test case: slower ones and failing findings fail, undecided ones are skipped.
"""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from archbench.comparison.findings import accepted_file, as_yaml, entries_for
from archbench.model.cell import network_of, short_id
from archbench.model.comparison import (
    CELL_VERDICTS,
    CellComparison,
    Comparison,
    CountedDifference,
    Figures,
    Side,
    SuiteLines,
)
from archbench.model.errors import UsageError
from archbench.model.units import IMAGES, MIB, MS, Unit, indented_json, percent
from archbench.rendering import comparison_report as words
from archbench.rendering import content
from archbench.rendering.content import Report, bullets, fold, grouped, known_format, report, section, table, tabled
from archbench.rendering.text import render_markdown, render_terminal

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
LIMIT_BYTES = 1_000_000
"""GitHub refuses a step summary of more than 1 MiB, whole."""
_FIRST_TRY = 4096
"""Rows of one of its tables before any are cut."""
_ENTRIES = 40
"""Of accepted changes, that it proposes at most."""


def check_format(name: str, out: Path | None) -> None:
    """Raises `UsageError` for an unknown format, and for one of two files where there is no place to put them."""
    known_format(name, FORMATS)
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


def as_step_summary(comparison: Comparison) -> str:
    """The verdict first, then what is not the same, and the rest behind a fold; cut, with a note, where too long."""
    most = _FIRST_TRY
    while len((text := render_markdown(_summary(comparison, most))).encode()) > LIMIT_BYTES and most > 1:
        most //= 2
    return text


def _summary(comparison: Comparison, most: int) -> Report:
    cells, found = words.in_order(comparison), words.by_network(comparison)
    told = [cell for cell in cells if cell.verdict != "same"]
    alike = [cell for cell in cells if cell.verdict == "same"]
    why = (f"{one.verdict}, {short_id(one.cell_id)}: {words.because(one)}" for one in told[:most])
    meant = None
    if comparison.suite_file is not None and comparison.regressed:
        file = accepted_file(Path(comparison.suite_file.path))
        how = f"Commit this as `{file}` (or at its end), with a reason; `archbench gate --accept` writes it too."
        entries = entries_for(comparison, "WHY", date.today())[:_ENTRIES]
        meant = fold("What to commit", how, content.Code(f"accepted:\n{as_yaml(entries)}", "yaml"))

    def cut(count: int) -> str | None:
        more = f"{count - most:,} more are left out here for their length; `--format json` has all."
        return more if count > most else None

    def shown(some: Sequence[CellComparison]) -> content.Part:
        return tabled(some[:most], words.CELLS), cut(len(some))

    return report(
        words.headline(comparison).rstrip("."),
        bullets(f"base: {words.side_line(comparison.base)}", f"head: {words.side_line(comparison.head)}"),
        words.method(comparison),
        section("Findings", table(("", "Network", "Cells", "What"), found[:most]), cut(len(found))),
        section("Cells", shown(told), fold("Why", bullets(*why))),
        section("The same", fold(f"The same: {len(alike):,}", shown(alike))),
        section("To know", content.Bullets(comparison.notes)),
        section("If this is meant", meant),
    )


def workflow_commands(comparison: Comparison) -> str:
    """An error for each network that fails, a warning for each that is undecided, the verdict as a notice.

    They stand at the network's line of the suite, where that is known.
    """
    told: dict[str, dict[str, list[str]]] = {"error": defaultdict(list), "warning": defaultdict(list)}
    for cell in words.in_order(comparison):
        level = "error" if cell.fails else "warning" if cell.verdict in ("undecided", "invalid") else None
        if level is not None:
            said = f"{words.conditions_of(cell.cell_id)}: {cell.verdict}, {cell.why.sentence}"
            told[level][network_of(cell.cell_id)].append(said)
    for mark, network, cells, what in words.by_network(comparison):
        if mark == "fails":
            told["error"][network].append(f"{cells}: {what}")
    for finding in comparison.failed_on_both:
        said = f"{words.conditions_of(finding.cell_id)}: {finding.what}"
        told["warning"][network_of(finding.cell_id)].append(said)
    if comparison.whole is not None and comparison.whole.verdict == "slower":
        told["error"]["archbench"].append(comparison.whole.sentence)
    suite = comparison.suite_file
    lines: list[str] = []
    for level, of_network in told.items():
        names = list(of_network)
        shown = names if len(names) <= LIMIT else names[: LIMIT - 1]
        lines += [_line(level, name, "\n".join(of_network[name]), suite) for name in shown]
        if len(names) > len(shown):
            rest = f"{len(names) - len(shown):,} more networks; the step summary has all"
            lines.append(_line(level, "archbench", rest, suite))
    lines.append(_line("notice", "archbench", words.headline(comparison)))
    return "".join(f"{line}\n" for line in lines)


def _line(level: str, title: str, message: str, suite: SuiteLines | None = None) -> str:
    line = suite.lines.get(title) if suite else None
    place = f"file={_escaped(suite.path, in_property=True)},line={line or 1}," if suite else ""
    return f"::{level} {place}title={_escaped(title, in_property=True)}::{_escaped(message)}"


def _escaped(text: str, *, in_property: bool = False) -> str:
    """As the runner unescapes workflow commands (its toolkit's `command.ts`)."""
    return text.translate({ord(mark): f"%{ord(mark):02X}" for mark in "%\r\n" + ":," * in_property})


def junit(comparison: Comparison) -> str:
    """One suite of one test case a cell, those only counted too; the schema is that of Jenkins' xUnit plugin."""
    about = grouped(comparison.findings, lambda one: one.cell_id)
    timed = {cell.cell_id: cell for cell in comparison.cells}
    floor = comparison.floor
    facts = {
        "kind": comparison.kind,
        "base": words.side_line(comparison.base),
        "head": words.side_line(comparison.head),
        "hardware_class": comparison.head.hardware_class,
        "noise_floor": f"{floor.spread:.4f} ({floor.origin})" if floor else "unknown",
    }
    suite = ET.Element("testsuite", name=_clean(f"archbench {comparison.head.suite or comparison.kind}"))
    properties = ET.SubElement(suite, "properties")
    for name, value in facts.items():
        ET.SubElement(properties, "property", name=name, value=_clean(value))
    for cell_id in dict.fromkeys((*timed, *about, *(comparison.compared or ()))):
        _case(suite, cell_id, timed.get(cell_id), about.get(cell_id, ()))
    ET.SubElement(suite, "system-out").text = _clean("\n".join((words.headline(comparison), *comparison.notes)))
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


def _case(suite: ET.Element, cell_id: str, cell: CellComparison | None, findings: Sequence[CountedDifference]) -> None:
    toggles = words.conditions_of(cell_id)
    case = ET.SubElement(suite, "testcase", classname=_clean(network_of(cell_id)), name=_clean(toggles or cell_id))
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
        told.insert(0, f"{cell.verdict}: {words.because(cell)}")
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
        "headline": words.headline(comparison),
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

    def entry(
        what: str, unit: Unit, value: float, low: float | None = None, high: float | None = None
    ) -> dict[str, Any]:
        scatter = None if low is None or high is None else percent(max(high - value, value - low) / value)
        named = {"name": f"{short_id(cell.cell_id)} {what}", "unit": unit.symbol, "value": value / unit.size}
        return {**named, **({"range": f"± {scatter}"} if scatter else {})}

    for cell in comparison.cells:
        head = cell.head
        if head.latency_s is not None:
            extra = f"against the base: {cell.verdict} ({cell.why.sentence})".replace("`", "")
            timed = entry("latency", MS, head.latency_s, head.latency_low_s, head.latency_high_s)
            smaller.append({**timed, "extra": extra})
        if head.peak_bytes is not None:
            smaller.append(entry("peak memory", MIB, head.peak_bytes))
        if head.throughput_img_s is not None:
            ends = head.throughput_low_img_s, head.throughput_high_img_s
            bigger.append(entry("throughput", IMAGES, head.throughput_img_s, *ends))
    return {name: indented_json(entries) for name, entries in (("smaller", smaller), ("bigger", bigger)) if entries}


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
    "text": lambda comparison: render_terminal(words.text_report(comparison)),
    "md": as_step_summary,
    "json": structured,
    "junit": junit,
    "annotations": workflow_commands,
    "github-action-benchmark": action_benchmark,
    "pytest-benchmark": pytest_benchmark,
}
