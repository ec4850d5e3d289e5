"""The pictures of a profile, `prefix` before their names, and its roofline drawn in letters for a terminal."""

from __future__ import annotations

import math

from archbench.model.counts import GradientHealth
from archbench.model.profile import CATEGORIES, MemoryTimeline, ModuleProfile, Profile, Roofline, StepPart
from archbench.model.units import GIGA, MIB, MS, figure, percent, plain
from archbench.rendering.content import Code, Paragraph, Picture
from archbench.rendering.drawing import Spec, called, chart, layer, log_axis, names, number, word

_HEIGHT = 320
"""Pixels of a picture."""
_BAR = {"step": 18}
"""Height of one of bars."""
_HEADROOM = 1.1
"""Of the memory's axis over its peak: room for the peak's figure."""
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

WIDTH, HEIGHT = 46, 9
"""Letters of the roofline in a terminal."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_WHOLE = "#"
"""The letter of the whole network."""
_DECADES = 2.5
"""Below the peak that are drawn at least, so that the slope is seen."""


def time_by_stage(profile: Profile, prefix: str) -> Picture:
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
    return Picture(
        name=f"{prefix}stages",
        title="Time by stage",
        alt="A bar for each stage of the network, and for the loss and the optimizer: its time forward and backward.",
        spec=chart([layer("bar", encoding)], _BAR, data={"values": rows}),
    )


def time_by_module(profile: Profile, prefix: str) -> Picture:
    """Each module as wide as its time, below the one it is in: an icicle, read from the top."""
    rows = _laid_out(profile)
    x = number(
        "from", "Share of the step", axis={"format": "%", "grid": False}, scale={"domain": [0, 1], "nice": False}
    )
    y = {"field": "depth", "type": "ordinal", "axis": None, "scale": {"paddingInner": 0.04}}
    look = {
        "color": word("stage", legend=None, sort=None),
        "opacity": number("shade", scale=None, legend=None),
        "tooltip": [
            word("path", "Module"),
            word("kind", "Class"),
            number("time", "Time, ms", format=",.3~f"),
            number("backward", "of it backward, ms", format=",.3~f"),
            number("share", "Of the step", format=".1%"),
        ],
    }
    bars = layer("bar", {"x": x, "x2": {"field": "to"}, "y": y, **look}, stroke="white", strokeWidth=0.5)
    text = layer("text", {"x": x, "y": y, "text": word("label")}, align="left", dx=4, **_LABEL)
    levels = 1 + max((row["depth"] for row in rows), default=0)
    return Picture(
        name=f"{prefix}modules",
        title="Time by module",
        alt="Each module as wide as its share of the step, below the module that it is in.",
        spec=chart([bars, text], _ROW * levels, data={"values": rows}),
    )


def _laid_out(profile: Profile) -> list[Spec]:
    """Rectangles of the modules that are wide enough: children from the left edge of their parent, in call order."""
    ends: dict[str, float] = {"": 0.0}
    """By path, up to where the module is filled with those inside it."""
    rows: list[Spec] = []

    def place(name: str, one: ModuleProfile | StepPart, start: float, **what: object) -> None:
        if one.share >= _NARROWEST:
            fits = one.share >= _LABELLED and len(name) * _LETTER_SHARE < one.share
            where = {"from": start, "to": start + one.share, "share": one.share}
            times = {"time": one.total_s / MS.size, "backward": (one.backward_s or 0.0) / MS.size}
            rows.append({**what, **where, **times, "label": name if fits else ""})

    for module in profile.modules:
        parent, _, own_name = module.path.rpartition(".")
        start = ends.get(parent, 0.0)
        ends[module.path] = start
        if module.path:
            ends[parent] = start + module.share
        if module.depth <= _DEEPEST:
            look = {"depth": module.depth, "shade": 0.75 if module.depth % 2 else 0.55}
            of = {"path": module.path or profile.network, "kind": module.kind, "stage": module.stage or ""}
            place(own_name or profile.network, module, start, **of, **look)
    left = profile.modules[0].share if profile.modules else 0.0
    for part in profile.parts:
        place(part.name, part, left, path=part.name, kind="no module", stage=part.name, depth=0, shade=0.55)
        left += part.share
    return rows


def under_the_roofline(found: Roofline, prefix: str) -> Picture:
    """The stages and the whole network under the device's two ceilings."""
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
    heights = [point.achieved_flops / GIGA.size for point in found.points]
    low = min(left * found.bandwidth / GIGA.size, *(height / 2 for height in heights))
    high = max(found.peak_flops / GIGA.size, *heights) * 2
    x = number("intensity", "Arithmetic intensity, FLOP per byte", **log_axis("x"))
    y = number("flops", "GFLOP/s", **log_axis("y"))
    x["scale"], y["scale"] = ({"type": "log", "nice": False, "domain": ends} for ends in ([left, right], [low, high]))
    kind = word("what", scale={"domain": ["stage", "whole network"]}, legend={"title": None})
    encoding = {
        "x": x,
        "y": y,
        "color": kind,
        "shape": kind,
        "size": number("time", legend=None, scale={"range": [40, 260], "domain": [0, 1]}),
        "tooltip": [
            word("name", "Stage"),
            number("intensity", "FLOP per byte", format=",.3~r"),
            number("flops", "GFLOP/s", format=",.3~r"),
            word("share", "Of its ceiling"),
            number("time", "Of the step", format=".1%"),
        ],
    }
    dots = layer("point", encoding, filled=True, opacity=0.85)
    named = {**names(x, y), "transform": called("datum.name", "-datum.time")}
    return Picture(
        name=f"{prefix}roofline",
        title="Roofline",
        alt="FLOP per second over FLOP per byte, on logarithmic axes, below the device's two measured ceilings.",
        spec=chart([*_roof(found, left, right, x, y), dots, named], _HEIGHT, data={"values": points}),
    )


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


