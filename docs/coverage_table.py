"""Writes docs/coverage.md: for each architecture of the catalogue, whether it is built, counted and measured.

    python docs/coverage_table.py > docs/coverage.md

Built and counted: `docs/catalog_tables.py` has built it and counted it, which its tests repeat. Measured:
a reference run under `results/` has a row of it that ended `ok`. Suites: those that name it.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

from reference_runs import reference_runs

from archbench.catalog import counted_by_label, entries
from archbench.results import read_table
from archbench.suite import load_suite

ROOT = Path(__file__).parents[1]


def measured_on() -> dict[str, set[str]]:
    """For each architecture the hardware classes of the reference runs that measured it."""
    found: dict[str, set[str]] = defaultdict(set)
    for run in reference_runs():
        table = read_table(run)
        columns = (table[name].to_pylist() for name in ("architecture", "hardware_class", "status"))
        for architecture, hardware, status in zip(*columns, strict=True):
            if status == "ok":
                found[architecture].add(hardware)
    return found


def named_by() -> dict[str, list[str]]:
    """For each architecture the suites that name it."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "suites").glob("*.yaml")):
        for name in dict.fromkeys(network.name for network in load_suite(path).architectures):
            found[name].append(path.stem)
    return found


def table() -> str:
    """The page."""
    counted, measured, named = counted_by_label(), measured_on(), named_by()
    rows = [
        (
            name,
            entry.family or "",
            "yes" if name in counted else "no",
            "yes" if name in counted else "no",
            ", ".join(sorted(measured[name])) if name in measured else "not yet",
            ", ".join(named[name]),
        )
        for name, entry in entries().items()
    ]
    built, seen = sum(row[2] == "yes" for row in rows), sum(row[4] != "not yet" for row in rows)
    lines = [
        "# What of the catalogue is built, counted and measured",
        "",
        "Written by `docs/coverage_table.py` from the catalogue, the suites and the reference runs under `results/`.",
        "",
        f"{len(rows)} architectures: {built} built and counted, {seen} measured in a reference run.",
        "",
        "| Architecture | Family | Built | Counted | Measured on | Suites |",
        "| --- | --- | --- | --- | --- | --- |",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table())
