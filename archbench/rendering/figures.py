"""The figures themselves: any column's as text, a run's on one screen; counted, timed by phase and by stage, and the
memory of training.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from archbench.choose.cell_summary import CellSummary, Estimate, Margin, settled_by
from archbench.choose.pick import Choice, Goal, Question, pick
from archbench.model import units
from archbench.model.axes import Toggles
from archbench.model.derived import column_label, judged_columns
from archbench.model.units import GIGA, MIB, MILLION, MS, NULL, RATIO, Unit, counted, figure, fixed, rounded, whole
from archbench.query.expression import Compare
from archbench.rendering.content import Block, Part, Report, Section, body, grouped, listed, report, section, tabled
from archbench.rendering.profile_words import of_ceiling
from archbench.rendering.run_data import RunData

PHASES = {"inference": "Inference", "training": "Training"}
MOST_ROWS = 24
"""Cells up to which one screen shows all; of more, those at the run's main point."""
_STAGES = 3
_STATE = 3
"""Copies of the parameters in a step of SGD with momentum: weights, gradients, momentum."""
_HALVED = ("bf16", "fp16")
"""Precisions to which a whole model is converted, its state with it; `weight_bytes` is that of fp32."""
_PROCESS = "(process), of a runtime whose memory nobody counts: what serving adds to a process"
_ONE_TABLE = 30
"""Rows beyond which a phase has a table for each setting."""
_STEPS = {"inference": "forward pass", "training": "training step"}

_OF_UNIT = {"s": MS, "B": MIB, "img/s": units.IMAGES, "FLOP/s": GIGA}
_UNITS = {
    "params": MILLION,
    "macs": GIGA,
    "flops": GIGA,
    "activations": MILLION,
    # Times that nobody thinks of in milliseconds.
    **dict.fromkeys(("first_call_s", "compile_cold_s", "compile_warm_s", "duration_s"), units.SECOND),
}
_DECIMALS = {"params": 2, "macs": 2, "flops": 2, "activations": 2, "top1": 1, "top5": 1}
"""Columns whose figures have no error, with the decimals that tell them apart."""
_NAMES = {
    **dict.fromkeys(("latency_median", "latency_median_corrected"), "latency"),
    **{f"latency_{p}": f"{p} latency" for p in ("p90", "p95", "p99")},
    "peak_allocated": "peak memory",
    "peak_reserved": "peak memory, reserved",
    "predicted_peak": "predicted peak memory",
    "weight": "weights",
    "top1": "top-1",
    "top5": "top-5",
    "macs": "MACs",
    "flops": "FLOP",
    "mfu": "MFU",
}
"""What a reader calls a column where its stored name with blanks for underscores would not do."""

CellColumns = dict[str, Callable[[CellSummary], str]]
NETWORK: CellColumns = {"Network": lambda one: one.network}
SETTING: CellColumns = {"Setting": lambda one: one.setting_label}
PHASE: CellColumns = {"Phase": lambda one: one.phase}
BATCH: CellColumns = {">Batch": lambda one: str(one.batch_size)}
"""Columns that say which cell a row is of."""


def called(column: str) -> str:
    """`p99 latency` of `rank_latency_p99_s`: a column in a reader's words, without its unit."""
    label = column_label(column)
    return _NAMES.get(label, label.replace("_", " "))


def heading(column: str) -> str:
    """`p99 latency ms`, `params M`, `top-1 %`: a column in a reader's words, and the unit shown."""
    shown = "%" if judged_columns()[column].unit == "%" else _unit(column).symbol if _unit(column) is not RATIO else ""
    return f"{called(column)} {shown}".strip()


