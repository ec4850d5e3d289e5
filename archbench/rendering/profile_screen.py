"""A profile on one screen: the tree of modules with what is folded summed up, and the roofline drawn in letters."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from msgspec import Struct

from archbench.choose.profile_difference import Aligned, Compared, Difference, Share, difference
from archbench.model.profile import ModuleProfile, OperatorProfile, Profile, Roofline, RooflinePoint
from archbench.model.reasons import LOWER_BOUND, explain
from archbench.model.units import (
    AT_LEAST,
    GIGA,
    MIB,
    MILLION,
    MS,
    NULL,
    counted,
    figure,
    fixed,
    percent,
    plain,
    shortened,
)
from archbench.rendering.content import (
    Bullets,
    Code,
    Columns,
    Paragraph,
    Report,
    Section,
    Table,
    bullets,
    report,
    section,
    tabled,
)
from archbench.rendering.profile_findings import of_ceiling

_MOST_OPERATORS = 25
_BAR = 10
"""Characters of a full bar."""

WIDTH, HEIGHT = 46, 9
"""Letters of the roofline."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_WHOLE = "#"
"""The letter of the whole network."""
_DECADES = 2.5
"""Below the peak that are drawn at least, so that the slope is seen."""


def profile_screen(profile: Profile, *, depth: int | None, stage: str, top: int) -> Report:
    """Header, tree, `top` operators, roofline and findings, or of two the difference. `depth`, `stage`: see `lines`."""
    if isinstance(profile, Compared):
        return _difference_screen(profile, profile.against, depth=depth)
    groups = {
        "Operators, by their own time": profile.operators,
        "Kernels": profile.kernels,
        "Kernels of the compiled step": profile.compiled.kernels if profile.compiled is not None else (),
    }
    roofline = profile.roofline
    return report(
        profile_label(profile),
        _header(profile),
        module_table(lines(profile, depth=depth, stage=stage), profile, "", screen=True),
        *(section(title, operator_table(found[:top], "", name=shortened)) for title, found in groups.items()),
        section("Roofline", sketch(roofline) if roofline is not None and roofline.points else None),
        section("Findings", findings_said(profile)),
        (Section(title=f"No {part}: {reason}", blocks=()) for part, reason in profile.missing.items()),
    )


def _difference_screen(base: Profile, other: Profile, *, depth: int | None) -> Report:
    """Two profiles side by side, row by row, adding up to the difference of their steps."""
    return report(
        f"A {profile_label(base)}",
        _header(base),
        f"B {profile_label(other)}",
        _header(other),
        difference_table(base, other, difference(base, other, depth)),
        section(f"A: {profile_label(base)}", findings_said(base)),
        section(f"B: {profile_label(other)}", findings_said(other)),
    )


def _header(profile: Profile) -> Iterator[str]:
    peak = profile.memory.measured_peak_bytes if profile.memory else None
    bound = AT_LEAST if LOWER_BOUND in profile.reasons else ""
    yield f"on {machine_words(profile)}"
    yield verdict_words(profile)
    yield (
        f"{step_words(profile)}, "
        f"{bound}{figure(profile.macs, GIGA)} GMACs an image, {figure(profile.params, MILLION)} M parameters, "
        f"peak {figure(peak, MIB)} MiB"
    )
    yield (
        f"modules and parts add up to {figure(profile.attributed_s, MS)} ms "
        f"({percent(profile.attributed_s / profile.step_s - 1, signed=True)}) over {profile.steps} observed steps; "
        f"observing cost {percent(profile.observing_cost, signed=True)}"
    )