def memory_over_step(timeline: MemoryTimeline, prefix: str) -> Picture:
    """Live bytes by category, one operator after the other, with the peak and the sections named."""
    rows: list[Spec] = [
        {
            "at": at,
            "category": category,
            "order": order,
            "mib": size / MIB.size,
            "where": point.module,
            "op": point.operator,
        }
        for at, point in enumerate(timeline.points)
        for order, (category, size) in enumerate(zip(CATEGORIES, point.by_category, strict=True))
    ]
    kinds = [c for c in CATEGORIES if any(row["mib"] for row in rows if row["category"] == c)]
    rows = [row for row in rows if row["category"] in kinds]
    last, peak = len(timeline.points), timeline.peak
    # An area ends where its last point is; that point lasts, too.
    rows += [{**row, "at": last} for row in rows if row["at"] == last - 1]
    x = number(
        "at",
        "Operators that changed what is alive, in order",
        axis={"labels": False, "ticks": False, "grid": False},
        scale={"domain": [0, last], "nice": False},
    )
    peak_mib = peak.total / MIB.size
    top = {"domain": [0, peak_mib * _HEADROOM], "nice": False}
    encoding = {
        "x": x,
        "y": number("mib", "Live memory, MiB", stack="zero", scale=top),
        "color": word("category", scale={"domain": kinds}, legend={"title": None}),
        "order": number("order"),
        "tooltip": [
            word("category", "Category"),
            number("mib", "MiB", format=",.1f"),
            word("where", "Module"),
            word("op", "Operator"),
        ],
    }
    sections: list[Spec] = []
    for at, point in enumerate(timeline.points):
        if not sections or sections[-1]["words"] != point.section:
            sections.append({"at": at, "words": point.section})
    begun = {"x": x, "y": {"value": 0}, "text": word("words")}
    at = timeline.points.index(peak)
    mark = [{"at": at, "mib": peak_mib, "words": f"peak {peak_mib:,.0f} MiB"}]
    align, dx = ("right", -8) if at > last * 0.6 else ("left", 8)
    place = {"x": x, "y": number("mib")}
    layers = [
        layer("area", encoding, data=rows, interpolate="step-after"),
        layer("rule", {"x": x}, data=sections, strokeDash=[3, 3], strokeWidth=1),
        layer("text", begun, data=sections, align="left", baseline="bottom", dx=3, dy=-4, fontSize=11),
        layer("point", place, data=mark, filled=True, size=50, color="black"),
        layer("text", {**place, "text": word("words")}, data=mark, align=align, dx=dx, dy=-6, fontSize=11),
    ]
    return Picture(
        name=f"{prefix}memory",
        title="Live memory over the step",
        alt="Live bytes by category, one operator after the other, with the peak marked.",
        spec=chart(layers, _HEIGHT),
    )


