"""How the pictures of a profile look, as Vega-Lite has it; colours and fonts belong to the theme of who draws them."""

from __future__ import annotations

import math

from archbench.model.profile import (
    CATEGORIES,
    GradientHealth,
    MemoryTimeline,
    ModuleProfile,
    Profile,
    Roofline,
    StepPart,
)
from archbench.model.units import GIGA, MIB, MS, percent, plain
from archbench.rendering.drawing import Spec, called, chart, layer, log_axis, names, number, word

_HEIGHT = 320
_ROW = 22
"""Pixels of one level of the map of modules."""
_BAR = {"step": 18}
_DEEPEST = 4
"""Levels of modules below the network that are still wide enough to see."""
_NARROWEST = 0.002
"""Share of the step below which a module is a hair's breadth, and left out."""
_LABELLED = 0.05
"""Share of the step from which a module's name fits on it."""
_LETTER_SHARE = 0.0105
"""A letter's width as a share of the picture's."""
_HEADROOM = 1.1
"""Of the memory's axis over its peak: room for the peak's figure."""
_MIB, _MS, _GIGA = MIB.size, MS.size, GIGA.size
_LABEL: Spec = {"baseline": "middle", "fontSize": 11}


def module_map(profile: Profile) -> str:
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


def stage_times(profile: Profile) -> str:
    """A bar for each stage and for what belongs to none, forward and backward side by side in it."""
    rows: list[Spec] = []
    named: list[tuple[str, ModuleProfile | StepPart]] = [(row.path, row) for row in profile.stage_rows]
    for order, (name, one) in enumerate([*named, *((part.name, part) for part in profile.parts)]):
        first = "forward" if one.backward_s or not isinstance(one, StepPart) else "outside"
        for way, seconds in ((first, one.forward_s), ("backward", one.backward_s)):
            if seconds and one.share >= _NARROWEST:
                rows.append({"name": name, "order": order, "way": way, "time": seconds / _MS, "share": one.share})
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
    return chart([layer("bar", encoding)], _BAR, data={"values": rows})


def roofline(found: Roofline) -> str:
    """FLOP/s over FLOP per byte, both logarithmic, under the device's two ceilings."""
    points = [
        {
            "name": point.name,
            "intensity": point.intensity,
            "flops": point.achieved_flops / _GIGA,
            "share": percent(point.share) if point.share <= 1 else "more than it allows",
            "time": point.time_share,
            "what": "whole network" if point.name == "all" else "stage",
        }
        for point in found.points
    ]
    reach = [*(point.intensity for point in found.points), found.ridge]
    left, right = min(reach) / 2, max(reach) * 2
    slopes = left * found.bandwidth / _GIGA
    heights = [point.achieved_flops / _GIGA for point in found.points]
    low, high = min(slopes, *(height / 2 for height in heights)), max(found.peak_flops / _GIGA, *heights) * 2
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
    return chart(layers, _HEIGHT, data={"values": points})


def _roof(found: Roofline, left: float, right: float, x: Spec, y: Spec) -> list[Spec]:
    """The two ceilings between these intensities, each with its name above it, where no point can be."""

    def at(intensity: float, words: str = "") -> Spec:
        flops = min(found.peak_flops, intensity * found.bandwidth) / _GIGA
        return {"intensity": intensity, "flops": flops, "words": words}

    product, copy = (plain(what / _GIGA) for what in (found.peak_flops, found.bandwidth))
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


def memory_over_step(timeline: MemoryTimeline) -> str:
    """Live bytes by category, one operator after the other, with the peak and the sections named."""
    rows: list[Spec] = [
        {
            "at": at,
            "category": category,
            "order": order,
            "mib": size / _MIB,
            "where": point.module,
            "op": point.operator,
        }
        for at, point in enumerate(timeline.points)
        for order, (category, size) in enumerate(zip(CATEGORIES, point.by_category, strict=True))
    ]
    kinds = [c for c in CATEGORIES if any(row["mib"] for row in rows if row["category"] == c)]
    rows = [row for row in rows if row["category"] in kinds]
    last = len(timeline.points)
    x = number(
        "at",
        "Operators that changed what is alive, in order",
        axis={"labels": False, "ticks": False, "grid": False},
        scale={"domain": [0, last], "nice": False},
    )
    top = timeline.peak.total / _MIB * _HEADROOM
    y = number("mib", "Live memory, MiB", stack="zero", scale={"domain": [0, top], "nice": False})
    # An area ends where its last point is; that point lasts, too.
    rows += [{**row, "at": last} for row in rows if row["at"] == last - 1]
    encoding = {
        "x": x,
        "y": y,
        "color": word("category", scale={"domain": kinds}, legend={"title": None}),
        "order": number("order"),
        "tooltip": [
            word("category", "Category"),
            number("mib", "MiB", format=",.1f"),
            word("where", "Module"),
            word("op", "Operator"),
        ],
    }
    areas = layer("area", encoding, data=rows, interpolate="step-after")
    return chart([areas, *_section_marks(timeline, x), *_peak_mark(timeline, x)], _HEIGHT)


def _section_marks(timeline: MemoryTimeline, x: Spec) -> list[Spec]:
    """A line where each section of the step begins, and its name."""
    sections: list[Spec] = []
    for at, point in enumerate(timeline.points):
        if not sections or sections[-1]["words"] != point.section:
            sections.append({"at": at, "words": point.section})
    text = {"x": x, "y": {"value": 0}, "text": word("words")}
    return [
        layer("rule", {"x": x}, data=sections, strokeDash=[3, 3], strokeWidth=1),
        layer("text", text, data=sections, align="left", baseline="bottom", dx=3, dy=-4, fontSize=11),
    ]


def _peak_mark(timeline: MemoryTimeline, x: Spec) -> list[Spec]:
    """A dot at the peak, and its figure."""
    peak = timeline.peak
    at = timeline.points.index(peak)
    align, dx = ("right", -8) if at > len(timeline.points) * 0.6 else ("left", 8)
    mark = [{"at": at, "mib": peak.total / _MIB, "words": f"peak {peak.total / _MIB:,.0f} MiB"}]
    place = {"x": x, "y": number("mib")}
    return [
        layer("point", place, data=mark, filled=True, size=50, color="black"),
        layer("text", {**place, "text": word("words")}, data=mark, align=align, dx=dx, dy=-6, fontSize=11),
    ]


def saved_by_operator(timeline: MemoryTimeline) -> str:
    """A bar for each kind of operator that made what the backward pass needs."""
    rows = [
        {
            "made": one.made_by,
            "mib": one.bytes / _MIB,
            "tensors": one.tensors,
            "needed": ", ".join(sorted(one.needed_by)),
        }
        for one in timeline.saved_by_maker
        if one.bytes / _MIB >= 0.05
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
    return chart([layer("bar", encoding)], _BAR, data={"values": rows})


def gradients_by_layer(health: GradientHealth) -> str:
    """Two lines over the layers, from the first to the last, with the range over the seeds behind each."""
    rows: list[Spec] = []
    for one in health.layers:
        for figure, spread in (("of the weights", one.gradient_norm), ("of the outputs, rms", one.signal_rms)):
            if spread is not None and spread.low > 0:  # a logarithm has no 0
                ends = {"median": spread.median, "low": spread.low, "high": spread.high}
                rows.append({"at": one.position + 1, "path": one.path, "figure": figure, **ends})
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
    return chart(layers, _HEIGHT, data={"values": rows})


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
        "time": of.total_s / _MS,
        "backward": (of.backward_s or 0.0) / _MS,
        "label": name if width >= _LABELLED and len(name) * _LETTER_SHARE < width else "",
    }
