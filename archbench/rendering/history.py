"""A history as something to read, and as a plot of the cells that changed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from archbench.comparison.history import FEWEST, Change, DatedRun, History, JointChange, Series
from archbench.model.cell import short_id
from archbench.model.units import MS, change, figure
from archbench.rendering.content import (
    Bullets,
    Columns,
    Part,
    Picture,
    Report,
    bullets,
    listed,
    report,
    section,
    tabled,
)
from archbench.rendering.drawing import chart, layer, number, word

MOST_LINES = 8
"""Cells in the plot: more lines, and none can be followed."""
_MOST_ROWS = 500
_HEIGHT = 360
"""Pixels."""


def history_report(history: History, *, plot: bool) -> Report:
    """Where something changed first, then every cell's trend."""
    few = all(len(one.points) < FEWEST for one in history.series)
    nothing = "Too few runs to see a change." if few else "No cell was seen to change."
    resets = (f"`{reset.before_run}` to `{reset.after_run}`: {reset.what}" for reset in history.resets)
    columns: Columns[Series] = {
        "Cell": lambda one: short_id(one.cell_id),
        "Hardware": lambda one: one.hardware_class,
        ">Runs": lambda one: str(len(one.points)),
        ">First ms": lambda one: figure(one.points[0].time_s, MS),
        ">Last ms": lambda one: figure(one.points[-1].time_s, MS),
        ">Last over first": lambda one: change(one.points[-1].time_s / one.points[0].time_s - 1),
        ">Changes": lambda one: str(len(one.changes)),
    }
    ordered = sorted(history.series, key=lambda one: (-_moved(one), one.cell_id))
    changed = len({change.cell_id for step in history.steps for change in step.changes})
    first, last = (run.started_at[:10] for run in (history.runs[0], history.runs[-1]))
    return report(
        f"History of {len(history.runs):,} runs",
        f"{first} to {last}, {len(history.series):,} series of cells: "
        f"{changed:,} changed, at {len(history.steps):,} places. This advises and fails nobody.",
        section("Changes", map(_step, history.steps) if history.steps else nothing),
        section("Plot", _picture(history) if plot and history.series else None),
        section("Known breaks", bullets(*resets)),
        section("Cells", listed(ordered, columns, noun="cells", elsewhere="which `--format json` has")),
        section("To know", Bullets(history.notes)),
    )


_CHANGES: Columns[Change] = {
    "Cell": lambda one: short_id(one.cell_id),
    ">Before ms": lambda one: figure(one.before_s, MS),
    ">After ms": lambda one: figure(one.after_s, MS),
    ">Change": lambda one: change(one.change),
    ">Votes": lambda one: f"{one.votes} of {one.voters}",
}


def _step(step: JointChange) -> Iterator[Part]:
    yield f"Between {_named(step.before)} and {_named(step.after)}:"
    yield tabled(step.changes[:_MOST_ROWS], _CHANGES)
    yield step.also


def _named(run: DatedRun) -> str:
    return f"`{run.run_id}` ({run.started_at[:16].replace('T', ' ')} UTC)"


def _moved(series: Series) -> float:
    """The largest change of a series, as an absolute log; 0 for none."""
    return max((abs(math.log(one.after_s / one.before_s)) for one in series.changes), default=0.0)


def _picture(history: History) -> Picture:
    chosen = sorted(history.series, key=lambda one: (-_moved(one), -len(one.points), one.cell_id))[:MOST_LINES]
    return Picture(
        name="history",
        title="Time of a batch over the runs, against each cell's median",
        alt=f"A line for each of {len(chosen)} cells, those that changed most; dotted lines where torch or the driver "
        "changed.",
        spec=_chart(history, chosen),
    )


def _chart(history: History, chosen: Sequence[Series]) -> str:
    begun = {run.run_id: run.started_at for run in history.runs}
    several = len({one.hardware_class for one in chosen}) > 1
    values = []
    for one in chosen:
        times = sorted(point.time_s for point in one.points)
        middle = times[len(times) // 2]
        values += [
            {
                "cell": short_id(one.cell_id) + (f" on {one.hardware_class}" if several else ""),
                "run": point.run_id,
                "date": begun[point.run_id],
                "change": point.time_s / middle - 1,
            }
            for point in one.points
        ]
    x = {"field": "date", "type": "temporal", "title": "Run"}
    lines = {
        "x": x,
        "y": number("change", "Time against the median", axis={"format": "+.1%"}),
        "color": word("cell", "Cell", legend={"columns": 1, "labelLimit": 600}),
        "tooltip": [word("cell", "Cell"), word("run", "Run"), number("change", "Change", format="+.2%")],
    }
    breaks = [{"date": begun[reset.after_run], "what": reset.what} for reset in history.resets]
    rules = layer("rule", {"x": x, "tooltip": word("what", "What")}, data=breaks, strokeDash=[2, 4])
    return chart([layer("line", lines, data=values, point=True), *([rules] if breaks else [])], _HEIGHT)
