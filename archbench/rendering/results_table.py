"""What a run found, on one screen: a table of its networks, and one line on which of them comes first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from archbench.choose.cell_summary import CellSummary
from archbench.choose.margins import settled_by
from archbench.choose.pick import Choice, Goal, Question, pick
from archbench.model.units import MIB, MILLION, NULL, RATIO, counted, fixed, whole
from archbench.query.expression import Compare
from archbench.rendering.content import Paragraph, Report, listed, tabled
from archbench.rendering.figures import BATCH, NETWORK, PHASE, PHASES, SETTING, CellColumns, latency, rate, shared_by
from archbench.rendering.run_data import RunData
from archbench.rendering.values import ratio


def _peak(one: CellSummary) -> str:
    """Tensors at their peak; under a runtime whose memory nobody counts the whole process above its start."""
    if one.peak_bytes is None and one.process_bytes is not None:
        return f"{whole(one.process_bytes, MIB)} (process)"
    return whole(one.peak_bytes, MIB)


MOST_ROWS = 24
"""Cells up to which all are shown; of more, those at the run's main point."""
_FIGURES: CellColumns = {
    ">Latency ms": latency,
    ">img/s": rate,
    "Verdict": lambda one: one.verdict_label,
    ">Top-1 %": lambda one: fixed(one.top1, RATIO, 1),
    ">Params M": lambda one: fixed(one.params, MILLION, 2),
    ">GMACs": lambda one: one.gmacs,
    ">Peak MiB": _peak,
}
"""What matters most first: a narrow screen has no room for the last."""


def results_report(run: RunData) -> Report:
    """The table with what all its rows share said once above it; the fastest of equal rows first."""
    cells = run.cells if len(run.cells) <= MOST_ROWS else main_point(run)
    cells = sorted(
        cells,
        key=lambda one: (
            list(PHASES).index(one.phase),
            run.settings[one.setting_label],
            one.batch_size,
            one.rank_latency_s is None,
            one.rank_latency_s or one.macs or 0,
        ),
    )
    shown = {name: text for name, text in _FIGURES.items() if any(text(one) not in (NULL, "None") for one in cells)}
    left = len(run.cells) - len(cells)
    more = f" {counted(left, 'more cell')} in the report." if left else ""
    return Report(
        title=f"{run.suite.suite}: {run.extent()}",
        lead=(
            Paragraph(f"{_shared_words(cells)}.{more}"),
            *listed(cells, NETWORK | PHASE | SETTING | BATCH | shown, noun="cells"),
            *map(Paragraph, _which_one(run, cells)),
        ),
        sections=(),
        shared=shared_by(cells),
    )


def main_point(run: RunData) -> list[CellSummary]:
    """The cells of the phase, setting and batch size that most networks were measured at; of equal ones the first."""
    points = Counter(_point(one) for one in run.cells if one.is_usable) or Counter(map(_point, run.cells))
    best = max(points, key=lambda at: (points[at], at[0] == "inference", -run.settings[at[1]], -at[2]))
    return [one for one in run.cells if _point(one) == best]


def _point(one: CellSummary) -> tuple[str, str, int]:
    return one.phase, one.setting_label, one.batch_size


def _shared_words(cells: Sequence[CellSummary]) -> str:
    """`Inference, fp32, batch 1, images of 224 px`: what holds for every row."""
    sizes = {one.input_size for one in cells}
    options = {one.shared for one in cells if one.shared and not one.shared.startswith("input_size=")}
    said = [
        tabled(cells, PHASE | SETTING | BATCH).shared_words(),
        f"images of {next(iter(sizes))} px" if len(sizes) == 1 and None not in sizes else "",
        f"all with {next(iter(options))}" if len(options) == 1 else "",
    ]
    words = ", ".join(filter(None, said)) or counted(len(cells), "cell")
    return f"{words[0].upper()}{words[1:]}"


def _which_one(run: RunData, cells: Sequence[CellSummary]) -> Iterable[str]:
    """Which network is the fastest where most of them meet, and under which setting; nothing for one network."""
    phase, _, batch_size = _point(main_point(run)[0])
    at = (
        Compare(column="phase", operator="==", value=phase),
        Compare(column="batch_size", operator="==", value=float(batch_size)),
    )
    question = Question(conditions=at, goals=(Goal(column="latency_median_s"),), across=("precision",), show=("top1",))
    choices = max((one.choices for one in pick(run.candidates, question).rankings), key=len, default=())
    if len(choices) < 2:
        return
    called = {one.cell_id: one.network for one in run.cells}
    several = len({one.setting_label for one in run.cells}) > 1
    under = {one.cell_id: f" under {one.setting_label}" if several else "" for one in run.cells}

    def name(one: Choice) -> str:
        return called[one.cell_id] + under[one.cell_id] + (" (suspect)" if one.verdict == "suspect" else "")

    first, second = choices[:2]
    where = f"{phase}, batch {batch_size}"
    if second.behind is not None and second.behind.tie:
        tied = [name(one) for one in choices[1:] if one.behind is not None and one.behind.tie]
        command = settled_by("latency_median_s", first.cell_id, second.cell_id)
        settle = f"; `{command}` settles it" if command else ""
        yield f"Which one ({where}): {name(first)} is not told apart from {', '.join(tied)} in latency{settle}."
    elif second.behind is not None:
        yield f"Which one ({where}): {name(first)} is the fastest, {name(second)} takes {ratio(second.behind)} as long."
    accurate = max(choices, key=lambda one: one.estimate("top1").value or 0.0)
    if len({one.accuracy_dataset for one in choices}) == 1 and (top1 := accurate.estimate("top1").value) is not None:
        yield f"The most accurate is {called[accurate.cell_id]} (top-1 {top1:.1f} %, published)."