def number(of: Estimate) -> str:
    """A figure with its interval, without its unit: `39 ±3`; `≥ 4.09` of one that is a lower bound."""
    bound = units.AT_LEAST if of.at_least and of.value is not None else ""
    judged, unit = judged_columns()[of.column], _unit(of.column)
    if of.column in _DECIMALS:
        return bound + fixed(of.value, unit, _DECIMALS[of.column])
    if judged.kind == "whole" and judged.unit != "B":
        return bound + fixed(of.value, RATIO, 0)
    return bound + figure(of.value, unit, of.low, of.high)


def quantity(column: str, value: float) -> str:
    """One value with its unit: `110 ms`, `74.8 %`."""
    unit = heading(column).removeprefix(called(column)).strip()
    return f"{number(Estimate(column=column, value=value))} {unit}".strip()


def ratio(of: Margin) -> str:
    """`1.64x`, with its interval where there is one."""
    text = figure(of.ratio, RATIO, of.low, of.high)
    value, _, interval = text.partition(" ")
    return f"{value}x {interval}".strip()


def difference(of: Margin, better: Estimate, worse: Estimate) -> str:
    """How far `worse` is behind: a ratio, or points between two percentages."""
    if judged_columns()[better.column].unit == "%" and better.value is not None and worse.value is not None:
        return f"{abs(better.value - worse.value):.1f} points"
    return ratio(of)


def _unit(column: str) -> Unit:
    return _UNITS.get(column) or _OF_UNIT.get(judged_columns()[column].unit or "", RATIO)


def by_phase(title: str, blocks_of: Callable[[str], Part]) -> tuple[Block, ...]:
    """A section for each phase of which there is something to say; `title` with the phase's name in its braces."""
    return body(section(title.format(name), blocks_of(phase), phase=phase) for phase, name in PHASES.items())


def shared_by(cells: Iterable[CellSummary]) -> frozenset[tuple[str, str]]:
    """Phase, setting and batch size, each where all cells have the same."""
    return frozenset(tabled(cells, PHASE | SETTING | BATCH).shared)


def latency(one: CellSummary) -> str:
    """`12.34 ±0.17`, in milliseconds."""
    return figure(one.rank_latency_s, MS, one.rank_latency_low_s, one.rank_latency_high_s)


def rate(one: CellSummary) -> str:
    """Images per second, with the digits that the interval supports and without it."""
    return rounded(
        one.rank_throughput_img_s, units.IMAGES, one.rank_throughput_low_img_s, one.rank_throughput_high_img_s
    )


def peak(unit: Unit, one: CellSummary) -> str:
    """Of tensors; of a runtime whose memory nobody counts, and marked so, what serving adds to a process."""
    if one.peak_bytes is None and one.process_bytes is not None:
        return f"{fixed(one.process_bytes, unit, 0 if unit is MIB else 2)} (process)"
    return fixed(one.peak_bytes, unit, 0 if unit is MIB else 2)


_FIGURES: CellColumns = {
    ">Latency ms": latency,
    ">img/s": rate,
    "Verdict": lambda one: one.verdict_label,
    ">Top-1 %": lambda one: fixed(one.top1, RATIO, 1),
    ">Params M": lambda one: fixed(one.params, MILLION, 2),
    ">GMACs": lambda one: one.gmacs,
    ">Peak MiB": partial(peak, MIB),
}
"""What matters most first: a narrow screen has no room for the last."""


def results_report(run: RunData) -> Report:
    """A run on one screen: what all rows share, the rows, the fastest of equal ones first, and which comes first."""
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
    sizes = {one.input_size for one in cells}
    options = {one.shared for one in cells if one.shared and not one.shared.startswith("input_size=")}
    alike = (  # what holds for every row
        tabled(cells, PHASE | SETTING | BATCH).shared_words(),
        f"images of {next(iter(sizes))} px" if len(sizes) == 1 and None not in sizes else "",
        f"all with {next(iter(options))}" if len(options) == 1 else "",
    )
    words = ", ".join(filter(None, alike)) or counted(len(cells), "cell")
    left = len(run.cells) - len(cells)
    more = f" {counted(left, 'more cell')} in the report." if left else ""
    return report(
        f"{run.suite.suite}: {run.extent()}",
        f"{words[0].upper()}{words[1:]}.{more}",
        listed(cells, NETWORK | PHASE | SETTING | BATCH | shown, noun="cells"),
        _which_one(run),
        shared=shared_by(cells),
    )