def lines(profile: Profile, *, depth: int | None, stage: str) -> list[Line]:
    """The rows to show: to `depth`, or the stages; `stage` shows one module's inside. What is folded is summed up."""
    children: dict[str, list[ModuleProfile]] = defaultdict(list)
    for row in profile.modules[1:]:
        children[row.path.rpartition(".")[0]].append(row)
    first = next(row for row in profile.modules if row.path == stage)

    def is_shown(row: ModuleProfile) -> bool:
        if depth is not None:
            return row.depth - first.depth <= depth
        leads_to_stage = any(one == row.path or one.startswith(f"{row.path}.") for one in profile.stages)
        return row.depth - first.depth <= 1 or (leads_to_stage and not stage)

    def tree(row: ModuleProfile, label: str) -> Iterator[Line]:
        level, inside = row.depth - first.depth, children[row.path]
        yield Line(label, row.kind, level, row, row.forward_s, row.backward_s, row.share)
        seen = [child for child in inside if is_shown(child)]
        for child in seen:
            yield from tree(child, child.path.rpartition(".")[2])
        rest_s = row.total_s - sum(child.total_s for child in seen)
        # What is not shown, and the module's own code: without it the rows would not add up.
        if seen and (len(seen) < len(inside) or rest_s >= 0.001 * profile.observed_step_s):
            forward_s = row.forward_s - sum(child.forward_s for child in seen)
            backward_s = row.backward_s
            if backward_s is not None:
                backward_s -= sum(child.backward_s or 0.0 for child in seen)
            label = f"{len(inside) - len(seen)} more" if len(seen) < len(inside) else "own code"
            yield Line(label, "", level + 1, None, forward_s, backward_s, rest_s / profile.observed_step_s)

    parts = () if stage else (one for one in profile.parts if one.share >= 0.001)
    return [
        *tree(first, first.path or profile.network),
        *(Line(p.name, "", 0, None, p.forward_s, p.backward_s, p.share) for p in parts),
    ]


def sketch(roofline: Roofline) -> tuple[Paragraph, Code, Paragraph]:
    """FLOP per byte to the right, FLOP per second upwards, both logarithmic: the roof, and a letter for each point."""
    *stages, whole = roofline.points
    largest = sorted(stages, key=lambda point: -point.time_share)[:HEIGHT]
    named = [(_LETTERS[number], point) for number, point in enumerate(p for p in stages if p in largest)]
    marked = [*named, (_WHOLE, whole)]
    ceilings = (
        f"{figure(roofline.peak_flops, GIGA)} GFLOP/s, {figure(roofline.bandwidth, GIGA)} GB/s, "
        f"ridge at {plain(roofline.ridge)} FLOP/byte"
    )
    legend = (
        f"{letter} {point.name}: {figure(point.achieved_flops, GIGA)} GFLOP/s, {percent(point.time_share)} of the step"
        for letter, point in marked
    )
    return Paragraph(ceilings), Code("\n".join(_canvas(roofline, marked))), Paragraph("; ".join(legend))


def _canvas(roofline: Roofline, marked: list[tuple[str, RooflinePoint]]) -> list[str]:
    intensities = [point.intensity for _, point in marked]
    left = math.log10(min([*intensities, roofline.ridge / 4])) - 0.1
    right = math.log10(max([*intensities, roofline.ridge * 4])) + 0.1
    top = math.log10(roofline.peak_flops)
    bottom = min(top - _DECADES, *(math.log10(point.achieved_flops) for _, point in marked))

    def row(flops: float) -> int:
        share = (top - math.log10(flops)) / (top - bottom)
        return min(HEIGHT - 1, max(0, round(share * (HEIGHT - 1))))

    def column(intensity: float) -> int:
        return min(WIDTH - 1, max(0, round((math.log10(intensity) - left) / (right - left) * (WIDTH - 1))))

    cells = [[" "] * WIDTH for _ in range(HEIGHT)]
    for x in range(WIDTH):
        intensity = 10 ** (left + (right - left) * x / (WIDTH - 1))
        height = min(roofline.peak_flops, intensity * roofline.bandwidth)
        if math.log10(height) >= bottom:
            cells[row(height)][x] = "/" if intensity < roofline.ridge else "-"
    # The points with the most time last: where two share a place, the more important is seen.
    for letter, point in sorted(marked, key=lambda pair: pair[1].time_share):
        cells[row(point.achieved_flops)][column(point.intensity)] = letter
    return ["".join(line).rstrip() for line in cells]


def profile_label(profile: Profile) -> str:
    """`resnet50: inference, batch size 1, fp32, eager`."""
    cell = profile.cell
    words = [cell.phase, f"batch size {cell.batch_size}", cell.precision]
    words += [cell.memory_format] if cell.memory_format != "contiguous" else []
    words.append("eager" if cell.compile_mode == "off" else f"compiled ({cell.compile_mode})")
    return f"{profile.network}: {', '.join(words)}"


