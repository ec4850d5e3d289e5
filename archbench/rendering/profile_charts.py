"""How the pictures of a profile look, in Altair. Colours and fonts belong to the theme of whoever draws them."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import altair as alt

from archbench.model.profile import (
    CATEGORIES,
    GradientHealth,
    MemoryTimeline,
    ModuleProfile,
    Profile,
    Roofline,
    Spread,
    StepPart,
)
from archbench.model.units import GIGA, MIB, MS, percent, plain
from archbench.rendering.drawing import LETTER_WIDTH, Box, Place, places

Chart: TypeAlias = alt.TopLevelMixin
_Rows: TypeAlias = list[dict[str, Any]]

_HEIGHT = 320
_ROW = 22
"""Pixels of one level of the map of modules."""
_BAR = 18
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


_WHOLE = alt.Scale(domain=[0, 1], nice=False)


def module_map(profile: Profile) -> Chart:
    """Each module as wide as its time, below the one it is in: an icicle, read from the top."""
    rows = _laid_out(profile)
    base = _inline(rows)
    x = alt.X("from:Q", title="Share of the step", axis=alt.Axis(format="%", grid=False), scale=_WHOLE)
    y = alt.Y("depth:O", axis=None, scale=alt.Scale(paddingInner=0.04))
    bars = base.mark_bar(stroke="white", strokeWidth=0.5, strokeOpacity=0.6).encode(
        x,
        alt.X2("to:Q"),
        y,
        alt.Color("stage:N", legend=None, sort=None),
        alt.Opacity("shade:Q", scale=None),
        tooltip=[
            alt.Tooltip("path:N", title="Module"),
            alt.Tooltip("kind:N", title="Class"),
            alt.Tooltip("time:Q", title="Time, ms", format=",.3~f"),
            alt.Tooltip("backward:Q", title="of it backward, ms", format=",.3~f"),
            alt.Tooltip("share:Q", title="Of the step", format=".1%"),
        ],
    )
    names = (
        base.transform_filter("datum.label")
        .mark_text(align="left", baseline="middle", dx=4, fontSize=11)
        .encode(x, y, text="label:N")
    )
    levels = 1 + max((row["depth"] for row in rows), default=0)
    return alt.layer(bars, names).properties(width="container", height=_ROW * levels)


def stage_times(profile: Profile) -> Chart:
    """A bar for each stage and for what belongs to none, forward and backward side by side in it."""
    rows: _Rows = []
    named: list[tuple[str, ModuleProfile | StepPart]] = [
        (row.path, row) for row in profile.modules if row.path in set(profile.stages)
    ]
    for order, (name, one) in enumerate([*named, *((part.name, part) for part in profile.parts)]):
        first = "forward" if one.backward_s or not isinstance(one, StepPart) else "outside"
        for way, seconds in ((first, one.forward_s), ("backward", one.backward_s)):
            if seconds and one.share >= _NARROWEST:
                rows.append({"name": name, "order": order, "way": way, "time": seconds / _MS, "share": one.share})
    ways = [way for way in ("forward", "backward", "outside") if any(row["way"] == way for row in rows)]
    chart: Chart = (
        _inline(rows)
        .mark_bar()
        .encode(
            alt.X("time:Q", title="Time, ms", stack="zero"),
            alt.Y("name:N", title=None, sort=alt.EncodingSortField("order", op="min")),
            alt.Color("way:N", title=None, scale=alt.Scale(domain=ways)),
            alt.Order("way:N", sort="descending"),
            tooltip=[
                alt.Tooltip("name:N", title="Stage"),
                alt.Tooltip("way:N", title="Pass"),
                alt.Tooltip("time:Q", title="Time, ms", format=",.3~f"),
                alt.Tooltip("share:Q", title="Both, of the step", format=".1%"),
            ],
        )
        .properties(width="container", height=alt.Step(_BAR))
    )
    return chart


def roofline(found: Roofline) -> Chart:
    """FLOP/s over FLOP per byte, both logarithmic, under the device's two ceilings."""
    points: _Rows = [
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
    low = min(left * found.bandwidth / _GIGA, *(row["flops"] / 2 for row in points))
    high = max(found.peak_flops / _GIGA, *(row["flops"] for row in points)) * 2
    x = _log_axis(alt.X, "intensity:Q", "Arithmetic intensity, FLOP per byte", left, right)
    y = _log_axis(alt.Y, "flops:Q", "GFLOP/s", low, high)
    kinds = alt.Scale(domain=["stage", "whole network"])
    dots = (
        _inline(points)
        .mark_point(filled=True, opacity=0.85)
        .encode(
            x,
            y,
            alt.Color("what:N", title=None, scale=kinds),
            alt.Shape("what:N", title=None, scale=kinds),
            alt.Size("time:Q", legend=None, scale=alt.Scale(range=[40, 260], domain=[0, 1])),
            tooltip=[
                alt.Tooltip("name:N", title="Stage"),
                alt.Tooltip("intensity:Q", title="FLOP per byte", format=",.3~r"),
                alt.Tooltip("flops:Q", title="GFLOP/s", format=",.3~r"),
                alt.Tooltip("share:N", title="Of its ceiling"),
                alt.Tooltip("time:Q", title="Of the step", format=".1%"),
            ],
        )
    )
    across, up = math.log(right / left), math.log(high / low)
    corner = (found.ridge, found.peak_flops / _GIGA)
    named = [
        _inline([row]).mark_text(align=align, dx=dx, dy=dy, fontSize=11).encode(x, y, text="name:N")
        for row, (align, dx, dy) in zip(points, _placed(points, across, up, corner), strict=True)
    ]
    layers = (*_roof(found, left, right, x, y), dots, *named)
    return alt.layer(*layers).properties(width="container", height=_HEIGHT)


def _roof(found: Roofline, left: float, right: float, x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """The two ceilings between these intensities, each with its name."""

    def at(intensity: float, words: str = "") -> dict[str, Any]:
        flops = min(found.peak_flops, intensity * found.bandwidth) / _GIGA
        return {"intensity": intensity, "flops": flops, "words": words}

    product, copy = (plain(what / _GIGA) for what in (found.peak_flops, found.bandwidth))
    # The copy's name stands above the slope, where no point can be.
    labels: list[tuple[dict[str, Any], Literal["left", "right"], int]] = [
        (at(found.ridge, f"arithmetic {product} GFLOP/s"), "left", _BESIDE),
        (at(math.sqrt(left * found.ridge), f"copy {copy} GB/s"), "right", -_BESIDE),
    ]
    ceilings = [
        _inline([row])
        .mark_text(align=align, baseline="middle", dx=dx, dy=-11, fontSize=11)
        .encode(x, y, text="words:N")
        for row, align, dx in labels
    ]
    line = _inline([at(left), at(found.ridge), at(right)]).mark_line(strokeWidth=2, color="gray").encode(x, y)
    return [line, *ceilings]


_BESIDE = 6
_USUAL_WIDTH = 620
"""Pixels of the plot's width where names are placed."""


def _placed(points: _Rows, across: float, up: float, ridge: tuple[float, float]) -> list[Place]:
    """Where each point's name stands in a plot of so many natural logs, clear of the name of the ceiling."""

    def pixels(intensity: float, flops: float) -> tuple[float, float]:
        return math.log(intensity) / across * _USUAL_WIDTH, -math.log(flops) / up * _HEIGHT

    at = [pixels(row["intensity"], row["flops"]) for row in points]
    x, y = pixels(*ridge)
    return places([row["name"] for row in points], at, taken=[Box(x, y - 20, x + 30 * LETTER_WIDTH, y)])


def _inline(rows: _Rows) -> alt.Chart:
    return alt.Chart(alt.Data(values=rows))  # type: ignore[no-untyped-call]


def _log_axis(channel: Any, field: str, title: str, low: float, high: float) -> Any:
    scale = alt.Scale(type="log", domain=[low, high], nice=False)
    return channel(field, title=title, scale=scale, axis=alt.Axis(format=",.3~r", tickCount=6))


def memory_over_step(timeline: MemoryTimeline) -> Chart:
    """Live bytes by category, one operator after the other, with the peak and the sections named."""
    rows: _Rows = [
        {
            "at": number,
            "category": category,
            "order": order,
            "mib": size / _MIB,
            "where": point.module,
            "op": point.operator,
        }
        for number, point in enumerate(timeline.points)
        for order, (category, size) in enumerate(zip(CATEGORIES, point.by_category, strict=True))
    ]
    kinds = [c for c in CATEGORIES if any(row["mib"] for row in rows if row["category"] == c)]
    rows = [row for row in rows if row["category"] in kinds]
    last = len(timeline.points)
    x = alt.X(
        "at:Q",
        title="Operators that changed what is alive, in order",
        axis=alt.Axis(labels=False, ticks=False, grid=False),
        scale=alt.Scale(domain=[0, last], nice=False),
    )
    top = timeline.peak.total / _MIB * _HEADROOM
    y = alt.Y("mib:Q", title="Live memory, MiB", stack="zero", scale=alt.Scale(domain=[0, top], nice=False))
    # An area ends where its last point is; that point lasts, too.
    rows += [{**row, "at": last} for row in rows if row["at"] == last - 1]
    areas = (
        _inline(rows)
        .mark_area(interpolate="step-after")
        .encode(
            x,
            y,
            alt.Color("category:N", title=None, scale=alt.Scale(domain=kinds)),
            alt.Order("order:Q"),
            tooltip=[
                alt.Tooltip("category:N", title="Category"),
                alt.Tooltip("mib:Q", title="MiB", format=",.1f"),
                alt.Tooltip("where:N", title="Module"),
                alt.Tooltip("op:N", title="Operator"),
            ],
        )
    )
    layers = (areas, *_section_marks(timeline, x), *_peak_mark(timeline, x))
    return alt.layer(*layers).properties(width="container", height=_HEIGHT)


def _section_marks(timeline: MemoryTimeline, x: alt.X) -> tuple[alt.Chart, alt.Chart]:
    """A line where each section of the step begins, and its name."""
    sections: _Rows = []
    for number, point in enumerate(timeline.points):
        if not sections or sections[-1]["words"] != point.section:
            sections.append({"at": number, "words": point.section})
    begin = _inline(sections)
    rules = begin.mark_rule(strokeDash=[3, 3], strokeWidth=1).encode(x)
    words = begin.mark_text(align="left", baseline="bottom", dx=3, dy=-4, fontSize=11).encode(
        x, y=alt.value(0), text="words:N"
    )
    return rules, words


def _peak_mark(timeline: MemoryTimeline, x: alt.X) -> tuple[alt.Chart, alt.Chart]:
    """A dot at the peak, and its figure."""
    peak = timeline.peak
    at = timeline.points.index(peak)
    right = at > len(timeline.points) * 0.6
    label = f"peak {peak.total / _MIB:,.0f} MiB"
    mark = _inline([{"at": at, "mib": peak.total / _MIB, "words": label}])
    dot = mark.mark_point(filled=True, size=50, color="black").encode(x, alt.Y("mib:Q"))
    said = mark.mark_text(align="right" if right else "left", dx=-8 if right else 8, dy=-6, fontSize=11).encode(
        x, alt.Y("mib:Q"), text="words:N"
    )
    return dot, said


def saved_by_operator(timeline: MemoryTimeline) -> Chart:
    """A bar for each kind of operator that made what the backward pass needs."""
    made: dict[str, dict[str, Any]] = {}
    for kind in timeline.saved_by_operator:
        row = made.setdefault(kind.made_by, {"made": kind.made_by, "mib": 0.0, "tensors": 0, "needed": set()})
        row["mib"] += kind.bytes / _MIB
        row["tensors"] += kind.tensors
        row["needed"] |= set(kind.needed_by)
    rows = [{**row, "needed": ", ".join(sorted(row["needed"]))} for row in made.values() if row["mib"] >= 0.05]
    chart: Chart = (
        _inline(rows)
        .mark_bar()
        .encode(
            alt.X("mib:Q", title="Kept for the backward pass, MiB"),
            alt.Y("made:N", title=None, sort="-x"),
            tooltip=[
                alt.Tooltip("made:N", title="Made by"),
                alt.Tooltip("mib:Q", title="MiB", format=",.1f"),
                alt.Tooltip("tensors:Q", title="Tensors"),
                alt.Tooltip("needed:N", title="Needed by"),
            ],
        )
        .properties(width="container", height=alt.Step(_BAR))
    )
    return chart


def gradients_by_layer(health: GradientHealth) -> Chart:
    """Two lines over the layers, from the first to the last, with the range over the seeds behind each."""
    rows: _Rows = []
    for layer in health.layers:
        for figure, spread in (("of the weights", layer.gradient_norm), ("of the outputs, rms", layer.signal_rms)):
            if spread is not None and spread.low > 0:  # a logarithm has no 0
                rows.append({"at": layer.position + 1, "path": layer.path, "figure": figure, **_ends(spread)})
    base = _inline(rows)
    x = alt.X("at:Q", title="Weight layer, from the input to the output", axis=alt.Axis(format="d", tickMinStep=1))
    scale = alt.Scale(type="log")
    colour = alt.Color("figure:N", title="Gradient", sort=None, legend=alt.Legend(symbolOpacity=1))
    band = base.mark_area(opacity=0.2).encode(x, alt.Y("low:Q", scale=scale), alt.Y2("high:Q"), colour)
    axis = alt.Axis(format=".0e", tickCount=6)
    line = base.mark_line(point=alt.OverlayMarkDef(size=18)).encode(
        x,
        alt.Y("median:Q", title="Gradient at initialisation", scale=scale, axis=axis),
        colour,
        tooltip=[
            alt.Tooltip("path:N", title="Layer"),
            alt.Tooltip("figure:N", title="Gradient"),
            alt.Tooltip("median:Q", title="Median over seeds", format=".3~e"),
            alt.Tooltip("low:Q", title="Smallest", format=".3~e"),
            alt.Tooltip("high:Q", title="Largest", format=".3~e"),
        ],
    )
    return alt.layer(band, line).properties(width="container", height=_HEIGHT)


def _ends(spread: Spread) -> dict[str, float]:
    return {"median": spread.median, "low": spread.low, "high": spread.high}


def _laid_out(profile: Profile) -> _Rows:
    """Rectangles of the modules that are wide enough: children from the left edge of their parent, in call order."""
    step = profile.observed_step_s
    begins: dict[str, float] = {}
    used: dict[str, float] = {}
    rows: _Rows = []
    for module in profile.modules:
        parent = module.path.rpartition(".")[0]
        width = module.total_s / step if step else 0.0
        start = begins.get(parent, 0.0) + used.get(parent, 0.0) if module.path else 0.0
        begins[module.path] = start
        used[module.path] = 0.0
        if module.path:
            used[parent] = used.get(parent, 0.0) + width
        if width >= _NARROWEST and module.depth <= _DEEPEST:
            rows.append(_rectangle(module, start, width, profile.network))
    left = profile.modules[0].total_s / step if step and profile.modules else 0.0
    for part in profile.parts:
        width = part.total_s / step if step else 0.0
        if width >= _NARROWEST:
            rows.append(_part(part, left, width))
        left += width
    return rows


def _part(part: StepPart, start: float, width: float) -> dict[str, Any]:
    return {
        "path": part.name,
        "kind": "no module",
        "stage": part.name,
        "depth": 0,
        "from": start,
        "to": start + width,
        "share": width,
        "time": part.total_s / _MS,
        "backward": (part.backward_s or 0.0) / _MS,
        "shade": 0.55,
        "label": _fitting(part.name, width),
    }


def _fitting(name: str, width: float) -> str:
    return name if width >= _LABELLED and len(name) * _LETTER_SHARE < width else ""


def _rectangle(module: ModuleProfile, start: float, width: float, network: str) -> dict[str, Any]:
    name = module.path.rpartition(".")[2] or network
    return {
        "path": module.path or network,
        "kind": module.kind,
        "stage": module.stage or "",
        "depth": module.depth,
        "from": start,
        "to": start + width,
        "share": width,
        "time": module.total_s / _MS,
        "backward": (module.backward_s or 0.0) / _MS,
        "shade": 0.75 if module.depth % 2 else 0.55,
        "label": _fitting(name, width),
    }
