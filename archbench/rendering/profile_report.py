"""A profile to read: on one screen of a terminal, and as a page with pictures (`archbench profile --html`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from msgspec import Struct

from archbench.choose.profile_difference import Aligned, Compared, Difference, Share, difference
from archbench.model.counts import AcrossSeeds, GradientHealth, LayerGradient, StageActivation
from archbench.model.profile import (
    CATEGORIES,
    MemoryCategory,
    MemoryHolder,
    ModuleProfile,
    OperatorProfile,
    Profile,
    Roofline,
    SavedBytes,
    StageMemory,
    StepPart,
)
from archbench.model.units import GIGA, MIB, MILLION, MS, NULL, figure, fixed, percent, plain, shortened
from archbench.rendering import profile_charts as charts
from archbench.rendering import profile_words as words
from archbench.rendering.content import Columns, Part, Report, Section, Table, bullets, fold, report, section, tabled

_MOST_OPERATORS = 25
_BAR = 10
"""Characters of a full bar."""
_SHOWN_MODULES = 400
"""Rows of the table of all modules; deeper networks have their deepest levels left out."""
_LEAST = 0.001
"""Share of the step below which what belongs to no module shown has no row."""
_MOST_HOLDERS = 12
_MOST_KINDS = 10
_MOST_LAYERS = 12
_SMALL = 0.002
"""Share of what is kept below which a kind of tensor is not worth a row."""
_MEANINGS: dict[MemoryCategory, str] = {
    "weights": "parameters and buffers",
    "optimizer": "momentum",
    "gradients": "of weights",
    "inputs": "images and labels that lie ready",
    "activations": "results of the forward pass, kept for the backward pass",
    "temporaries": "other tensors: feature maps passing through, gradients of activations",
    "workspace": "inside the operator that ran",
    "unattributed": "of compiled code, which does not say what for",
}


def profile_screen(profile: Profile, *, depth: int | None, stage: str, top: int) -> Report:
    """Header, tree, `top` operators, roofline and findings, or of two the difference. `depth`, `stage`: see `lines`."""
    label = words.profile_label(profile)
    if isinstance(profile, Compared):
        other, other_label = profile.against, words.profile_label(profile.against)
        return report(
            f"A {label}",
            words.header(profile),
            f"B {other_label}",
            words.header(other),
            _differences(profile, other, difference(profile, other, depth)),
            section(f"A: {label}", words.findings_said(profile)),
            section(f"B: {other_label}", words.findings_said(other)),
        )
    groups = {
        "Operators, by their own time": profile.operators,
        "Kernels": profile.kernels,
        "Kernels of the compiled step": profile.compiled.kernels if profile.compiled is not None else (),
    }
    roofline = profile.roofline
    return report(
        label,
        words.header(profile),
        _modules(lines(profile, depth=depth, stage=stage), profile, "", screen=True),
        *(section(title, _operators(found[:top], "", name=shortened)) for title, found in groups.items()),
        section("Roofline", charts.sketch(roofline) if roofline is not None and roofline.points else None),
        section("Findings", words.findings_said(profile)),
        (Section(title=f"No {part}: {reason}", blocks=()) for part, reason in profile.missing.items()),
    )


class Line(Struct, frozen=True):
    """A row of a table of modules: a module, or what is folded beneath one."""

    label: str
    depth: int
    row: ModuleProfile | None
    forward_s: float
    backward_s: float | None
    share: float


def _line(label: str, one: ModuleProfile | StepPart, depth: int = 0) -> Line:
    row = one if isinstance(one, ModuleProfile) else None
    return Line(label, depth, row, one.forward_s, one.backward_s, one.share)


def lines(profile: Profile, *, depth: int | None, stage: str) -> list[Line]:
    """The rows to show: to `depth`, or the stages; `stage` shows one module's inside. What is folded is summed up."""
    children: dict[str, list[ModuleProfile]] = defaultdict(list)
    for row in profile.modules[1:]:
        children[row.path.rpartition(".")[0]].append(row)
    first = next(row for row in profile.modules if row.path == stage)

    def is_shown(row: ModuleProfile) -> bool:
        level = row.depth - first.depth
        if depth is not None:
            return level <= depth
        leads_to_stage = any(one == row.path or one.startswith(f"{row.path}.") for one in profile.stages)
        return level <= 1 or (leads_to_stage and not stage)

    def tree(row: ModuleProfile, label: str) -> Iterator[Line]:
        level, inside = row.depth - first.depth, children[row.path]
        yield _line(label, row, level)
        seen = [child for child in inside if is_shown(child)]
        for child in seen:
            yield from tree(child, child.path.rpartition(".")[2])
        rest_s = row.total_s - sum(child.total_s for child in seen)
        # What is not shown, and the module's own code: without it the rows would not add up.
        if seen and (len(seen) < len(inside) or rest_s >= _LEAST * profile.observed_step_s):
            forward_s = row.forward_s - sum(child.forward_s for child in seen)
            backward_s = row.backward_s
            if backward_s is not None:
                backward_s -= sum(child.backward_s or 0.0 for child in seen)
            label = f"{len(inside) - len(seen)} more" if len(seen) < len(inside) else "own code"
            yield Line(label, level + 1, None, forward_s, backward_s, rest_s / profile.observed_step_s)

    parts = () if stage else (one for one in profile.parts if one.share >= _LEAST)
    return [*tree(first, first.path or profile.network), *(_line(one.name, one) for one in parts)]


