"""Stored results as something to read: content is made once (`build_report`), free of any format, and rendered.

A further format is a function from `Report` to text, and a line in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from archbench.report.content import Report
from archbench.report.failures import failures
from archbench.report.figures import phase_sections
from archbench.report.machine import lead, machine
from archbench.report.markdown import render_markdown
from archbench.report.measured import Measured, read_measured
from archbench.report.notes import accuracy, reproduce, scope
from archbench.report.toggles import toggles
from archbench.report.trust import trust

__all__ = ["FORMATS", "Measured", "Report", "build_report", "read_measured", "render_markdown", "write_report"]

FORMATS: dict[str, Callable[[Report], str]] = {"md": render_markdown}


def build_report(run: Measured) -> Report:
    """All that a report says of one run, in the order in which it is read."""
    sections = (
        machine(run),
        trust(run),
        toggles(run),
        *phase_sections(run),
        failures(run),
        scope(run),
        accuracy(run),
        reproduce(run),
    )
    return Report(
        title=f"{run.suite.suite} on {run.environment.hardware_class}",
        lead=lead(run),
        sections=tuple(section for section in sections if section is not None),
    )


def write_report(run_dir: Path, format: str = "md", out: Path | None = None) -> Path:
    """Render a run and store it as `out`, or as `report.<format>` in the run's directory; returns where it is.

    Raises `UsageError` for what is not a run, and `UnfitError` where the place cannot be written.
    """
    from archbench.store.files import write_bytes

    run = read_measured(run_dir)
    place = out or run.path / f"report.{format}"
    write_bytes(place, FORMATS[format](build_report(run)).encode())
    return place
