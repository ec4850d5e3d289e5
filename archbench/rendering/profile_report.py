"""A profile as a report of its own, with pictures: what `archbench profile --html` writes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from archbench.choose.profile_difference import difference
from archbench.model.profile import ModuleProfile, Profile, Roofline, StepPart
from archbench.model.units import GIGA, MS, figure, percent, plain
from archbench.rendering.content import Part, Picture, Report, Table, bullets, fold, report, section
from archbench.rendering.drawing import Spec, called, chart, layer, log_axis, names, number, word
from archbench.rendering.profile_findings import compiled_line
from archbench.rendering.profile_memory import BAR, HEIGHT, gradient_section, memory_section
from archbench.rendering.profile_screen import (
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

_SHOWN_MODULES = 400
"""Rows of the table of all modules; deeper networks have their deepest levels left out."""
_ROW = 22
"""Pixels of one level of the map of modules."""
_DEEPEST = 4
"""Levels of modules below the network that are still wide enough to see."""
_NARROWEST = 0.002
"""Share of the step below which a module is a hair's breadth, and left out."""
_LABELLED = 0.05
"""Share of the step from which a module's name fits on it."""
_LETTER_SHARE = 0.0105
"""A letter's width as a share of the picture's."""
_LABEL: Spec = {"baseline": "middle", "fontSize": 11}


def profile_report(profile: Profile, against: Profile | None = None) -> Report:
    """All that a profile says, in the order in which it is read; of two, first where their difference comes from."""
    label = profile_label(profile)
    if against is None:
        return report(f"Profile of {label}", _all_of(profile))
    other, found = profile_label(against), difference(profile, against)
    line = (
        f"A is {label}: {figure(found.base_s, MS)} ms a step. B is {other}: {figure(found.other_s, MS)} ms. "
        f"The rows add up to the whole difference, {figure(found.change_s, MS)} ms."
    )
    return report(
        f"Profile of {label} against {other}",
        section("Where the difference comes from", line, difference_table(profile, against, found)),
        section(label, _all_of(profile, "a-")),
        section(other, _all_of(against, "b-")),
    )