def _modules(lines: Iterable[Line], profile: Profile, caption: str, *, screen: bool = False) -> Table:
    """A row for each module or fold; on a `screen` indented as they lie in each other, with a bar for the share."""
    training = profile.cell.phase == "training"

    def figures(text: Callable[[ModuleProfile], str]) -> Callable[[Line], str]:
        return lambda line: "" if line.row is None else text(line.row)

    def bar(line: Line) -> str:
        return "█" * max(round(line.share * _BAR), 0) if line.depth else ""

    kept: Columns[Line] = (
        {">Kept MiB": figures(lambda row: fixed(row.saved_bytes, MIB, 1))}
        if training
        else {">Written MiB": figures(lambda row: fixed(row.activation_bytes, MIB, 1))}
    )
    backward: Columns[Line] = {">Backward ms": lambda line: fixed(line.backward_s, MS, 2)}
    columns: Columns[Line] = {
        "Module": lambda line: "  " * (line.depth if screen else 0) + line.label,
        "Class": figures(lambda row: row.kind),
        ">Calls": figures(lambda row: str(row.calls or "")),
        ">Forward ms": lambda line: fixed(line.forward_s, MS, 2),
        **(backward if training else {}),
        ">Share": lambda line: f"{100 * line.share:.1f} %",
        **({"": bar} if screen else {}),
        ">Params M": figures(lambda row: fixed(row.params, MILLION, 2)),
        ">GMACs": figures(lambda row: fixed(row.macs, GIGA, 3)),
        **kept,
        ">Moved MiB": figures(lambda row: fixed(row.bytes_moved, MIB, 1)),
        ">FLOP/byte": figures(lambda row: plain(row.intensity)),
        ">GFLOP/s": figures(lambda row: figure(row.achieved_flops, GIGA) if row.flops else NULL),
        ">Of roofline": figures(lambda row: words.of_ceiling(row, profile)),
    }
    return tabled(lines, columns, caption)


def _operators(found: Sequence[OperatorProfile], caption: str, name: Callable[[str], str] = str) -> Table:
    """A row for each operator or kernel, the first of them; `name` shortens long ones."""
    columns: Columns[OperatorProfile] = {
        "Name": lambda one: name(one.name),
        "Shapes": lambda one: "; ".join(one.shapes) or NULL,
        ">Calls": lambda one: plain(one.calls) if one.calls % 1 else f"{one.calls:,.0f}",
        ">Self ms": lambda one: fixed(one.self_s, MS, 2),
        ">Share": lambda one: percent(one.share),
        "Bound by": lambda one: one.bound or NULL,
        "Tensor cores": lambda one: {None: NULL, True: "yes", False: "no"}[one.tensor_core],
        "Modules": lambda one: ", ".join(one.modules[:3]) + (", ..." if len(one.modules) > 3 else "") or NULL,
    }
    return tabled(found[:_MOST_OPERATORS], columns, caption)


def _differences(base: Profile, other: Profile, found: Difference) -> Table:
    """Row by row, adding up to the difference of the two steps in the last row."""
    whole = [
        Share(seconds=seconds, macs=one.macs, saved_bytes=one.modules[0].saved_bytes or 0 if one.modules else 0)
        for one, seconds in ((base, found.base_s), (other, found.other_s))
    ]

    def both(heading: str, text: Callable[[Share], str]) -> dict[str, Callable[[Aligned], str]]:
        return {heading.format("A"): lambda row: text(row.base), heading.format("B"): lambda row: text(row.other)}

    kept = both(">{} kept MiB", lambda side: fixed(side.saved_bytes, MIB, 1))
    columns: Columns[Aligned] = {
        found.aligned_by.capitalize(): lambda row: row.name,
        **both("Modules of {}", lambda side: ", ".join(side.names) or NULL),
        **both(">{} ms", lambda side: fixed(side.seconds, MS, 2)),
        ">B - A ms": lambda row: f"{'+' if row.change_s > 0 else ''}{fixed(row.change_s, MS, 2)}",
        ">of the difference": lambda row: f"{round(100 * row.change_s / found.change_s) if found.change_s else 0} %",
        **both(">{} GMACs", lambda side: fixed(side.macs, GIGA, 3)),
        **(kept if base.cell.phase == other.cell.phase == "training" else {}),
    }
    return tabled((*found.rows, Aligned(name="all", base=whole[0], other=whole[1])), columns, "Difference")