def main_point(run: RunData) -> list[CellSummary]:
    """The cells of the phase, setting and batch size that most networks were measured at; of equal ones the first."""
    points = Counter(_point(one) for one in run.cells if one.is_usable) or Counter(map(_point, run.cells))
    best = max(points, key=lambda at: (points[at], at[0] == "inference", -run.settings[at[1]], -at[2]))
    return [one for one in run.cells if _point(one) == best]


def _point(one: CellSummary) -> tuple[str, str, int]:
    return one.phase, one.setting_label, one.batch_size


def _which_one(run: RunData) -> Iterator[str]:
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


def networks(run: RunData) -> Section | None:
    """What is known of each network without timing it: counted, or published."""
    each = list({(one.variant, one.input_size): one for one in run.cells}.values())
    each.sort(key=lambda one: (one.macs or 0, one.variant))
    columns: CellColumns = {
        **NETWORK,
        "Family": lambda one: units.shortened(one.family or NULL),
        ">Image px": lambda one: NULL if one.input_size is None else str(one.input_size),
        ">Params M": lambda one: fixed(one.params, MILLION, 2),
        ">GMACs": lambda one: one.gmacs,
        ">Activations M": lambda one: fixed(one.activations, MILLION, 1),
        ">Weights MiB": lambda one: fixed(one.weight_bytes, MIB, 1),
        ">Top-1 %": lambda one: fixed(one.top1, RATIO, 1),
    }
    return section("Networks", listed(each, columns, noun="networks", caption="The networks"))


def phase_sections(run: RunData) -> tuple[Block, ...]:
    """A section for each phase in which something was measured."""
    # What was switched off beforehand or cannot run here has no place among figures; `failures` lists it.
    cells = [one for one in run.cells if one.status not in ("unsupported", "skipped")]
    return by_phase("{}", lambda phase: _phase_blocks(run, phase, [one for one in cells if one.phase == phase]))


def _phase_blocks(run: RunData, phase: str, cells: list[CellSummary]) -> tuple[Block, ...]:
    reserved = any(one.peak_reserved_bytes is not None for one in cells)
    unit = units.memory_unit(one.peak_bytes for one in cells if one.peak_bytes is not None)
    sizes = Counter(one.input_size for one in cells if one.input_size is not None)
    usual = sizes.most_common(1)[0][0] if sizes else None

    def name(one: CellSummary) -> str:
        odd_size = one.input_size not in (None, usual) and f"input_size={one.input_size}" not in one.variant
        return f"{one.network} ({one.input_size} px)" if odd_size else one.network

    def percentile(share: int, one: CellSummary) -> str:
        return rounded(one.percentile_s(share), MS)

    columns: CellColumns = {
        "Network": name,
        **SETTING | BATCH,
        ">Step ms" if phase == "training" else ">Latency ms": latency,
        **{f">p{share} ms": partial(percentile, share) for share in sorted(run.suite.percentiles)},
        ">img/s": rate,
        f">Peak {unit.symbol}": partial(peak, unit),
        "Verdict": lambda one: one.verdict_label,
    }
    note = (
        f"One {_STEPS[phase]} of the whole batch: synchronised for the latency, back to back for the rate. Among rows "
        "of equal setting and batch size the fastest stands first. Peak: memory "
        f"{'held by the allocator' if reserved else 'of live tensors'}"
        + (f"; {_PROCESS}." if any(one.is_converted for one in cells) else ".")
        + ("" if usual is None else f" Images are {usual} x {usual} unless the network's name says otherwise.")
    )
    title = PHASES[phase]
    ranked = sorted(
        cells,
        key=lambda one: (
            run.settings[one.setting_label],
            one.batch_size,
            one.verdict == "invalid",
            one.rank_latency_s or math.inf,
            one.variant,
        ),
    )
    if len(cells) <= _ONE_TABLE:
        tables = body(listed(ranked, columns, noun="cells", caption=title))
    else:
        each = grouped(ranked, lambda one: f"{title}: {one.setting_label}").items()
        tables = body(
            section(name, listed(members, columns, noun="cells", caption=name), phase=phase) for name, members in each
        )
    return body(note, tables) if tables else ()


