"""What a profile says of memory and of gradients, as sections with their pictures."""

from __future__ import annotations

from archbench.model.counts import AcrossSeeds, GradientHealth, LayerGradient, StageActivation
from archbench.model.profile import (
    CATEGORIES,
    MemoryCategory,
    MemoryHolder,
    MemoryTimeline,
    Profile,
    SavedBytes,
    StageMemory,
)
from archbench.model.units import MIB, NULL, figure, fixed, listed, percent, plain
from archbench.rendering.content import Columns, Picture, Section, Table, fold, section, tabled
from archbench.rendering.drawing import Spec, chart, layer, number, word

HEIGHT = 320
"""Pixels of a profile's picture."""
BAR = {"step": 18}
"""Height of one of bars."""
_HEADROOM = 1.1
"""Of the memory's axis over its peak: room for the peak's figure."""

MEANINGS: dict[MemoryCategory, str] = {
    "weights": "parameters and buffers",
    "optimizer": "momentum",
    "gradients": "of weights",
    "inputs": "images and labels that lie ready",
    "activations": "results of the forward pass, kept for the backward pass",
    "temporaries": "other tensors: feature maps passing through, gradients of activations",
    "workspace": "inside the operator that ran",
    "unattributed": "of compiled code, which does not say what for",
}
_MOST_HOLDERS = 12
_MOST_KINDS = 10
_KINDS_IN_WORDS = 3
_MOST_LAYERS = 12
_SMALL = 0.002
"""Share of what is kept below which a kind of tensor is not worth a row."""
_DURING = {
    "forward": "in the forward pass",
    "backward": "in the backward pass",
    "update": "in the optimizer's step",
    "compiled": "in the compiled step",
}
EXPLODED, VANISHED = 100.0, 0.01
"""First over last weight layer. Networks that train lie well within, ResNet-56 at 0.4; plain-56 is at 1,800."""


def memory_section(profile: Profile, prefix: str) -> Section | None:
    """The peak by category, what is kept for the backward pass, and what holds the peak; `None` if not followed.

    `prefix` stands before the names of its pictures.
    """
    timeline = profile.memory
    if timeline is None:
        return None
    over_step = Picture(
        name=f"{prefix}memory",
        title="Live memory over the step",
        alt="Live bytes by category, one operator after the other, with the peak marked.",
        spec=_memory_over_step(timeline),
    )
    saved = Picture(
        name=f"{prefix}saved",
        title="What the backward pass needs",
        alt="A bar for each kind of operator: the bytes that it made and that are kept for the backward pass.",
        spec=_saved_by_operator(timeline),
    )
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
    return section(
        "Memory over the step",
        memory_line(timeline),
        over_step,
        saved if timeline.saved_bytes else None,
        _categories(timeline),
        timeline.note,
        (saved_line(timeline, profile.cell.batch_size), _kept(timeline)) if timeline.saved_bytes else None,
        tabled(timeline.stages, stages, "Memory by stage"),
        fold("The largest tensors at the peak", tabled(timeline.holders[:_MOST_HOLDERS], holders)),
    )


def memory_line(timeline: MemoryTimeline) -> str:
    """The peak, where it is, and how prediction and watching agree with the allocator: a sentence or two."""
    peak = timeline.peak
    where = f" of `{peak.module}`" if peak.module else ""
    operator = f", in `{peak.operator}`{where}" if peak.operator else ""
    measured = timeline.measured_peak_bytes
    said = f"The peak is {_mib(peak.total)}, {_DURING[peak.section]}{operator}. "
    if abs(peak.total - measured) > 0.005 * measured:
        said += f"Unwatched, the step peaks at {_mib(measured)}. "
    if timeline.predicted_peak_bytes is None:
        return said + "No peak is predicted for this step."
    off = round(timeline.predicted_peak_bytes / measured - 1, 3)
    difference = percent(off, signed=True) if off else "no difference"
    return said + f"Predicted without running: {_mib(timeline.predicted_peak_bytes)} ({difference})."


def saved_line(timeline: MemoryTimeline, batch_size: int) -> str:
    """How much the forward pass keeps, and the kinds of tensor that most of it is: one sentence."""
    kinds = timeline.saved_by_maker[:_KINDS_IN_WORDS]
    parts = ", ".join(f"{one.made_by} {percent(one.bytes / timeline.saved_bytes)}" for one in kinds)
    return (
        f"{_mib(timeline.saved_bytes)} are kept for the backward pass, {_mib(timeline.saved_bytes / batch_size)} an "
        f"image: results of {parts}."
    )


def _categories(timeline: MemoryTimeline) -> Table:
    peak = timeline.peak
    highest = {name: max(getattr(point, name) for point in timeline.points) for name in CATEGORIES}
    columns: Columns[MemoryCategory] = {
        "Category": str,
        ">At the peak, MiB": lambda name: fixed(getattr(peak, name), MIB, 1),
        ">Share": lambda name: percent(getattr(peak, name) / peak.total) if peak.total else NULL,
        ">At most, MiB": lambda name: fixed(highest[name], MIB, 1),
        "What it is": MEANINGS.__getitem__,
    }
    return tabled([name for name in CATEGORIES if highest[name]], columns, "Live memory at the peak, by category")


