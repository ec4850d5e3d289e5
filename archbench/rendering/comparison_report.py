"""A comparison, a duel or a history for people: which cells are slower, by how much, and since when."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from archbench.comparison.history import FEWEST, Change, DatedRun, History, JointChange, Series
from archbench.model.cell import network_of, short_id
from archbench.model.comparison import CELL_VERDICTS, CellComparison, Comparison, CountedDifference, Figures, Side
from archbench.model.units import MS, NULL, change, counted, duration, excess, figure, listed, percent, rounded
from archbench.rendering import content
from archbench.rendering.content import Columns, Picture, Report, bullets, grouped, report, section, table, tabled
from archbench.rendering.drawing import chart, layer, number, word
from archbench.stats.paired import EQUIVALENCE_MARGIN

if TYPE_CHECKING:
    from archbench.comparison.gate import Duel

MOST_LINES = 8
"""Cells in the plot of a history: more lines, and none can be followed."""
_MOST_ROWS = 500
_HEIGHT = 360
"""Pixels of that plot."""
_CULPRITS = 4
"""Networks that a headline names before it only counts the rest."""
ALL_SHOWN = 40
"""Up to this many cells are listed whatever became of them; of more, those that are the same are counted only."""
_LONGEST_ERROR = 200
"""Characters of an error in a headline; the findings have it whole."""


def text_report(comparison: Comparison) -> Report:
    """A table of cells, worst first, then reasons, findings and notes; the verdict is the last line."""
    cells = in_order(comparison)
    shown = cells if len(cells) <= ALL_SHOWN else [cell for cell in cells if cell.verdict != "same"]
    alike = len(cells) - len(shown)
    terms: dict[str, Sequence[tuple[str, str]]] = {
        "Why": [(one.verdict, f"{short_id(one.cell_id)}: {because(one)}") for one in shown if one.verdict != "same"],
        "Findings": [
            (mark.upper() if mark == "fails" else mark, f"{network}, {cells}: {what}")
            for mark, network, cells, what in by_network(comparison)
        ],
        "To know": [("note", one) for one in comparison.notes],
    }
    return report(
        "",
        table(("", ""), (("base", side_line(comparison.base)), ("head", side_line(comparison.head)))),
        method(comparison),
        tabled(shown, CELLS),
        f"... and {alike:,} cells that are the same" if alike else None,
        *(section(title, table(("", ""), rows)) for title, rows in terms.items()),
        content.Section(title=headline(comparison), blocks=()),
    )


def because(cell: CellComparison) -> str:
    """The ground of its verdict, and why it was accepted."""
    return cell.why.sentence + (f"; accepted: {cell.accepted}" if cell.accepted is not None else "")


def _interval(cell: CellComparison) -> str:
    """`+1.2 % to +3.4 %`; `-` where there is none."""
    if cell.ci_low is None or cell.ci_high is None:
        return NULL
    return f"{change(cell.ci_low - 1)} to {change(cell.ci_high - 1)}"


CELLS: Columns[CellComparison] = {
    "Verdict": lambda cell: (
        cell.verdict + (" (noisy)" if cell.noisy else "") + (" (accepted)" if cell.accepted else "")
    ),
    "Cell": lambda cell: short_id(cell.cell_id),
    ">Base ms": lambda cell: _time(cell, cell.base),
    ">Head ms": lambda cell: _time(cell, cell.head),
    ">Change": lambda cell: NULL if cell.change is None else change(cell.change),
    ">95 % interval": _interval,
    ">Sees": lambda cell: NULL if cell.detectable is None else excess(cell.detectable),
    ">Pairs": lambda cell: str(cell.pairs),
}


def headline(comparison: Comparison) -> str:
    """`Regressed: resnet50 (time +4.1 %, params +2.0 %): 2 slower, 40 same of 42 timed cells; 1 failing finding.`"""
    counts: Counter[str] = Counter(cell.verdict for cell in comparison.cells)
    parts = [f"{counts[verdict]:,} {verdict}" for verdict in CELL_VERDICTS if counts[verdict]]
    cells = comparison.compared
    untimed = f"what is counted of {counted(len(cells), 'cell')}" if cells else "no timed cell"
    timed = f"{', '.join(parts)} of {len(comparison.cells):,} timed cells" if parts else untimed
    failing, both, meant = len(comparison.failures), len(comparison.failed_on_both), len(comparison.accepted)
    timed += f"; {counted(failing, 'failing finding')}" if failing else ""
    timed += f"; {counted(meant, 'change')} accepted" if meant else ""
    timed += f"; {counted(both, 'cell')} failed on both sides" if both else ""
    if comparison.regressed:
        return f"Regressed: {_culprits(comparison)}: {timed}."
    if comparison.blind:
        failed = [finding for finding in comparison.findings if finding.failed]
        example = next((finding for finding in failed if finding.head != "ok"), failed[0])
        what = textwrap.shorten(example.what, _LONGEST_ERROR, placeholder=" ...")
        return (
            f"Nothing could be compared: no common cell ended ok on both sides, and {len(failed):,} failed, such as "
            f"{short_id(example.cell_id)}, which {what}."
        )
    if comparison.exit_code() == 3:
        return f"Nothing could be judged: {timed}."
    if comparison.cells and not comparison.having("same", "faster") and not meant:
        return f"Nothing decided, which is not the same as no regression: {timed}."
    but = " but what was accepted" if meant else ""
    if comparison.undecided:
        return f"No regression{but} in what was decided: {timed}."
    return f"No regression{but}: {timed}."


def _culprits(comparison: Comparison) -> str:
    """The networks that fail, with their largest change of each kind: `resnet50 (time +4.1 %, params +2.0 %)`."""
    worst: dict[str, dict[str, float | None]] = {}
    for one in comparison.everything:
        if one.fails:
            kind = "time" if isinstance(one, CellComparison) else one.column
            of_network = worst.setdefault(network_of(one.cell_id), {})
            of_network[kind] = max(of_network.get(kind) or -1.0, -1.0 if one.change is None else one.change)
    told = [
        f"{name} ({', '.join(kind if by in (None, -1.0) else f'{kind} {change(by)}' for kind, by in kinds.items())})"
        for name, kinds in worst.items()
    ]
    if comparison.whole is not None and comparison.whole.verdict == "slower":
        told.insert(0, f"all {comparison.whole.cells} cells together ({change(comparison.whole.ratio - 1)} time)")
    return listed(told, _CULPRITS)


def conditions_of(cell_id: str) -> str:
    """What is unusual of a cell besides its network: `batch_size=1,precision=amp-bf16`."""
    return short_id(cell_id).rpartition("@")[2]


def by_network(comparison: Comparison) -> list[tuple[str, str, str, str]]:
    """Findings about one column of a network in one line: a mark, the network, which cells of it, what.

    What fails comes first, then what was accepted, then what is only told.
    """
    marks = ("fails", "accepted", "note")

    def kind(one: CountedDifference) -> tuple[int, str, str]:
        mark = 0 if one.fails else 1 if one.accepted is not None else 2
        return mark, network_of(one.cell_id), one.column

    groups = sorted(grouped(comparison.findings, kind).items(), key=lambda item: item[0][0])
    return [
        (
            marks[mark],
            network,
            conditions_of(alike[0].cell_id) if len(alike) == 1 else f"{len(alike)} cells",
            _together(alike),
        )
        for (mark, network, _), alike in groups
    ]


def _together(alike: Sequence[CountedDifference]) -> str:
    """What findings of one column say: the one thing, or from which change to which."""
    said = list(dict.fromkeys(one.what for one in alike))
    by = [one.change for one in alike]
    known = [one for one in by if one is not None]
    if len(said) == 1:
        what = said[0]
    elif len(known) == len(by):
        what = f"{alike[0].column} {change(min(known))} to {change(max(known))}, such as {said[0]}"
    else:
        what = f"{said[0]}; and {counted(len(said) - 1, 'other')} like it"
    reasons = dict.fromkeys(one.accepted for one in alike if one.accepted is not None)
    return f"{what}; accepted: {'; '.join(reasons)}" if reasons else what


def side_line(side: Side) -> str:
    """Where a side comes from, in one line."""
    facts = [
        f"torch {side.torch_version}" if side.torch_version else "",
        f"driver {side.driver_version}" if side.driver_version else "",
        f"measured {side.started_at[:16].replace('T', ' ')} UTC" if side.started_at else "",
        f"suite {side.suite}" if side.suite else "",
    ]
    known = ", ".join(fact for fact in facts if fact)
    return f"{side.label} ({known})" if known else side.label


def method(comparison: Comparison) -> str:
    """How the two sides were measured, and what that is worth."""
    spent = f" Measuring took {duration(comparison.duration_s)}." if comparison.duration_s else ""
    if comparison.blind:
        return "No common cell ended ok on both sides, so nothing could be compared."
    if not comparison.cells:
        return "Only what is counted, predicted and traced was compared, to the letter; nothing was timed."
    how = (
        "Base and head took turns on one machine."
        if comparison.kind == "turns"
        else "Two stored runs, measured at different times: a report, not a gate."
    )
    return f"{how} Hardware: {comparison.head.hardware_class}.{spent}"


def in_order(comparison: Comparison) -> Sequence[CellComparison]:
    """The cells with the worst verdict first, and within it the largest change."""
    return sorted(
        comparison.cells, key=lambda cell: (CELL_VERDICTS.index(cell.verdict), -abs(cell.change or 0.0), cell.cell_id)
    )


def _time(cell: CellComparison, side: Figures) -> str:
    if cell.metric == "throughput" and side.process_times_s:
        ordered = sorted(side.process_times_s)
        return figure(ordered[len(ordered) // 2], MS)
    return figure(side.latency_s, MS, side.latency_low_s, side.latency_high_s)


def duel_report(duel: Duel) -> Report:
    """Every cell with its time, and what is shown of it against the first one named."""
    words = {"same": f"same within ±{percent(EQUIVALENCE_MARGIN)}", "undecided": "not told apart"}
    columns: Columns[CellComparison] = {
        "Cell": lambda one: short_id(one.cell_id),
        "Against the first": lambda one: words.get(one.verdict, one.verdict),
        ">ms": lambda one: rounded(one.head.latency_s, MS),
        ">×": lambda one: f"{one.ratio:.4f}",
        ">Change": lambda one: change(one.change or 0.0),
        ">95 % interval": _interval,
    }
    found = tabled(duel.rivals, columns)
    first = (short_id(duel.baseline), "the first", rounded(duel.baseline_s, MS), "1", "", "")
    whole = "They do not fit in memory together, so whole processes alternated: drift between them counts."
    notes = {
        "One pair gives no interval.": any(one.ci_low is None for one in duel.rivals),
        "Not told apart: give more --pairs.": any(one.verdict == "undecided" for one in duel.rivals),
        whole: duel.alternated,
        f"Other work took CPU time from {percent(duel.contended_share)} of the processes.": duel.contended_share,
        f"Took {duration(duel.duration_s)}.": True,
    }
    played = f"{counted(duel.pairs, 'pair')} of processes, {counted(duel.turns, 'turn')} each"
    return report(
        f"{duel.hardware_class}, torch {duel.torch_version}: {played}",
        replace(found, rows=(first, *found.rows)),
        (note for note, holds in notes.items() if holds),
    )


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
    changed = len({each.cell_id for step in history.steps for each in step.changes})
    first, last = (run.started_at[:10] for run in (history.runs[0], history.runs[-1]))
    return report(
        f"History of {len(history.runs):,} runs",
        f"{first} to {last}, {len(history.series):,} series of cells: "
        f"{changed:,} changed, at {len(history.steps):,} places. This advises and fails nobody.",
        section("Changes", map(_step, history.steps) if history.steps else nothing),
        section("Plot", _picture(history) if plot and history.series else None),
        section("Known breaks", bullets(*resets)),
        section("Cells", content.listed(ordered, columns, noun="cells", elsewhere="which `--format json` has")),
        section("To know", content.Bullets(history.notes)),
    )


_CHANGES: Columns[Change] = {
    "Cell": lambda one: short_id(one.cell_id),
    ">Before ms": lambda one: figure(one.before_s, MS),
    ">After ms": lambda one: figure(one.after_s, MS),
    ">Change": lambda one: change(one.change),
    ">Votes": lambda one: f"{one.votes} of {one.voters}",
}


def _step(step: JointChange) -> Iterator[content.Part]:
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
    begun = {run.run_id: run.started_at for run in history.runs}
    several = len({one.hardware_class for one in chosen}) > 1
    values = []
    for one in chosen:
        times = sorted(point.time_s for point in one.points)
        name = short_id(one.cell_id) + (f" on {one.hardware_class}" if several else "")
        values += [
            {
                "cell": name,
                "run": point.run_id,
                "date": begun[point.run_id],
                "change": point.time_s / times[len(times) // 2] - 1,
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
    return Picture(
        name="history",
        title="Time of a batch over the runs, against each cell's median",
        alt=f"A line for each of {len(chosen)} cells, those that changed most; dotted lines where torch or the driver "
        "changed.",
        spec=chart([layer("line", lines, data=values, point=True), *([rules] if breaks else [])], _HEIGHT),
    )