def profile_report(profile: Profile, against: Profile | None = None) -> Report:
    """All that a profile says, in the order in which it is read; of two, first where their difference comes from."""
    label = words.profile_label(profile)
    if against is None:
        return report(f"Profile of {label}", _all_of(profile))
    other, found = words.profile_label(against), difference(profile, against)
    line = (
        f"A is {label}: {figure(found.base_s, MS)} ms a step. B is {other}: {figure(found.other_s, MS)} ms. "
        f"The rows add up to the whole difference, {figure(found.change_s, MS)} ms."
    )
    return report(
        f"Profile of {label} against {other}",
        section("Where the difference comes from", line, _differences(profile, against, found)),
        section(label, _all_of(profile, "a-")),
        section(other, _all_of(against, "b-")),
    )


def _all_of(profile: Profile, prefix: str = "") -> Part:
    """`prefix` goes before the names of pictures, so that two profiles fit on one page."""
    kernels, compiled = _operators(profile.kernels, "Kernels"), profile.compiled
    return (
        f"On {words.machine_words(profile)}: {words.step_words(profile)}. {words.verdict_words(profile)}.",
        words.findings_said(profile),
        section("Time", _time(profile, prefix)),
        section("Roofline", _roofline(profile.roofline, prefix) if profile.roofline else None),
        section("Operators", _operators(profile.operators, "Operators by their own time"), kernels)
        if profile.operators
        else None,
        section("Compiled", f"{words.compiled_line(compiled)}.", _operators(compiled.kernels, "Compiled kernels"))
        if compiled
        else None,
        _memory(profile, prefix),
        _gradients(profile.gradients, prefix),
        section("Not in this profile", bullets(*(f"{part}: {why}" for part, why in profile.missing.items()))),
    )


def _time(profile: Profile, prefix: str) -> Iterator[Part]:
    cost = percent(profile.observing_cost, signed=True)
    eager = "" if profile.cell.compile_mode == "off" else "n eager"
    yield (
        f"A{eager} step takes {figure(profile.step_s, MS)} ms unobserved. The times of modules below add up to "
        f"{figure(profile.attributed_s, MS)} ms, means over {profile.steps} observed steps; observing cost {cost}."
    )
    if profile.stages:
        yield charts.time_by_stage(profile, prefix)
    yield charts.time_by_module(profile, prefix)
    deepest = max((row.depth for row in profile.modules), default=0)
    while deepest > 1 and sum(row.depth <= deepest for row in profile.modules) > _SHOWN_MODULES:
        deepest -= 1
    every = [row for row in profile.modules if row.depth <= deepest]
    stages, modules = (
        _modules((_line(row.path or profile.network, row) for row in rows), profile, caption)
        for rows, caption in (([*profile.modules[:1], *profile.stage_rows], "Stages"), (every, "Modules"))
    )
    yield stages
    yield fold(f"All {len(every)} modules", modules)


def _roofline(found: Roofline, prefix: str) -> Iterator[Part]:
    yield (
        f"Measured ceilings: {figure(found.peak_flops, GIGA)} GFLOP/s by a matrix product or convolution, "
        f"{figure(found.bandwidth, GIGA)} GB/s by a large copy. Left of {plain(found.ridge)} FLOP per byte memory is "
        "the limit, right of it arithmetic. What does more than they allow says why: a cache served what is counted as "
        "moved, or the ceiling is under-measured, by a busy machine or for a kernel that needs fewer FLOP than are "
        "counted."
    )
    if found.points:
        yield charts.under_the_roofline(found, prefix)
    if found.device_busy_s is not None and found.launch_gap_s is not None:
        busy, waited = figure(found.device_busy_s, MS), figure(found.launch_gap_s, MS)
        yield f"Of a step the device computed for {busy} ms and waited for the host for {waited} ms."
    if found.host_s is not None:
        yield f"Outside of operators (Python, dispatch) a step spends {figure(found.host_s, MS)} ms."


