"""How the plots of `report.plots` look, in Altair; the only module that imports it.

A chart takes all cells and chooses itself what may stand in one picture: one phase, one machine, one batch size, the
first of those that it is given. So a page that hands it fewer cells gets the picture of those, and no chart needs
wiring to a filter. Colours, fonts and backgrounds belong to the theme of whoever draws it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import altair as alt

from archbench.rendering.content import SHOWN
from archbench.rendering.plots import NAME, OTHERS, Point

Chart: TypeAlias = alt.LayerChart
_Steps: TypeAlias = list[dict[str, Any]]
"""Vega-Lite transforms in its own notation, in the order in which they are applied."""

HEIGHT = 360
"""Pixels; the width is that of the page, or `drawing.WIDTH`."""
_BAR = 9
"""Pixels for each bar of a chart of bars."""
_LINE = 16
"""Pixels for one where a network has no other, so that names have room."""
_MOST_BARS = 25
"""Networks in a chart of bars: it is longer than a screen beyond."""
_NARROW = 400
"""Pixels of width below which names would cover the points."""
_NAME_GAP = 0.08
"""Share of a front's height by which two points must differ for both to be named."""
_NAME_SPACE = 70
"""Pixels left and right of the points for half a name."""
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


def accuracy_over_latency(points: Sequence[Point]) -> Chart:
    """Every setting at the smallest batch size, and the front of each setting."""
    return _fronts(points, "latency", _chosen("latency", "phase_order", "machine", "batch"))


def accuracy_over_throughput(points: Sequence[Point]) -> Chart:
    """The same at the largest batch size that at least half of the networks ran."""
    return _fronts(points, "rate", [*_chosen("rate", "phase_order", "machine"), *_largest_usual_batch()])


def accuracy_over_macs(points: Sequence[Point]) -> Chart:
    """Every network once."""
    return _fronts(points, "macs", _chosen("macs", "phase_order", "machine", "batch", "setting_order"))


def latency_over_macs(points: Sequence[Point]) -> Chart:
    """Every network once, at the smallest batch size."""
    return _cloud(points, "macs")


def latency_over_activations(points: Sequence[Point]) -> Chart:
    """Every network once, at the smallest batch size."""
    return _cloud(points, "activations")


def throughput_over_batch(points: Sequence[Point]) -> Chart:
    """A line for each network under the first setting."""
    return _curves(points, "rate", _chosen("rate", "phase_order", "machine", "setting_order"))


def latency_over_batch(points: Sequence[Point]) -> Chart:
    """A line for each network under the first setting."""
    return _curves(points, "latency", _chosen("latency", "phase_order", "machine", "setting_order"))


def training_memory(points: Sequence[Point]) -> Chart:
    """A line for each network under the first setting, or a bar where there is one batch size."""
    training = [_keep("datum.phase === 'training'")]
    trained = [one for one in points if one.memory and one.phase == "training"]
    if len({one.batch for one in trained}) > 1:
        return _curves(points, "memory", [*training, *_chosen("memory", "machine", "setting_order")])
    steps = [*training, *_chosen("memory", "machine", "batch")]
    return _bars(points, "memory", steps, named={one.setting for one in trained}, largest_first=False)


def gains(points: Sequence[Point]) -> Chart:
    """A bar for each network and setting at the smallest batch size, the largest gains first."""
    named = {one.setting for one in points if one.gain}
    return _bars(points, "gain", _chosen("gain", "phase_order", "machine", "batch"), named=named, largest_first=True)


CHARTS: dict[str, Callable[[Sequence[Point]], Chart]] = {
    "accuracy-over-latency": accuracy_over_latency,
    "accuracy-over-throughput": accuracy_over_throughput,
    "accuracy-over-macs": accuracy_over_macs,
    "latency-over-macs": latency_over_macs,
    "latency-over-activations": latency_over_activations,
    "throughput-over-batch": throughput_over_batch,
    "latency-over-batch": latency_over_batch,
    "training-memory": training_memory,
    "gains": gains,
}
"""By the name that `plots` gives each."""