def _all_of(profile: Profile, prefix: str = "") -> Part:
    """`prefix` goes before the names of pictures, so that two profiles fit on one page."""
    compiled = profile.compiled
    return (
        f"On {machine_words(profile)}: {step_words(profile)}. {verdict_words(profile)}.",
        findings_said(profile),
        section("Time", _time(profile, prefix)),
        section("Roofline", _roofline(profile.roofline, prefix) if profile.roofline else None),
        section(
            "Operators",
            operator_table(profile.operators, "Operators by their own time"),
            operator_table(profile.kernels, "Kernels") if profile.operators else None,
        ),
        section("Compiled", f"{compiled_line(compiled)}.", operator_table(compiled.kernels, "Compiled kernels"))
        if compiled
        else None,
        memory_section(profile, prefix),
        gradient_section(profile.gradients, prefix),
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
        alt = "A bar for each stage of the network, and for the loss and the optimizer: its time forward and backward."
        yield Picture(name=f"{prefix}stages", title="Time by stage", alt=alt, spec=_stage_times(profile))
    alt = "Each module as wide as its share of the step, below the module that it is in."
    yield Picture(name=f"{prefix}modules", title="Time by module", alt=alt, spec=_module_map(profile))
    yield _modules([*profile.modules[:1], *profile.stage_rows], profile, "Stages")
    deepest = max((row.depth for row in profile.modules), default=0)
    while deepest > 1 and sum(row.depth <= deepest for row in profile.modules) > _SHOWN_MODULES:
        deepest -= 1
    rows = [row for row in profile.modules if row.depth <= deepest]
    yield fold(f"All {len(rows)} modules", _modules(rows, profile, "Modules"))


def _modules(rows: Sequence[ModuleProfile], profile: Profile, caption: str) -> Table:
    lines = [
        Line(row.path or profile.network, row.kind, row.depth, row, row.forward_s, row.backward_s, row.share)
        for row in rows
    ]
    return module_table(lines, profile, caption)


def _roofline(found: Roofline, prefix: str) -> Iterator[Part]:
    ridge = f"{plain(found.ridge)} FLOP per byte"
    yield (
        f"Measured ceilings: {figure(found.peak_flops, GIGA)} GFLOP/s by a matrix product or convolution, "
        f"{figure(found.bandwidth, GIGA)} GB/s by a large copy. Left of {ridge} memory is the limit, right of it "
        "arithmetic. What does more than they allow says why: a cache served what is counted as moved, or the ceiling "
        "is under-measured, by a busy machine or for a kernel that needs fewer FLOP than are counted."
    )
    if found.points:
        alt = "FLOP per second over FLOP per byte, on logarithmic axes, below the device's two measured ceilings."
        yield Picture(name=f"{prefix}roofline", title="Roofline", alt=alt, spec=_roofline_chart(found))
    if found.device_busy_s is not None and found.launch_gap_s is not None:
        busy, waited = figure(found.device_busy_s, MS), figure(found.launch_gap_s, MS)
        yield f"Of a step the device computed for {busy} ms and waited for the host for {waited} ms."
    if found.host_s is not None:
        yield f"Outside of operators (Python, dispatch) a step spends {figure(found.host_s, MS)} ms."


def _module_map(profile: Profile) -> str:
    """Each module as wide as its time, below the one it is in: an icicle, read from the top."""
    rows = _laid_out(profile)
    whole = {"domain": [0, 1], "nice": False}
    x = number("from", "Share of the step", axis={"format": "%", "grid": False}, scale=whole)
    y = {"field": "depth", "type": "ordinal", "axis": None, "scale": {"paddingInner": 0.04}}
    tooltip = [
        word("path", "Module"),
        word("kind", "Class"),
        number("time", "Time, ms", format=",.3~f"),
        number("backward", "of it backward, ms", format=",.3~f"),
        number("share", "Of the step", format=".1%"),
    ]
    look = {
        "color": word("stage", legend=None, sort=None),
        "opacity": number("shade", scale=None, legend=None),
        "tooltip": tooltip,
    }
    bars = layer("bar", {"x": x, "x2": {"field": "to"}, "y": y, **look}, stroke="white", strokeWidth=0.5)
    text = layer("text", {"x": x, "y": y, "text": word("label")}, align="left", dx=4, **_LABEL)
    levels = 1 + max((row["depth"] for row in rows), default=0)
    return chart([bars, text], _ROW * levels, data={"values": rows})


def _stage_times(profile: Profile) -> str:
    """A bar for each stage and for what belongs to none, forward and backward side by side in it."""
    rows: list[Spec] = []
    named: list[tuple[str, ModuleProfile | StepPart]] = [(row.path, row) for row in profile.stage_rows]
    for order, (name, one) in enumerate([*named, *((part.name, part) for part in profile.parts)]):
        first = "forward" if one.backward_s or not isinstance(one, StepPart) else "outside"
        for way, seconds in ((first, one.forward_s), ("backward", one.backward_s)):
            if seconds and one.share >= _NARROWEST:
                rows.append({"name": name, "order": order, "way": way, "time": seconds / MS.size, "share": one.share})
    ways = [way for way in ("forward", "backward", "outside") if any(row["way"] == way for row in rows)]
    encoding = {
        "x": number("time", "Time, ms", stack="zero"),
        "y": word("name", sort={"field": "order", "op": "min"}, axis={"title": None}),
        "color": word("way", scale={"domain": ways}, legend={"title": None}),
        "order": word("way", sort="descending"),
        "tooltip": [
            word("name", "Stage"),
            word("way", "Pass"),
            number("time", "Time, ms", format=",.3~f"),
            number("share", "Both, of the step", format=".1%"),
        ],
    }
    return chart([layer("bar", encoding)], BAR, data={"values": rows})


def _roofline_chart(found: Roofline) -> str:
    points = [
        {
            "name": point.name,
            "intensity": point.intensity,
            "flops": point.achieved_flops / GIGA.size,
            "share": percent(point.share) if point.share <= 1 else "more than it allows",
            "time": point.time_share,
            "what": "whole network" if point.name == "all" else "stage",
        }
        for point in found.points
    ]
    reach = [*(point.intensity for point in found.points), found.ridge]
    left, right = min(reach) / 2, max(reach) * 2
    slopes = left * found.bandwidth / GIGA.size
    heights = [point.achieved_flops / GIGA.size for point in found.points]
    low, high = min(slopes, *(height / 2 for height in heights)), max(found.peak_flops / GIGA.size, *heights) * 2
    x = number("intensity", "Arithmetic intensity, FLOP per byte", **log_axis("x"))
    y = number("flops", "GFLOP/s", **log_axis("y"))
    x["scale"], y["scale"] = ({"type": "log", "nice": False, "domain": ends} for ends in ([left, right], [low, high]))
    kinds: Spec = {"scale": {"domain": ["stage", "whole network"]}, "legend": {"title": None}}
    dots = layer(
        "point",
        {
            "x": x,
            "y": y,
            "color": word("what", **kinds),
            "shape": word("what", **kinds),
            "size": number("time", legend=None, scale={"range": [40, 260], "domain": [0, 1]}),
            "tooltip": [
                word("name", "Stage"),
                number("intensity", "FLOP per byte", format=",.3~r"),
                number("flops", "GFLOP/s", format=",.3~r"),
                word("share", "Of its ceiling"),
                number("time", "Of the step", format=".1%"),
            ],
        },
        filled=True,
        opacity=0.85,
    )
    layers = [*_roof(found, left, right, x, y), dots, {**names(x, y), "transform": called("datum.name", "-datum.time")}]
    return chart(layers, HEIGHT, data={"values": points})


def _roof(found: Roofline, left: float, right: float, x: Spec, y: Spec) -> list[Spec]:
    """The two ceilings between these intensities, each with its name above it, where no point can be."""

    def at(intensity: float, words: str = "") -> Spec:
        flops = min(found.peak_flops, intensity * found.bandwidth) / GIGA.size
        return {"intensity": intensity, "flops": flops, "words": words}

    product, copy = (plain(what / GIGA.size) for what in (found.peak_flops, found.bandwidth))
    labels = (
        (at(found.ridge, f"arithmetic {product} GFLOP/s"), "left", 6),
        (at(math.sqrt(left * found.ridge), f"copy {copy} GB/s"), "right", -6),
    )
    text = {"x": x, "y": y, "text": word("words")}
    roof = [at(left), at(found.ridge), at(right)]
    return [
        layer("line", {"x": x, "y": y}, data=roof, strokeWidth=2, color="gray"),
        *(layer("text", text, data=[row], align=align, dx=dx, dy=-11, **_LABEL) for row, align, dx in labels),
    ]


def _laid_out(profile: Profile) -> list[Spec]:
    """Rectangles of the modules that are wide enough: children from the left edge of their parent, in call order."""
    step = profile.observed_step_s
    begins: dict[str, float] = {}
    used: dict[str, float] = {}
    rows: list[Spec] = []
    for module in profile.modules:
        parent, _, own_name = module.path.rpartition(".")
        width = module.total_s / step if step else 0.0
        start = begins.get(parent, 0.0) + used.get(parent, 0.0) if module.path else 0.0
        begins[module.path] = start
        used[module.path] = 0.0
        if module.path:
            used[parent] = used.get(parent, 0.0) + width
        if width >= _NARROWEST and module.depth <= _DEEPEST:
            what = {
                "path": module.path or profile.network,
                "kind": module.kind,
                "stage": module.stage or "",
                "depth": module.depth,
                "shade": 0.75 if module.depth % 2 else 0.55,
            }
            rows.append({**what, **_rectangle(own_name or profile.network, module, start, width)})
    left = profile.modules[0].total_s / step if step and profile.modules else 0.0
    for part in profile.parts:
        width = part.total_s / step if step else 0.0
        if width >= _NARROWEST:
            what = {"path": part.name, "kind": "no module", "stage": part.name, "depth": 0, "shade": 0.55}
            rows.append({**what, **_rectangle(part.name, part, left, width)})
        left += width
    return rows


def _rectangle(name: str, of: ModuleProfile | StepPart, start: float, width: float) -> Spec:
    return {
        "from": start,
        "to": start + width,
        "share": width,
        "time": of.total_s / MS.size,
        "backward": (of.backward_s or 0.0) / MS.size,
        "label": name if width >= _LABELLED and len(name) * _LETTER_SHARE < width else "",
    }