def _kept(timeline: MemoryTimeline) -> Table:
    columns: Columns[SavedBytes] = {
        "Made by": lambda one: one.made_by,
        ">Kept, MiB": lambda one: fixed(one.bytes, MIB, 1),
        ">Share": lambda one: percent(one.bytes / timeline.saved_bytes),
        ">Tensors": lambda one: str(one.tensors),
        "Needed by the backward pass of": lambda one: ", ".join(one.needed_by),
    }
    told = [one for one in timeline.saved_by_maker[:_MOST_KINDS] if one.bytes >= _SMALL * timeline.saved_bytes]
    return tabled(told, columns, "Activations kept for the backward pass, by the operator that made them")


def gradient_section(health: GradientHealth | None, prefix: str) -> Section | None:
    """Whether the error reaches the first layers, in a sentence; layers and stages as tables. `prefix`: as above."""
    if health is None:
        return None
    picture = Picture(
        name=f"{prefix}gradients",
        title="Gradients from the first layer to the last",
        alt="Norms of the weights' gradients and of the gradients that arrive at the layers, on a logarithmic axis.",
        spec=_gradients_by_layer(health),
    )
    drawable = any(layer.gradient_norm and layer.gradient_norm.low > 0 for layer in health.layers)
    count = len(health.layers)
    chosen = sorted({round(place * (count - 1) / (_MOST_LAYERS - 1)) for place in range(_MOST_LAYERS)}) if count else []

    def over(layer: LayerGradient) -> str:
        upper, lower = layer.gradient_norm, layer.weight_norm
        return plain(upper.median / lower.median if upper and lower and lower.median else None)

    layers: Columns[LayerGradient] = {
        ">Layer": lambda layer: str(layer.position + 1),
        "Path": lambda layer: layer.path,
        "Kind": lambda layer: layer.kind,
        ">Gradient norm": lambda layer: _ends(layer.gradient_norm),
        ">Over weight norm": over,
        ">Gradient of the output, rms": lambda layer: _ends(layer.signal_rms),
    }
    stages: Columns[StageActivation] = {
        "Stage": lambda stage: stage.stage,
        ">Mean": lambda stage: NULL if stage.mean is None else plain(stage.mean.median),
        ">Standard deviation": lambda stage: NULL if stage.std is None else plain(stage.std.median),
        ">Zeros": lambda stage: percent(stage.zero_share.median) if stage.zero_share else NULL,
    }
    told = [health.layers[place] for place in chosen]
    return section(
        "Gradients at initialisation",
        gradient_line(health),
        picture if drawable else None,
        tabled(told, layers, f"Gradients of {len(chosen)} of {count} weight layers at initialisation"),
        tabled(health.stages, stages, "What comes out of each stage at initialisation"),
    )


def gradient_line(health: GradientHealth) -> str:
    """The ratio of first to last and what it means: a sentence or two."""
    how = f"Median of {health.seeds} draws of weights and of {health.batch_size} random images"
    ratio = health.first_to_last
    if ratio is None:
        said = f"{how}: the ratio of first to last layer cannot be formed, a gradient is 0 or not finite. "
    else:
        times = f"{plain(ratio.median)} times ({plain(ratio.low)} to {plain(ratio.high)})"
        said = f"{how}: the gradient of the first layer's weights is {times} that of the last's. "
        if ratio.median >= EXPLODED:
            said += "It grows on its way back: one learning rate cannot suit both ends of the network. "
        elif ratio.median <= VANISHED:
            said += "It fades on its way back: the first layers hardly learn. "
    if health.without_gradient:
        said += f"No gradient reaches {listed([f'`{path}`' for path in health.without_gradient], 3)}."
    return said.rstrip()


def _ends(spread: AcrossSeeds | None) -> str:
    return NULL if spread is None else f"{plain(spread.median)} ({plain(spread.low)} to {plain(spread.high)})"


def _mib(size: float) -> str:
    return f"{figure(size, MIB)} MiB"


def _memory_over_step(timeline: MemoryTimeline) -> str:
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
    last = len(timeline.points)
    x = number(
        "at",
        "Operators that changed what is alive, in order",
        axis={"labels": False, "ticks": False, "grid": False},
        scale={"domain": [0, last], "nice": False},
    )
    top = timeline.peak.total / MIB.size * _HEADROOM
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
    return chart([areas, *_section_marks(timeline, x), *_peak_mark(timeline, x)], HEIGHT)


def _section_marks(timeline: MemoryTimeline, x: Spec) -> list[Spec]:
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
    peak = timeline.peak
    at = timeline.points.index(peak)
    align, dx = ("right", -8) if at > len(timeline.points) * 0.6 else ("left", 8)
    mark = [{"at": at, "mib": peak.total / MIB.size, "words": f"peak {peak.total / MIB.size:,.0f} MiB"}]
    place = {"x": x, "y": number("mib")}
    return [
        layer("point", place, data=mark, filled=True, size=50, color="black"),
        layer("text", {**place, "text": word("words")}, data=mark, align=align, dx=dx, dy=-6, fontSize=11),
    ]


def _saved_by_operator(timeline: MemoryTimeline) -> str:
    rows = [
        {
            "made": one.made_by,
            "mib": one.bytes / MIB.size,
            "tensors": one.tensors,
            "needed": ", ".join(sorted(one.needed_by)),
        }
        for one in timeline.saved_by_maker
        if one.bytes / MIB.size >= 0.05
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
    return chart([layer("bar", encoding)], BAR, data={"values": rows})


def _gradients_by_layer(health: GradientHealth) -> str:
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
    return chart(layers, HEIGHT, data={"values": rows})
