"""A profile on one screen: the tree of modules with what is folded summed up, and the roofline drawn in letters."""

from __future__ import annotations

import math
from collections.abc import Sequence

from archbench.choose.profile_difference import difference
from archbench.model.profile import ModuleProfile, Profile, Roofline, RooflinePoint
from archbench.model.reasons import LOWER_BOUND
from archbench.model.units import AT_LEAST, GIGA, MIB, MILLION, MS, figure, percent, plain, shortened
from archbench.rendering.content import Block, Bullets, Code, Paragraph, Report, Section, sections
from archbench.rendering.profile_report import (
    Line,
    difference_table,
    findings_said,
    machine_words,
    module_table,
    operator_table,
    profile_label,
    step_words,
    verdict_words,
)

WIDTH, HEIGHT = 46, 9
"""Letters of the roofline."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_WHOLE = "#"
"""The letter of the whole network."""
_DECADES = 2.5
"""Below the peak that are drawn at least, so that the slope is seen."""


def profile_screen(profile: Profile, *, depth: int | None, stage: str, top: int) -> Report:
    """Header, tree, the first `top` operators, roofline and findings. `depth`, `stage`: see `lines`."""
    compiled = profile.compiled.kernels if profile.compiled is not None else ()
    groups = [
        ("Operators, by their own time", profile.operators),
        ("Kernels", profile.kernels),
        ("Kernels of the compiled step", compiled),
    ]
    roofline = profile.roofline
    return Report(
        title=profile_label(profile),
        lead=(*_header(profile), module_table(lines(profile, depth=depth, stage=stage), profile, "", screen=True)),
        sections=sections(
            *(
                Section(title=title, blocks=(operator_table(found[:top], "", name=shortened),))
                for title, found in groups
                if found and top
            ),
            Section(title="Roofline", blocks=sketch(roofline)) if roofline is not None and roofline.points else None,
            _findings(profile, "Findings"),
            *(Section(title=f"No {part}: {reason}", blocks=()) for part, reason in profile.missing.items()),
        ),
    )


def difference_screen(base: Profile, other: Profile, *, depth: int | None) -> Report:
    """Two profiles side by side, row by row, adding up to the difference of their steps."""
    table = difference_table(base, other, difference(base, other, depth))
    findings = (_findings(one, f"{name}: {profile_label(one)}") for name, one in (("A", base), ("B", other)))
    return Report(
        title=f"A {profile_label(base)}",
        lead=(*_header(base), Paragraph(f"B {profile_label(other)}"), *_header(other), table),
        sections=sections(*findings),
    )


def _header(profile: Profile) -> tuple[Block, ...]:
    peak = profile.memory.measured_peak_bytes if profile.memory else None
    bound = AT_LEAST if LOWER_BOUND in profile.reasons else ""
    return (
        Paragraph(f"on {machine_words(profile)}"),
        Paragraph(verdict_words(profile)),
        Paragraph(
            f"{step_words(profile)}, "
            f"{bound}{figure(profile.macs, GIGA)} GMACs an image, {figure(profile.params, MILLION)} M parameters, "
            f"peak {figure(peak, MIB)} MiB"
        ),
        Paragraph(
            f"modules and parts add up to {figure(profile.attributed_s, MS)} ms "
            f"({percent(profile.attributed_s / profile.step_s - 1, signed=True)}) over {profile.steps} observed steps; "
            f"observing cost {percent(profile.observing_cost, signed=True)}"
        ),
    )


def _findings(profile: Profile, title: str) -> Section | None:
    return Section(title=title, blocks=(Bullets(findings_said(profile)),)) if profile.findings else None


def lines(profile: Profile, *, depth: int | None, stage: str) -> list[Line]:
    """The rows to show: to `depth`, or the stages; `stage` shows one module's inside. What is folded is summed up."""
    rows = profile.modules
    if stage:
        rows = tuple(row for row in rows if row.path == stage or row.path.startswith(f"{stage}."))
    top = rows[0].depth
    shown = {row.path for row in rows if _is_shown(row, profile, depth=depth, top=top, inside=bool(stage))}
    found: list[Line] = []
    for position, row in enumerate(rows):
        if row.path not in shown:
            continue
        label = (row.path.rpartition(".")[2] if row.depth > top else row.path) or profile.network
        found.append(Line(label, row.kind, row.depth - top, row, row.forward_s, row.backward_s, row.share))
        inside = _inside(rows[position + 1 :], row)
        if any(child.path in shown for child in inside):
            found += _folded(row, [child for child in inside if child.depth == row.depth + 1], shown, top, profile)
    if stage:
        return found
    parts = (one for one in profile.parts if one.share >= 0.001)
    return [*_in_order(found), *(Line(p.name, "", 0, None, p.forward_s, p.backward_s, p.share) for p in parts)]


def _is_shown(row: ModuleProfile, profile: Profile, *, depth: int | None, top: int, inside: bool) -> bool:
    if depth is not None:
        return row.depth - top <= depth
    if inside:
        return row.depth - top <= 1
    return row.depth <= 1 or any(stage == row.path or stage.startswith(f"{row.path}.") for stage in profile.stages)


def _inside(following: Sequence[ModuleProfile], row: ModuleProfile) -> list[ModuleProfile]:
    end = next((place for place, other in enumerate(following) if other.depth <= row.depth), len(following))
    return list(following[:end])


def _folded(
    row: ModuleProfile, children: Sequence[ModuleProfile], shown: set[str], top: int, profile: Profile
) -> list[Line]:
    """What the children that are not shown take, and the module's own code: without it the rows would not add up."""
    hidden = [child for child in children if child.path not in shown]
    seen = [child for child in children if child.path in shown]
    rest_s = row.total_s - sum(child.total_s for child in seen)
    if not hidden and rest_s < 0.001 * profile.observed_step_s:
        return []
    forward_s = row.forward_s - sum(child.forward_s for child in seen)
    backward_s = None if row.backward_s is None else row.backward_s - sum(child.backward_s or 0.0 for child in seen)
    label = f"{len(hidden)} more" if hidden else "own code"
    return [Line(label, "", row.depth - top + 1, None, forward_s, backward_s, rest_s / profile.observed_step_s)]


def _in_order(found: list[Line]) -> list[Line]:
    """Each fold behind the last of its siblings."""
    ordered: list[Line] = []
    waiting: list[Line] = []
    for line in found:
        while waiting and waiting[-1].depth > line.depth:
            ordered.append(waiting.pop())
        (ordered if line.row is not None else waiting).append(line)
    return [*ordered, *reversed(waiting)]


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
