"""Toggles: what each contributes, alone and on top of others, and what all of a setting's together gain over fp32."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from archbench.choose.cell_summary import PLAIN, CellSummary
from archbench.choose.toggles import Alike, Gain, Step, alike, gain, steps
from archbench.model.units import MS, NULL, RATIO, figure, rounded
from archbench.rendering.best import best_sections
from archbench.rendering.compiling import compiling, outputs
from archbench.rendering.content import Block, Fold, Paragraph, Section, Table
from archbench.rendering.figures import PHASES
from archbench.rendering.listing import LONG_TABLE, MOST_ROWS, listed
from archbench.rendering.run_data import RunData

_WIDEST = 6
"""Ratios in one table; a full product of toggles takes several."""
_MARK = "?"


def toggles(run: RunData) -> Section | None:
    """All about toggles; `None` where no cell was measured under two settings."""
    groups = alike(run.cells)
    taken = steps(groups, run.setting_labels())
    parts = [
        *_contributions(taken, run),
        *_against_fp32(groups, run),
        *_step_by_step(taken),
        *best_sections(groups, taken, run),
        *compiling(groups),
        *outputs(groups),
    ]
    if not parts:
        return None
    note = Paragraph(
        "× is how many times faster, by the latency of cells that differ in nothing but the toggles named; 1.00 is no "
        f"gain, ± the 95 % interval. `{_MARK}` marks a ratio with a suspect side; a word stands where there is none."
    )
    return Section(title="Toggles", blocks=(note, *parts))


def _contributions(taken: Sequence[Step], run: RunData) -> list[Section]:
    """What a toggle does to the networks together."""
    together: dict[tuple[str, str, str, int], list[Step]] = {}
    for step in taken:
        key = (step.after.phase, step.toggle, step.before.setting_label, step.after.batch_size)
        together.setdefault(key, []).append(step)
    floor = run.floor.spread if run.floor else None
    place = {label: number for number, label in enumerate(run.setting_labels())}
    ordered = sorted(together.items(), key=lambda item: (item[0][0], place[item[1][0].after.setting_label], item[0][3]))

    def row(item: tuple[tuple[str, str, str, int], list[Step]]) -> tuple[str, ...]:
        (phase, toggle, before, batch), members = item
        ratios = [step.gain.ratio for step in members]
        told = [step.gain.ratio for step in members if step.gain.exceeds(floor)]
        return (
            toggle,
            before,
            phase,
            str(batch),
            f"{len(members):,}",
            figure(statistics.median(ratios), RATIO),
            f"{figure(min(ratios), RATIO)} to {figure(max(ratios), RATIO)}",
            f"{sum(ratio > 1 for ratio in told):,}",
            f"{sum(ratio < 1 for ratio in told):,}",
        )

    headings = ("Toggle", "On top of", "Phase", "Batch", "Networks", "Median ×", "Range ×", "Faster", "Slower")
    blocks = listed(
        ordered,
        row,
        headings,
        numeric={"Batch", "Networks", "Median ×", "Range ×", "Faster", "Slower"},
        noun="combinations",
        caption="What each toggle contributes",
    )
    if not blocks:
        return []
    note = Paragraph(
        "One toggle turned on, all else equal. On top of plain fp32 it stands alone; on top of another setting it is "
        "what it adds there. Faster, slower: networks whose ratio differs from 1 by more than noise and interval."
    )
    return [Section(title="What each toggle contributes", blocks=(note, *blocks))]


def _against_fp32(groups: Sequence[Alike], run: RunData) -> list[Section]:
    """A table for each phase in which something was measured in plain fp32 and under another setting."""
    plain = {one.setting_label for one in run.cells if one.is_plain}
    others = [label for label in run.setting_labels() if label not in plain]
    parts = []
    for phase, title in PHASES.items():
        rows = _gain_rows(groups, phase, others)
        if rows:
            caption = f"{title}: speed over plain fp32"
            parts.append(
                Section(title=f"{title}: gains over fp32", blocks=tuple(_wide(rows, others, caption)), phase=phase)
            )
    return parts


def _gain_rows(groups: Iterable[Alike], phase: str, others: list[str]) -> list[tuple[str, ...]]:
    """A network and batch size a row: both, its time in plain fp32, and its gain under each of `others`."""
    rows: list[tuple[str, ...]] = []
    for settings in groups:
        plain = settings.get(PLAIN)
        if plain is None or plain.phase != phase or not plain.rank_latency_s or len(settings) == 1:
            continue
        if len(rows) == MOST_ROWS + 1:
            break  # beyond what is printed; `_wide` says so
        labels = {one.setting_label: one for one in settings.values()}
        time = rounded(plain.rank_latency_s, MS, plain.rank_latency_low_s, plain.rank_latency_high_s)
        rows.append((plain.network, str(plain.batch_size), time, *(_ratio(plain, labels.get(name)) for name in others)))
    return rows


def _ratio(plain: CellSummary, other: CellSummary | None) -> str:
    if other is None:
        return NULL
    if other.status != "ok":
        return other.status
    verdicts = {plain.verdict, other.verdict}
    if "invalid" in verdicts:
        return "invalid"
    found = gain(plain, other)
    return NULL if found is None else ratio_text(found, suspect="suspect" in verdicts)


def ratio_text(found: Gain, *, suspect: bool = False) -> str:
    """`1.59 ±0.02`, with a mark where one side is suspect."""
    ratio = figure(found.ratio, RATIO, found.low, found.high)
    return f"{ratio} {_MARK}" if suspect else ratio


def _step_by_step(taken: Sequence[Step]) -> list[Section]:
    """Each network's gain at each step that is not already a gain over plain fp32."""
    parts = []
    for phase, title in PHASES.items():
        on_top = [step for step in taken if step.after.phase == phase and not step.alone]
        columns = list(dict.fromkeys(_step_label(step) for step in on_top))
        together: dict[tuple[int, str, int | None], dict[str, Step]] = {}
        for step in on_top:
            key = (step.after.batch_size, step.after.variant, step.after.input_size)
            if key not in together and len(together) > MOST_ROWS:
                break  # steps come network by network, and no more are printed
            together.setdefault(key, {})[_step_label(step)] = step
        rows = [_step_row(found, columns) for found in together.values()]
        if rows:
            caption = f"{title}: what each toggle adds to the settings before it"
            blocks = _wide(rows, columns, caption, fixed=("Network", "Batch"))
            parts.append(Section(title=f"{title}: gains step by step", blocks=tuple(blocks), phase=phase))
    return parts


