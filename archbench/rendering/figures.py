"""The figures themselves: counted, timed (a table a phase, fastest first), by stage, and the memory of training."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from archbench.choose.cell_summary import CellSummary
from archbench.model.axes import Toggles
from archbench.model.profile import StageProfile
from archbench.model.units import (
    IMAGES,
    MIB,
    MILLION,
    MS,
    NULL,
    RATIO,
    figure,
    fixed,
    memory_unit,
    percent,
    rounded,
    shortened,
    whole,
)
from archbench.rendering.content import Block, Paragraph, Section, listed, tabled
from archbench.rendering.profile_findings import of_ceiling
from archbench.rendering.run_data import RunData

PHASES = {"inference": "Inference", "training": "Training"}
_STAGES = 3
_STATE = 3
"""Copies of the parameters in a step of SGD with momentum: weights, gradients, momentum."""
_HALVED = ("bf16", "fp16")
"""Precisions to which a whole model is converted, its state with it; `weight_bytes` is that of fp32."""
_ONE_TABLE = 30
"""Rows beyond which a phase has a table for each setting."""
_STEPS = {"inference": "forward pass", "training": "training step"}


CellColumns = dict[str, Callable[[CellSummary], str]]
NETWORK: CellColumns = {"Network": lambda one: one.network}
SETTING: CellColumns = {"Setting": lambda one: one.setting_label}
PHASE: CellColumns = {"Phase": lambda one: one.phase}
BATCH: CellColumns = {">Batch": lambda one: str(one.batch_size)}
"""Columns that say which cell a row is of."""


def by_phase(title: str, blocks_of: Callable[[str], Sequence[Block]]) -> list[Section]:
    """A section for each phase of which there is something to say; `title` with the phase's name in its braces."""
    found = {phase: tuple(blocks_of(phase)) for phase in PHASES}
    return [
        Section(title=title.format(PHASES[phase]), blocks=blocks, phase=phase)
        for phase, blocks in found.items()
        if blocks
    ]


def shared_by(cells: Iterable[CellSummary]) -> frozenset[tuple[str, str]]:
    """Phase, setting and batch size, each where all cells have the same."""
    return frozenset(tabled(cells, PHASE | SETTING | BATCH).shared)


def networks(run: RunData) -> Section:
    """What is known of each network without timing it: counted, or published."""
    each = list({(one.variant, one.input_size): one for one in run.cells}.values())
    each.sort(key=lambda one: (one.macs or 0, one.variant))
    columns: CellColumns = {
        **NETWORK,
        "Family": lambda one: shortened(one.family or NULL),
        ">Image px": lambda one: NULL if one.input_size is None else str(one.input_size),
        ">Params M": lambda one: fixed(one.params, MILLION, 2),
        ">GMACs": lambda one: one.gmacs,
        ">Activations M": lambda one: fixed(one.activations, MILLION, 1),
        ">Weights MiB": lambda one: fixed(one.weight_bytes, MIB, 1),
        ">Top-1 %": lambda one: fixed(one.top1, RATIO, 1),
    }
    return Section(title="Networks", blocks=tuple(listed(each, columns, noun="networks", caption="The networks")))


def phase_sections(run: RunData) -> list[Section]:
    """A section for each phase in which something was measured."""
    sections = []
    for phase in PHASES:
        # What was switched off beforehand or cannot run here has no place among figures; `failures` lists it.
        cells = [one for one in run.cells if one.phase == phase and one.status not in ("unsupported", "skipped")]
        if cells:
            sections.append(_phase_section(run, phase, cells))
    return sections


def _phase_section(run: RunData, phase: str, cells: list[CellSummary]) -> Section:
    # What the allocator held, as on a GPU, or else the live tensors alone.
    reserved = any(one.peak_reserved_bytes is not None for one in cells)
    peaks = {one.cell_id: one.peak_reserved_bytes if reserved else one.peak_allocated_bytes for one in cells}
    unit = memory_unit(peak for peak in peaks.values() if peak is not None)
    sizes = Counter(one.input_size for one in cells if one.input_size is not None)
    usual = sizes.most_common(1)[0][0] if sizes else None

    def name(one: CellSummary) -> str:
        odd_size = one.input_size not in (None, usual) and f"input_size={one.input_size}" not in one.variant
        return f"{one.network} ({one.input_size} px)" if odd_size else one.network

    columns: CellColumns = {
        "Network": name,
        **SETTING,
        **BATCH,
        ">Step ms" if phase == "training" else ">Latency ms": latency,
        **percentile_columns(run.suite.percentiles),
        ">img/s": rate,
        f">Peak {unit.symbol}": lambda one: fixed(peaks[one.cell_id], unit, 0 if unit is MIB else 2),
        "Verdict": lambda one: one.verdict_label,
    }
    note = Paragraph(
        f"One {_STEPS[phase]} of the whole batch: synchronised for the latency, back to back for the rate. Among rows "
        "of equal setting and batch size the fastest stands first. Peak: memory "
        f"{'held by the allocator' if reserved else 'of live tensors'}."
        + ("" if usual is None else f" Images are {usual} x {usual} unless the network's name says otherwise.")
    )
    title = PHASES[phase]
    by_setting: dict[str, list[CellSummary]] = {label: [] for label in run.settings}
    for one in sorted(
        cells, key=lambda one: (one.batch_size, one.verdict == "invalid", one.rank_latency_s or math.inf, one.variant)
    ):
        by_setting[one.setting_label].append(one)
    if len(cells) <= _ONE_TABLE:
        ranked = [one for members in by_setting.values() for one in members]
        blocks: list[Block] = listed(ranked, columns, noun="cells", caption=title)
    else:
        tables = ((f"{title}: {label}", members) for label, members in by_setting.items() if members)
        blocks = [
            Section(title=name, blocks=tuple(listed(members, columns, noun="cells", caption=name)), phase=phase)
            for name, members in tables
        ]
    return Section(title=title, blocks=(note, *blocks), phase=phase)