def _fronts(points: Sequence[Point], figure: str, steps: _Steps) -> Chart:
    """Top-1 over `figure`: points, intervals, and for each setting the line of those that none beats in both."""
    timed = figure != "macs"
    colour, shape = _by_setting(points) if timed else _by_family(points)
    x, y = alt.X(f"{figure}:Q", title=_TITLES[figure], scale=_log(_NAME_SPACE), axis=_axis(grid=False)), _y("top1")
    dots = _dots().encode(x, y, colour, shape, tooltip=_tooltip())
    front = alt.Chart().mark_line(interpolate="step-before" if figure == "rate" else "step-after", strokeWidth=1.5)
    side: Literal["left", "right"] = "left" if figure == "rate" else "right"  # outside the front: there are no points
    names = alt.Chart().mark_text(align=side, dx=10 if side == "right" else -10, dy=-11, fontSize=11)
    line_colour = colour if timed else alt.ColorValue("gray")
    layers = [
        front.transform_filter("datum.on_front").encode(x, y, line_colour, order=alt.Order("top1:Q")),
        dots,
        names.encode(x, y, text=alt.condition(f"width < {_NARROW}", alt.value(""), alt.Text("network:N"))).properties(
            transform=_apart_on_front()
        ),
    ]
    if figure in _WITH_INTERVAL:
        layers.insert(0, _interval(figure, "x").encode(y, colour))
    steps = [
        *steps,
        _keep("isValid(datum.top1)"),
        _least("setting_order"),
        *_on_front(figure, most=figure == "rate", together=["setting"] if timed else []),
    ]
    return _layered(layers, steps, height=HEIGHT)


def _cloud(points: Sequence[Point], counted: str) -> Chart:
    """Latency over a counted figure."""
    steps = [*_chosen("latency", "phase_order", "machine", "batch", "setting_order"), _keep(f"datum.{counted} > 0")]
    colour, shape = _by_family(points)
    x, y = alt.X(f"{counted}:Q", title=_TITLES[counted], scale=_log(), axis=_axis(grid=False)), _y("latency", log=True)
    dots = _dots().encode(x, y, colour, shape, tooltip=_tooltip())
    return _layered([_interval("latency", "y").encode(x, colour), dots], steps, height=HEIGHT)


def _curves(points: Sequence[Point], figure: str, steps: _Steps) -> Chart:
    """`figure` over the batch size, one line a network; the one under the pointer stands out."""
    x = alt.X(
        "batch:Q", title=_TITLES["batch"], scale=alt.Scale(type="log", base=2), axis=alt.Axis(format="d", grid=False)
    )
    y, (colour, shape) = _y(figure, log=True), _by_family(points)
    pointed = alt.selection_point(
        name="pointed", fields=["network"], on="pointerover", nearest=True, clear="pointerout", empty=False
    )
    stands_out = alt.condition(pointed, alt.value(3), alt.value(1.5))
    clear = alt.condition(pointed, alt.value(1), alt.value(0.6))
    lines = alt.Chart().mark_line().encode(x, y, colour, detail="network:N", size=stands_out, opacity=clear)
    dots = _dots(40).encode(x, y, colour, shape, tooltip=_tooltip(), opacity=clear)
    return _layered([lines, dots.add_params(pointed)], steps, height=HEIGHT)


def _bars(points: Sequence[Point], figure: str, steps: _Steps, *, named: set[str], largest_first: bool) -> Chart:
    """A bar for each network and setting, the networks in order of their best; the settings `named` can occur."""
    best, order = ("max", "descending") if largest_first else ("min", "ascending")
    ranked = [
        _join("best", best, figure, together=["network"]),
        _window("place", "dense_rank", None, [("best", order), ("network", "ascending")]),
        _keep(f"datum.place <= {_MOST_BARS}"),
    ]
    settings = [name for name in _settings(points) if name in named]
    y = alt.Y("network:N", title=None, sort=alt.EncodingSortField("place", op="min"))
    across = alt.YOffset("setting:N", scale=alt.Scale(domain=settings))
    colour, _ = _by_setting(points, settings)
    x = alt.X(f"{figure}:Q", title=_TITLES[figure], axis=_axis(), scale=_log() if figure == "gain" else alt.Undefined)
    from_one: dict[str, Any] = {"x2": alt.datum(1)} if figure == "gain" else {}
    bars = (
        alt.Chart(name=SHOWN)
        .mark_bar(height={"band": 0.85})
        .encode(x, y, across, colour, tooltip=_tooltip(), **from_one)
    )
    layers = [bars]
    if figure == "gain":
        no_gain = alt.Chart().mark_rule(strokeWidth=1).encode(x=alt.datum(1))
        layers += [no_gain, _interval(figure, "x", opacity=0.9).encode(y, across)]
    return _layered(layers, [*steps, *ranked], height=alt.Step(_BAR if len(settings) > 1 else _LINE))