def _memory(profile: Profile, prefix: str) -> Section | None:
    """The peak by category, what is kept for the backward pass, and what holds the peak; `None` if not followed."""
    timeline = profile.memory
    if timeline is None:
        return None
    peak, kept = timeline.peak, timeline.saved_bytes
    highest = {name: max(getattr(point, name) for point in timeline.points) for name in CATEGORIES}
    categories: Columns[MemoryCategory] = {
        "Category": str,
        ">At the peak, MiB": lambda name: fixed(getattr(peak, name), MIB, 1),
        ">Share": lambda name: percent(getattr(peak, name) / peak.total) if peak.total else NULL,
        ">At most, MiB": lambda name: fixed(highest[name], MIB, 1),
        "What it is": _MEANINGS.__getitem__,
    }
    makers: Columns[SavedBytes] = {
        "Made by": lambda one: one.made_by,
        ">Kept, MiB": lambda one: fixed(one.bytes, MIB, 1),
        ">Share": lambda one: percent(one.bytes / kept),
        ">Tensors": lambda one: str(one.tensors),
        "Needed by the backward pass of": lambda one: ", ".join(one.needed_by),
    }
    stages: Columns[StageMemory] = {
        "Stage": lambda stage: stage.stage or "(no stage)",
        ">Kept for backward, MiB": lambda stage: fixed(stage.saved_bytes or None, MIB, 1),
        ">Alive at the peak, MiB": lambda stage: fixed(stage.peak_bytes, MIB, 1),
    }
    holders: Columns[MemoryHolder] = {
        "Module or parameter": lambda holder: holder.path or NULL,
        "Category": lambda holder: holder.category,
        "Made by": lambda holder: holder.operator or NULL,
        "Shape": lambda holder: "x".join(map(str, holder.shape)) or "scalar",
        "Type": lambda holder: holder.dtype,
        ">MiB": lambda holder: fixed(holder.bytes, MIB, 2),
    }
    told = [one for one in timeline.saved_by_maker[:_MOST_KINDS] if kept and one.bytes >= _SMALL * kept]
    return section(
        "Memory over the step",
        words.memory_line(timeline),
        charts.memory_over_step(timeline, prefix),
        charts.saved_by_operator(timeline, prefix) if kept else None,
        tabled([name for name in CATEGORIES if highest[name]], categories, "Live memory at the peak, by category"),
        timeline.note,
        words.saved_line(timeline, profile.cell.batch_size) if kept else None,
        tabled(told, makers, "Activations kept for the backward pass, by the operator that made them"),
        tabled(timeline.stages, stages, "Memory by stage"),
        fold("The largest tensors at the peak", tabled(timeline.holders[:_MOST_HOLDERS], holders)),
    )


def _gradients(health: GradientHealth | None, prefix: str) -> Section | None:
    """Whether the error reaches the first layers, in a sentence; layers and stages as tables."""
    if health is None:
        return None

    def ends(spread: AcrossSeeds | None) -> str:
        return NULL if spread is None else f"{plain(spread.median)} ({plain(spread.low)} to {plain(spread.high)})"

    def over(layer: LayerGradient) -> str:
        upper, lower = layer.gradient_norm, layer.weight_norm
        return plain(upper.median / lower.median if upper and lower and lower.median else None)

    layers: Columns[LayerGradient] = {
        ">Layer": lambda layer: str(layer.position + 1),
        "Path": lambda layer: layer.path,
        "Kind": lambda layer: layer.kind,
        ">Gradient norm": lambda layer: ends(layer.gradient_norm),
        ">Over weight norm": over,
        ">Gradient of the output, rms": lambda layer: ends(layer.signal_rms),
    }
    stages: Columns[StageActivation] = {
        "Stage": lambda stage: stage.stage,
        ">Mean": lambda stage: NULL if stage.mean is None else plain(stage.mean.median),
        ">Standard deviation": lambda stage: NULL if stage.std is None else plain(stage.std.median),
        ">Zeros": lambda stage: percent(stage.zero_share.median) if stage.zero_share else NULL,
    }
    count = len(health.layers)
    chosen = sorted({round(place * (count - 1) / (_MOST_LAYERS - 1)) for place in range(_MOST_LAYERS)}) if count else []
    told = [health.layers[place] for place in chosen]
    drawable = any(layer.gradient_norm and layer.gradient_norm.low > 0 for layer in health.layers)
    return section(
        "Gradients at initialisation",
        words.gradient_line(health),
        charts.gradients_by_layer(health, prefix) if drawable else None,
        tabled(told, layers, f"Gradients of {len(told)} of {count} weight layers at initialisation"),
        tabled(health.stages, stages, "What comes out of each stage at initialisation"),
    )