def percentile_columns(asked: tuple[int, ...]) -> CellColumns:
    """A column for each percentile of the latency that a suite asks for."""
    return {f">p{percent} ms": partial(_percentile, percent) for percent in sorted(asked)}


def _percentile(percent: int, one: CellSummary) -> str:
    return rounded(one.percentile_s(percent), MS)


def latency(one: CellSummary) -> str:
    """`12.34 ±0.17`, in milliseconds."""
    return figure(one.rank_latency_s, MS, one.rank_latency_low_s, one.rank_latency_high_s)


def rate(one: CellSummary) -> str:
    """Images per second, with the digits that the interval supports and without it."""
    return rounded(one.rank_throughput_img_s, IMAGES, one.rank_throughput_low_img_s, one.rank_throughput_high_img_s)


def stage_times(run: RunData) -> Section | None:
    """The largest stages of each profiled cell; `None` where none was profiled."""
    tables: dict[str, StageProfile] = {}
    for one in run.profiles:
        tables.setdefault(one.cell_id, one)
    columns: CellColumns = {
        **NETWORK,
        **SETTING,
        **PHASE,
        **BATCH,
        ">Step ms": lambda one: figure(tables[one.cell_id].step_s, MS),
        "Largest stages": lambda one: _largest_stages(tables[one.cell_id]),
        ">Of roofline": lambda one: of_ceiling(tables[one.cell_id].whole),
    }
    profiled = [one for one in run.cells if one.cell_id in tables]
    blocks = listed(profiled, columns, noun="cells", caption="Where the time goes, by stage")
    if not blocks:
        return None
    note = Paragraph(
        "From a profile of its own, of the first round: shares of the observed step, backward pass included. "
        "The whole tables are in `profile/`; `archbench profile NETWORK` shows every module."
    )
    return Section(title="Where the time goes", blocks=(note, *blocks))


def _largest_stages(profile: StageProfile) -> str:
    largest = sorted(profile.stages, key=lambda stage: -stage.share)[:_STAGES]
    return ", ".join(f"{stage.path} {percent(stage.share)}" for stage in largest) or NULL


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

    columns: CellColumns = {
        **NETWORK,
        **SETTING,
        **BATCH,
        ">Training MiB": lambda one: one.status if one.peak_bytes is None else whole(one.peak_bytes, MIB),
        ">of it state MiB": lambda one: whole(_state_bytes(one), MIB),
        ">MiB an image": lambda one: figure(_image_bytes(one), MIB),
        ">Inference MiB": lambda one: whole(inference.get(_place(one)), MIB),
        ">Training / inference": lambda one: figure(over_inference(one), RATIO),
    }
    blocks = listed(trained, columns, noun="cells", caption="Peak memory of a training step")
    if not blocks:
        return None
    note = Paragraph(
        "Peak of one step, the least first among equal settings and batch sizes. State is weights, gradients and "
        "momentum, which do not grow with the batch; the rest over the batch size is what an image needs: activations "
        "kept for the backward pass, and their gradients. Inference: the same setting and batch size."
    )
    return Section(title="Memory in training", blocks=(note, *blocks), phase="training")


def _state_bytes(one: CellSummary) -> float | None:
    return None if one.weight_bytes is None else _STATE * one.weight_bytes / (1 + (one.precision in _HALVED))


def _image_bytes(one: CellSummary) -> float | None:
    peak, state = one.peak_bytes, _state_bytes(one)
    return None if peak is None or state is None else max(0, peak - state) / one.batch_size


def _place(one: CellSummary) -> tuple[str, int | None, int, Toggles, int | None]:
    return (one.variant, one.input_size, one.batch_size, one.toggles, one.threads)