def saved_by_operator(timeline: MemoryTimeline, prefix: str) -> Picture:
    """A bar for each kind of operator whose results the backward pass needs."""
    rows = [
        {"made": one.made_by, "mib": mib, "tensors": one.tensors, "needed": ", ".join(sorted(one.needed_by))}
        for one in timeline.saved_by_maker
        if (mib := one.bytes / MIB.size) >= 0.05
    ]
    encoding = {
        "x": number("mib", "Kept for the backward pass, MiB"),
        "y": word("made", sort="-x", axis={"title": None}),
        "tooltip": [
            word("made", "Made by"),
            number("mib", "MiB", format=",.1f"),
            number("tensors", "Tensors"),
            word("needed", "Needed by"),
        ],
    }
    return Picture(
        name=f"{prefix}saved",
        title="What the backward pass needs",
        alt="A bar for each kind of operator: the bytes that it made and that are kept for the backward pass.",
        spec=chart([layer("bar", encoding)], _BAR, data={"values": rows}),
    )


def gradients_by_layer(health: GradientHealth, prefix: str) -> Picture:
    """Two lines over the layers, from the first to the last, with the range over the seeds behind each."""
    rows: list[Spec] = []
    for one in health.layers:
        for what, spread in (("of the weights", one.gradient_norm), ("of the outputs, rms", one.signal_rms)):
            if spread is not None and spread.low > 0:  # a logarithm has no 0
                ends = {"median": spread.median, "low": spread.low, "high": spread.high}
                rows.append({"at": one.position + 1, "path": one.path, "figure": what, **ends})
    x = number("at", "Weight layer, from the input to the output", axis={"format": "d", "tickMinStep": 1})
    colour = word("figure", "Gradient", sort=None, legend={"symbolOpacity": 1})
    log = {"type": "log"}
    band = {"x": x, "y": number("low", scale=log), "y2": {"field": "high"}, "color": colour}
    line = {
        "x": x,
        "y": number("median", "Gradient at initialisation", scale=log, axis={"format": ".0e", "tickCount": 6}),
        "color": colour,
        "tooltip": [
            word("path", "Layer"),
            word("figure", "Gradient"),
            number("median", "Median over seeds", format=".3~e"),
            number("low", "Smallest", format=".3~e"),
            number("high", "Largest", format=".3~e"),
        ],
    }
    layers = [layer("area", band, opacity=0.2), layer("line", line, point={"size": 18})]
    return Picture(
        name=f"{prefix}gradients",
        title="Gradients from the first layer to the last",
        alt="Norms of the weights' gradients and of the gradients that arrive at the layers, on a logarithmic axis.",
        spec=chart(layers, _HEIGHT, data={"values": rows}),
    )


def sketch(roofline: Roofline) -> tuple[Paragraph, Code, Paragraph]:
    """FLOP per byte to the right, FLOP per second upwards, both logarithmic: the roof, and a letter for each point."""
    *stages, whole = roofline.points
    largest = sorted(stages, key=lambda point: -point.time_share)[:HEIGHT]
    marked = [*zip(_LETTERS, (point for point in stages if point in largest), strict=False), (_WHOLE, whole)]
    ceilings = (
        f"{figure(roofline.peak_flops, GIGA)} GFLOP/s, {figure(roofline.bandwidth, GIGA)} GB/s, "
        f"ridge at {plain(roofline.ridge)} FLOP/byte"
    )
    legend = "; ".join(
        f"{letter} {point.name}: {figure(point.achieved_flops, GIGA)} GFLOP/s, {percent(point.time_share)} of the step"
        for letter, point in marked
    )
    intensities = [point.intensity for _, point in marked]
    left = math.log10(min([*intensities, roofline.ridge / 4])) - 0.1
    right = math.log10(max([*intensities, roofline.ridge * 4])) + 0.1
    top = math.log10(roofline.peak_flops)
    bottom = min(top - _DECADES, *(math.log10(point.achieved_flops) for _, point in marked))

    def row(flops: float) -> int:
        return min(HEIGHT - 1, max(0, round((top - math.log10(flops)) / (top - bottom) * (HEIGHT - 1))))

    def column(intensity: float) -> int:
        return min(WIDTH - 1, max(0, round((math.log10(intensity) - left) / (right - left) * (WIDTH - 1))))

    cells = [[" "] * WIDTH for _ in range(HEIGHT)]
    for place in range(WIDTH):
        intensity = 10 ** (left + (right - left) * place / (WIDTH - 1))
        height = min(roofline.peak_flops, intensity * roofline.bandwidth)
        if math.log10(height) >= bottom:
            cells[row(height)][place] = "/" if intensity < roofline.ridge else "-"
    # The points with the most time last: where two share a place, the more important is seen.
    for letter, point in sorted(marked, key=lambda pair: pair[1].time_share):
        cells[row(point.achieved_flops)][column(point.intensity)] = letter
    canvas = "\n".join("".join(line).rstrip() for line in cells)
    return Paragraph(ceilings), Code(canvas), Paragraph(legend)