def stage_times(run: RunData) -> Section | None:
    """The largest stages of each profiled cell; `None` where none was profiled."""
    tables = {one.cell_id: one for one in reversed(run.profiles)}  # of each cell the first

    def largest(one: CellSummary) -> str:
        stages = sorted(tables[one.cell_id].stages, key=lambda stage: -stage.share)[:_STAGES]
        return ", ".join(f"{stage.path} {units.percent(stage.share)}" for stage in stages) or NULL

    columns: CellColumns = {
        **NETWORK | SETTING | PHASE | BATCH,
        ">Step ms": lambda one: figure(tables[one.cell_id].step_s, MS),
        "Largest stages": largest,
        ">Of roofline": lambda one: of_ceiling(tables[one.cell_id].whole),
    }
    profiled = [one for one in run.cells if one.cell_id in tables]
    return section(
        "Where the time goes",
        listed(profiled, columns, noun="cells", caption="Where the time goes, by stage"),
        note="From a profile of its own, of the first round: shares of the observed step, backward pass included. "
        "The whole tables are in `profile/`; `archbench profile NETWORK` shows every module.",
    )


def training_memory(run: RunData) -> Section | None:
    """Peaks of training, the least first among equal settings and batches; `None` where no training was measured."""
    inference = {_place(one): one.peak_bytes for one in run.cells if one.phase == "inference" and one.status == "ok"}
    trained = [one for one in run.cells if one.phase == "training" and (one.peak_bytes or one.status == "oom")]
    # Out of memory is more than any peak.
    trained.sort(
        key=lambda one: (run.settings[one.setting_label], one.batch_size, one.peak_bytes or math.inf, one.variant)
    )

    def over_inference(one: CellSummary) -> float | None:
        other = inference.get(_place(one))
        return one.peak_bytes / other if one.peak_bytes and other else None

    def state(one: CellSummary) -> float | None:
        return None if one.weight_bytes is None else _STATE * one.weight_bytes / (1 + (one.precision in _HALVED))

    def an_image(one: CellSummary) -> float | None:
        held = state(one)
        return None if one.peak_bytes is None or held is None else max(0, one.peak_bytes - held) / one.batch_size

    columns: CellColumns = {
        **NETWORK | SETTING | BATCH,
        ">Training MiB": lambda one: one.status if one.peak_bytes is None else whole(one.peak_bytes, MIB),
        ">of it state MiB": lambda one: whole(state(one), MIB),
        ">MiB an image": lambda one: figure(an_image(one), MIB),
        ">Inference MiB": lambda one: whole(inference.get(_place(one)), MIB),
        ">Training / inference": lambda one: figure(over_inference(one), RATIO),
    }
    return section(
        "Memory in training",
        listed(trained, columns, noun="cells", caption="Peak memory of a training step"),
        note="Peak of one step, the least first among equal settings and batch sizes. State is weights, gradients and "
        "momentum, which do not grow with the batch; the rest over the batch size is what an image needs: activations "
        "kept for the backward pass, and their gradients. Inference: the same setting and batch size.",
        phase="training",
    )


def _place(one: CellSummary) -> tuple[str, int | None, int, Toggles, int | None]:
    return (one.variant, one.input_size, one.batch_size, one.toggles, one.threads)