def findings_said(profile: Profile) -> Bullets:
    """Each finding with its remedy."""
    remedies = (one.remedy and f" {one.remedy[0].upper()}{one.remedy[1:]}." for one in profile.findings)
    return bullets(*(f"{one.text}.{remedy or ''}" for one, remedy in zip(profile.findings, remedies, strict=True)))


def step_words(profile: Profile) -> str:
    """`step 20.1 ms (49.8 img/s)`; of a compiled cell the compiled step, beside the eager one that is taken apart."""

    def timed(seconds: float) -> str:
        return f"{figure(seconds, MS)} ms ({plain(profile.cell.batch_size / seconds)} img/s)"

    if profile.cell.compile_mode == "off":
        return f"step {timed(profile.step_s)}"
    own = "not timed" if profile.cell_step_s is None else timed(profile.cell_step_s)
    return f"compiled step {own}; in eager, of which the modules are: {timed(profile.step_s)}"


def verdict_words(profile: Profile) -> str:
    """`Verdict ok`, or what else with its reasons and remedies."""
    reasons = [(code, explain(code)) for code in profile.reasons]
    told = [
        f"{code}: {reason.meaning}" + (f" ({reason.remedy})" if reason.remedy else "")
        for code, reason in reasons
        if reason.effect in ("invalid", "suspect")
    ]
    unusable = ", not to be used" if profile.verdict == "invalid" else ""
    return f"Verdict {profile.verdict}{unusable}" + (f"; {'; '.join(told)}" if told else "")


def machine_words(profile: Profile) -> str:
    """`Intel Xeon x2, 2 threads`."""
    where = profile.environment.hardware_class if profile.environment else profile.device
    return f"{where}, {counted(profile.threads, 'thread')}" if profile.device == "cpu" else where


def difference_table(base: Profile, other: Profile, found: Difference) -> Table:
    """Row by row, adding up to the difference of the two steps in the last row."""
    kept = base.cell.phase == other.cell.phase == "training"
    whole = [
        Share(seconds=seconds, macs=one.macs, saved_bytes=one.modules[0].saved_bytes or 0 if one.modules else 0)
        for one, seconds in ((base, found.base_s), (other, found.other_s))
    ]

    def both(heading: str, text: Callable[[Share], str]) -> dict[str, Callable[[Aligned], str]]:
        return {heading.format("A"): lambda row: text(row.base), heading.format("B"): lambda row: text(row.other)}

    columns: Columns[Aligned] = {
        found.aligned_by.capitalize(): lambda row: row.name,
        **both("Modules of {}", lambda side: ", ".join(side.names) or NULL),
        **both(">{} ms", lambda side: fixed(side.seconds, MS, 2)),
        ">B - A ms": lambda row: f"{'+' if row.change_s > 0 else ''}{fixed(row.change_s, MS, 2)}",
        ">of the difference": lambda row: f"{round(100 * row.change_s / found.change_s) if found.change_s else 0} %",
        **both(">{} GMACs", lambda side: fixed(side.macs, GIGA, 3)),
        **(both(">{} kept MiB", lambda side: fixed(side.saved_bytes, MIB, 1)) if kept else {}),
    }
    return tabled((*found.rows, Aligned(name="all", base=whole[0], other=whole[1])), columns, "Difference")


class Line(Struct, frozen=True):
    """A row of a table of modules: a module, or what is folded beneath one."""

    label: str
    kind: str
    depth: int
    row: ModuleProfile | None
    forward_s: float
    backward_s: float | None
    share: float


def module_table(lines: Iterable[Line], profile: Profile, caption: str, *, screen: bool = False) -> Table:
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
        "Class": lambda line: line.kind,
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
        ">Of roofline": figures(lambda row: of_ceiling(row, profile)),
    }
    return tabled(lines, columns, caption)


def operator_table(found: Sequence[OperatorProfile], caption: str, name: Callable[[str], str] = str) -> Table:
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
