"""How the plots of a run look, as Vega-Lite has it.

A chart takes all cells and chooses itself what may stand in one picture: one phase, one machine, one batch size, the
first of those that it is given. So a page that hands it fewer cells gets the picture of those, and no chart needs
wiring to a filter. Colours, fonts and backgrounds belong to the theme of whoever draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from msgspec import Struct

from archbench.rendering.content import SHOWN
from archbench.rendering.drawing import Spec, called, chart, layer, log_axis, names, number, word

NAME = "cells"
OTHERS = "others"

_Steps: TypeAlias = list[Spec]
"""Vega-Lite transforms, in the order in which they are applied."""

HEIGHT = 400
"""Pixels; the width is that of the page, or `drawing.WIDTH`."""
_BAR = 9
"""Pixels for each bar of a chart of bars."""
_LINE = 16
"""Pixels for one where a network has no other, so that names have room."""
_MOST_BARS = 25
"""Networks in a chart of bars: it is longer than a screen beyond."""
_SOLID = 0.85
_TITLES = {
    "latency": "Latency, ms per batch",
    "rate": "Throughput, img/s",
    "top1": "Published top-1, %",
    "macs": "GMACs per image",
    "activations": "Million activations per image",
    "memory": "Peak memory, MiB",
    "gain": "Times faster than fp32",
    "batch": "Batch size, images",
}
_WITH_INTERVAL = ("latency", "rate", "gain")
_TOOLTIP = [
    *(word(name, name.capitalize()) for name in ("network", "family", "setting", "phase")),
    number("batch", "Batch size"),
    number("size", "Image side, px"),
    number("top1", "Top-1, %", format=".2f"),
    word("latency_words", "Latency, ms"),
    word("rate_words", "img/s"),
    word("gain_words", "Gain over fp32"),
    *(number(name, title, format=",.2f") for name, title in (("params", "Params, M"), ("macs", "GMACs"))),
    number("memory", "Peak, MiB", format=",.0f"),
    word("verdict", "Verdict"),
]


def fronts(points: Sequence[Point], figure: str, steps: _Steps) -> str:
    """Top-1 over `figure`: points, intervals, and for each setting the line of those that none beats in both."""
    timed = figure != "macs"
    look = _by_setting(points) if timed else _by_family(points)
    x = number(figure, _TITLES[figure], **log_axis("x", grid=False))
    y = number("top1", _TITLES["top1"], scale={"zero": False, "padding": 20}, axis={"format": ",.4~r", "tickCount": 6})
    stroke = {"stroke": look["stroke"]} if timed else {"stroke": {"value": "gray"}}
    stepped = "step-before" if figure == "rate" else "step-after"
    front = layer("line", {"x": x, "y": y, **stroke, "order": number("top1")}, interpolate=stepped, strokeWidth=1.5)
    layers = [
        *([_interval(figure, "x", y=y, stroke=look["stroke"])] if timed else []),
        {**front, "transform": [keep("datum.on_front")]},
        _dots({"x": x, "y": y, **look}),
        names(x, y),
    ]
    steps = [
        *steps,
        keep("isValid(datum.top1)"),
        *_on_front(figure, most=figure == "rate", together=["setting"] if timed else []),
        _join("own_first", "min", "setting_order", together=["network"]),
        *called(
            "datum.named && (datum.on_front || datum.setting_order === datum.own_first) ? datum.network : ''",
            "datum.on_front ? 0 : 1",
        ),
    ]
    return _layered(layers, steps, HEIGHT)


def cloud(points: Sequence[Point], counted: str) -> str:
    """Latency over a counted figure, every network once, at the smallest batch size."""
    steps = [
        *chosen("latency", "phase_order", "machine", "batch", "setting_order"),
        keep(f"datum.{counted} > 0"),
        *called("datum.named ? datum.network : ''"),
    ]
    look = _by_family(points)
    x = number(counted, _TITLES[counted], **log_axis("x", grid=False))
    y = number("latency", _TITLES["latency"], **log_axis("y", gridOpacity=0.5))
    interval = _interval("latency", "y", x=x, stroke=look["stroke"])
    return _layered([interval, _dots({"x": x, "y": y, **look}), names(x, y)], steps, HEIGHT)


def curves(points: Sequence[Point], figure: str, steps: _Steps) -> str:
    """`figure` over the batch size, one line a network; the one under the pointer stands out."""
    scale = {"type": "log", "base": 2, "nice": False, "padding": 30}
    x = number("batch", _TITLES["batch"], scale=scale, axis={"format": "d", "grid": False})
    y = number(figure, _TITLES[figure], **log_axis("y", gridOpacity=0.5))
    look = _by_family(points)
    nearest = {"type": "point", "fields": ["network"], "on": "pointerover", "nearest": True, "clear": "pointerout"}
    pointed = {"name": "pointed", "select": nearest}

    def stands_out(then: float, otherwise: float) -> Spec:
        return {"condition": {"param": "pointed", "empty": False, "value": then}, "value": otherwise}

    clear, width = stands_out(1, 0.6), stands_out(3, 1.5)
    line = {"x": x, "y": y, "stroke": look["stroke"], "detail": word("network"), "opacity": clear, "strokeWidth": width}
    dots = {**_dots({"x": x, "y": y, **look, "opacity": clear}, size=40), "params": [pointed]}
    steps = [
        *steps,
        _join("last", "max", "batch", together=["network"]),
        *called("datum.named && datum.batch === datum.last ? datum.network : ''"),
    ]
    return _layered([layer("line", line), dots, names(x, y)], steps, HEIGHT)


def bars(points: Sequence[Point], figure: str, steps: _Steps, *, largest_first: bool) -> str:
    """A bar for each network and setting, the networks in order of their best."""
    best, order = ("max", "descending") if largest_first else ("min", "ascending")
    ranked = [
        _join("best", best, figure, together=["network"]),
        _window("place", "dense_rank", None, [("best", order), ("network", "ascending")]),
        keep(f"datum.place <= {_MOST_BARS}"),
    ]
    kept = [one for one in points if getattr(one, figure) and (figure == "gain" or one.phase == "training")]
    settings = _settings(kept)
    y = {**word("network", sort={"field": "place", "op": "min"}), "title": None}
    across = word("setting", scale={"domain": settings})
    look = _by_setting(points, settings)
    look.pop("shape")
    axis = log_axis("x") if figure == "gain" else {"axis": {"format": ",.4~r", "tickCount": 6}}
    x = number(figure, _TITLES[figure], **axis)
    encoding = {"x": x, "y": y, "yOffset": across, **look, "tooltip": _TOOLTIP}
    bars = layer("bar", encoding, name=SHOWN, height={"band": 0.85})
    layers = [bars]
    if figure == "gain":
        bars["encoding"]["x2"] = {"datum": 1}
        interval = _interval(figure, "x", y=y, yOffset=across)
        layers += [layer("rule", {"x": {"datum": 1}}, strokeWidth=1), interval]
    return _layered(layers, [*steps, *ranked], {"step": _BAR if len(settings) > 1 else _LINE})


def _layered(layers: Sequence[Spec], steps: _Steps, height: int | Spec) -> str:
    """The layers over one set of cells, with two lines above that say which ones these are: one is cut on a phone."""
    sizes = "datum.low === datum.high ? datum.low : datum.low + ' to ' + datum.high"
    suspect = "datum.suspect ? ' (hollow: suspect)' : ''"
    said = layer(
        "text",
        {"x": {"value": 0}, "y": {"value": 0}, "text": word("chosen")},
        align="left",
        baseline="bottom",
        dy=-21,  # of the first line, whose 13 pixels the second stands below
        fontSize=11,
        limit={"expr": "width"},
    )
    together = [
        *({"op": op, "field": "batch", "as": name} for op, name in (("min", "low"), ("max", "high"))),
        {"op": "max", "field": "suspect", "as": "suspect"},
    ]
    said["transform"] = [
        {"aggregate": together, "groupby": ["phase", "machine"]},
        _calculate("chosen", f"[datum.phase + ', batch size ' + ({sizes}) + ({suspect}), datum.machine]"),
    ]
    made = [
        _calculate("phase_order", "datum.phase === 'inference' ? 0 : 1"),
        _calculate("suspect", "slice(datum.verdict, 0, 2) === 'ok' ? 0 : 1"),
        *(_calculate(f"{figure}_words", _with_interval(figure)) for figure in _WITH_INTERVAL),
    ]
    autosize = {"type": "fit-x", "contains": "padding"}
    return chart([*layers, said], height, data={"name": NAME}, transform=[*made, *steps], autosize=autosize)


def chosen(figure: str, *fields: str) -> _Steps:
    """The cells that have the figure, and of each field the first value alone."""
    steps: _Steps = [keep(f"isValid(datum.{figure})")]
    for field in fields:
        steps += [_join(f"{field}_first", "min", field), keep(f"datum.{field} === datum.{field}_first")]
    return steps


def largest_usual_batch() -> _Steps:
    """The largest batch size that at least half as many cells have as the commonest."""
    return [
        _join("sharing", "count", None, together=["batch"]),
        _join("most", "max", "sharing"),
        keep("datum.sharing * 2 >= datum.most"),
        _join("largest", "max", "batch"),
        keep("datum.batch === datum.largest"),
    ]


def _on_front(figure: str, *, most: bool, together: list[str]) -> _Steps:
    """`on_front` where the top-1 exceeds that of every cell which is as good in the figure or better."""
    ahead = [(figure, "descending" if most else "ascending"), ("top1", "descending")]
    # Vega takes a frame that ends before the row for one that ends behind it, so the row itself is left out by a lag.
    return [
        _window("reached", "max", "top1", ahead, together),
        _window("before", "lag", "reached", ahead, together),
        _calculate("on_front", "!isValid(datum.before) || datum.top1 > datum.before"),
    ]


def _with_interval(figure: str) -> str:

    def text(expression: str) -> str:
        return f"format({expression}, {expression} < 1000 ? '.3~r' : ',.0f')"

    value, low, high = (f"datum.{figure}{end}" for end in ("", "_low", "_high"))
    interval = f"(isValid({low}) ? ' (' + {text(low)} + ' to ' + {text(high)} + ')' : '')"
    return f"isValid({value}) ? {text(value)} + {interval} : '-'"


def _interval(figure: str, channel: str, **encoding: Spec) -> Spec:
    low, high = f"{figure}_low", f"{figure}_high"
    ends = {channel: number(low), f"{channel}2": {"field": high}}
    rule = layer("rule", {**ends, **encoding}, strokeWidth=1, opacity=0.4 if "stroke" in encoding else 0.9)
    return {**rule, "transform": [keep(f"isValid(datum.{low}) && isValid(datum.{high})")]}


def _dots(encoding: Spec, size: int = 56) -> Spec:
    return layer("point", {**encoding, "tooltip": _TOOLTIP}, name=SHOWN, size=size, opacity=1, strokeWidth=1.5)


def _by_setting(points: Sequence[Point], named: Sequence[str] | None = None) -> dict[str, Spec]:
    """Colours that stay a setting's own whatever is filtered; the legend shows those `named`."""
    legend = {"title": "Setting", **({} if named is None else {"values": list(named)})}
    return _look("setting", _settings(points), legend)