def _layered(layers: Sequence[alt.Chart], steps: _Steps, *, height: int | alt.Step) -> Chart:
    """The layers over one set of cells, with a line above that says which ones these are."""
    said = (
        alt.Chart()
        .transform_aggregate(low="min(batch)", high="max(batch)", groupby=["phase", "machine"])
        .mark_text(align="left", baseline="bottom", dy=-8, fontSize=11, limit=alt.ExprRef("width"))
        .encode(x=alt.value(0), y=alt.value(0), text="chosen:N")
        .transform_calculate(
            chosen="datum.phase + ', batch size ' + "
            "(datum.low === datum.high ? datum.low : datum.low + ' to ' + datum.high) + ', ' + datum.machine"
        )
    )
    steps = [_calculate("phase_order", "datum.phase === 'inference' ? 0 : 1"), *_tooltips(), *steps]
    chart: Chart = alt.LayerChart(layer=[*layers, said], data=alt.NamedData(NAME))
    return chart.properties(
        transform=steps, width="container", height=height, autosize=alt.AutoSizeParams(type="fit-x", contains="padding")
    )


def _chosen(figure: str, *fields: str) -> _Steps:
    """The cells that have the figure, and of each field the first value alone."""
    steps: _Steps = [_keep(f"isValid(datum.{figure})")]
    for field in fields:
        steps += [_least(field), _keep(f"datum.{field} === datum.{field}_first")]
    return steps


def _largest_usual_batch() -> _Steps:
    """The largest batch size that at least half as many cells have as the commonest."""
    return [
        _join("sharing", "count", None, together=["batch"]),
        _join("most", "max", "sharing"),
        _keep("datum.sharing * 2 >= datum.most"),
        _join("largest", "max", "batch"),
        _keep("datum.batch === datum.largest"),
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


def _apart_on_front() -> _Steps:
    """Of the first setting's front, the cells whose names would not lie on each other."""
    return [
        _keep("datum.on_front && datum.setting_order === datum.setting_order_first"),
        _join("lowest", "min", "top1"),
        _join("highest", "max", "top1"),
        _window("below", "lag", "top1", [("top1", "ascending")]),
        _keep(f"!isValid(datum.below) || datum.top1 - datum.below > {_NAME_GAP} * (datum.highest - datum.lowest)"),
    ]


def _tooltips() -> _Steps:
    """Figures with their intervals as text."""

    def words(figure: str) -> str:
        low, high = f"datum.{figure}_low", f"datum.{figure}_high"
        interval = f"(isValid({low}) ? ' (' + {_number(low)} + ' to ' + {_number(high)} + ')' : '')"
        return f"isValid(datum.{figure}) ? {_number(f'datum.{figure}')} + {interval} : '-'"

    return [_calculate(f"{figure}_words", words(figure)) for figure in _WITH_INTERVAL]


def _number(expression: str) -> str:
    return f"format({expression}, {expression} < 1000 ? '.3~r' : ',.0f')"


def _tooltip() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("network:N", title="Network"),
        alt.Tooltip("family:N", title="Family"),
        alt.Tooltip("setting:N", title="Setting"),
        alt.Tooltip("phase:N", title="Phase"),
        alt.Tooltip("batch:Q", title="Batch size"),
        alt.Tooltip("size:Q", title="Image side, px"),
        alt.Tooltip("top1:Q", title="Top-1, %", format=".2f"),
        alt.Tooltip("latency_words:N", title="Latency, ms"),
        alt.Tooltip("rate_words:N", title="img/s"),
        alt.Tooltip("gain_words:N", title="Gain over fp32"),
        alt.Tooltip("params:Q", title="Params, M", format=",.2f"),
        alt.Tooltip("macs:Q", title="GMACs", format=",.2f"),
        alt.Tooltip("memory:Q", title="Peak, MiB", format=",.0f"),
        alt.Tooltip("verdict:N", title="Verdict"),
    ]