def _step_row(found: dict[str, Step], columns: list[str]) -> tuple[str, ...]:
    cell = next(iter(found.values())).after
    ratios = (ratio_text(found[name].gain, suspect=found[name].suspect) if name in found else NULL for name in columns)
    return (cell.network, str(cell.batch_size), *ratios)


def _step_label(step: Step) -> str:
    return f"{step.after.setting_label} / {step.before.setting_label}"


def _wide(
    rows: list[tuple[str, ...]],
    columns: list[str],
    caption: str,
    fixed: tuple[str, ...] = ("Network", "Batch", "fp32 ms"),
) -> list[Block]:
    """Rows of ratios, `_WIDEST` of them side by side; the `fixed` columns stand first in every table."""
    tables: list[Block] = []
    for start in range(0, len(columns), _WIDEST):
        names = columns[start : start + _WIDEST]
        headings = (*fixed, *(f"{name} ×" for name in names))
        first = len(fixed) + start
        kept = tuple((*row[: len(fixed)], *row[first : first + _WIDEST]) for row in rows[:MOST_ROWS])
        numeric = frozenset(range(1, len(headings)))
        tables.append(Table(headings=headings, rows=kept, numeric=numeric, caption=caption))
    if len(rows) <= LONG_TABLE:
        return tables
    if len(rows) <= MOST_ROWS:
        return [Fold(summary=f"{len(rows):,} rows", blocks=tuple(tables))]
    rest = Paragraph("Further networks: `results.parquet` has the figures.")
    return [Fold(summary=f"The first {MOST_ROWS:,} rows", blocks=(*tables, rest))]