def _by_family(points: Sequence[Point]) -> dict[str, Spec]:
    families = sorted({one.colour for one in points}, key=lambda name: (name == OTHERS, name))
    return _look("colour", families, {"title": "Family"})


def _look(field: str, domain: list[str], legend: Spec) -> dict[str, Spec]:
    """What is told apart by colour and by shape alike, so that neither is needed; what is suspect is hollow."""
    told = word(field, scale={"domain": domain}, legend={**legend, "symbolOpacity": 1})
    hollow = number("suspect", scale={"domain": [0, 1], "range": [_SOLID, 0]}, legend=None)
    return {**dict.fromkeys(("fill", "stroke", "shape"), told), "fillOpacity": hollow}


def _settings(points: Sequence[Point]) -> list[str]:
    order = {one.setting: one.setting_order for one in points}
    return sorted(order, key=order.__getitem__)


def keep(test: str) -> Spec:
    """The transform that keeps rows for which `test`, an expression of Vega's, is true."""
    return {"filter": test}


def _calculate(name: str, expression: str) -> Spec:
    return {"calculate": expression, "as": name}


def _join(name: str, op: str, field: str | None, together: Sequence[str] = ()) -> Spec:
    """Each cell gets, as `name`, a figure of all those that share the fields `together`."""
    of = {} if field is None else {"field": field}
    return {"joinaggregate": [{"op": op, **of, "as": name}], "groupby": list(together)}


def _window(
    name: str, op: str, field: str | None, order: Sequence[tuple[str, str]], together: Sequence[str] = ()
) -> Spec:
    """Each cell gets, as `name`, a figure of those before it in this order of fields, itself included but for a lag."""
    of: dict[str, Any] = {} if field is None else {"field": field}
    sort = [{"field": by, "order": direction} for by, direction in order]
    return {"window": [{"op": op, **of, "as": name}], "sort": sort, "groupby": list(together)}


class Point(Struct, frozen=True, kw_only=True):
    """One cell as drawn; times in ms, memory in MiB, counts in giga and mega. `None` = not measured."""

    network: str
    family: str
    colour: str
    """The family, or `OTHERS`."""
    setting: str
    setting_order: int
    phase: str
    batch: int
    machine: str
    size: int | None
    params: float | None
    macs: float | None
    activations: float | None
    top1: float | None
    latency: float | None
    latency_low: float | None
    latency_high: float | None
    rate: float | None
    rate_low: float | None
    rate_high: float | None
    memory: float | None
    gain: float | None
    """How many times faster than plain fp32, all else equal; `None` for plain fp32 itself."""
    gain_low: float | None
    gain_high: float | None
    verdict: str
    named: bool
    """The reader wants its name, where there is room."""