def _interval(figure: str, channel: str, opacity: float = 0.4) -> alt.Chart:
    low, high = f"{figure}_low:Q", f"{figure}_high"
    ends = {"x": alt.X(low), "x2": high} if channel == "x" else {"y": alt.Y(low), "y2": high}
    rule = alt.Chart().mark_rule(strokeWidth=1, opacity=opacity).encode(**ends)
    known: alt.Chart = rule.transform_filter(f"isValid(datum.{figure}_low) && isValid(datum.{figure}_high)")
    return known


def _dots(size: int = 64) -> alt.Chart:
    dots: alt.Chart = alt.Chart(name=SHOWN).mark_point(filled=True, size=size, opacity=0.85)
    return dots


def _y(figure: str, *, log: bool = False) -> alt.Y:
    scale, axis = (_log(), _axis(gridOpacity=0.5)) if log else (alt.Scale(zero=False, padding=12), _axis())
    return alt.Y(f"{figure}:Q", title=_TITLES[figure], scale=scale, axis=axis)


def _log(padding: int = 20) -> alt.Scale:
    return alt.Scale(type="log", nice=False, padding=padding)


def _axis(**grid: Any) -> alt.Axis:
    return alt.Axis(format=",.4~r", tickCount=6, **grid)


def _by_setting(points: Sequence[Point], named: Sequence[str] | None = None) -> tuple[alt.Color, alt.Shape]:
    """Colours that stay a setting's own whatever is filtered; the legend shows those `named`."""
    return _told_apart("setting", _settings(points), "Setting", named)


def _by_family(points: Sequence[Point]) -> tuple[alt.Color, alt.Shape]:
    families = sorted({one.colour for one in points}, key=lambda name: (name == OTHERS, name))
    return _told_apart("colour", families, "Family")


def _told_apart(
    field: str, domain: list[str], title: str, named: Sequence[str] | None = None
) -> tuple[alt.Color, alt.Shape]:
    """By colour and by shape alike, so that neither is needed."""
    values: dict[str, Any] = {} if named is None else {"values": list(named)}
    legend = alt.Legend(title=title, symbolOpacity=1, **values)
    scale = alt.Scale(domain=domain)
    return (
        alt.Color(f"{field}:N", scale=scale, legend=legend),
        alt.Shape(f"{field}:N", scale=scale, legend=legend),
    )


def _settings(points: Sequence[Point]) -> list[str]:
    order = {one.setting: one.setting_order for one in points}
    return sorted(order, key=order.__getitem__)


def _keep(test: str) -> dict[str, Any]:
    return {"filter": test}


def _calculate(name: str, expression: str) -> dict[str, Any]:
    return {"calculate": expression, "as": name}


def _least(field: str) -> dict[str, Any]:
    return _join(f"{field}_first", "min", field)


def _join(name: str, op: str, field: str | None, together: Sequence[str] = ()) -> dict[str, Any]:
    """Each cell gets, as `name`, a figure of all those that share the fields `together`."""
    of = {} if field is None else {"field": field}
    return {"joinaggregate": [{"op": op, **of, "as": name}], "groupby": list(together)}


def _window(
    name: str, op: str, field: str | None, order: Sequence[tuple[str, str]], together: Sequence[str] = ()
) -> dict[str, Any]:
    """Each cell gets, as `name`, a figure of those before it in this order of fields, itself included but for a lag."""
    of = {} if field is None else {"field": field}
    sort = [{"field": by, "order": direction} for by, direction in order]
    return {"window": [{"op": op, **of, "as": name}], "sort": sort, "groupby": list(together)}
