"""What a profile says of memory and of gradients, as sections with their pictures."""

from __future__ import annotations

from collections.abc import Callable

from archbench.model.profile import (
    CATEGORIES,
    AcrossSeeds,
    GradientHealth,
    LayerGradient,
    MemoryCategory,
    MemoryHolder,
    MemoryTimeline,
    Profile,
    SavedBytes,
    StageActivation,
    StageMemory,
)
from archbench.model.units import MIB, NULL, figure, fixed, listed, percent, plain
from archbench.rendering.content import Block, Fold, Paragraph, Picture, Section, tabled
from archbench.rendering.profile_charts import gradients_by_layer, memory_over_step, saved_by_operator

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
        spec=memory_over_step(timeline),
    )
    saved = Picture(
        name=f"{prefix}saved",
        title="What the backward pass needs",
        alt="A bar for each kind of operator: the bytes that it made and that are kept for the backward pass.",
        spec=saved_by_operator(timeline),
    )
    blocks: list[Block] = [Paragraph(memory_line(timeline)), over_step, *([saved] if timeline.saved_bytes else [])]
    blocks += _categories(timeline)
    blocks += [Paragraph(timeline.note)] if timeline.note else []
    if timeline.saved_bytes:
        blocks += [Paragraph(saved_line(timeline, profile.cell.batch_size)), *_kept(timeline)]
    stages: dict[str, Callable[[StageMemory], str]] = {
        "Stage": lambda stage: stage.stage or "(no stage)",
        ">Kept for backward, MiB": lambda stage: fixed(stage.saved_bytes or None, MIB, 1),
        ">Alive at the peak, MiB": lambda stage: fixed(stage.peak_bytes, MIB, 1),
    }
    holders: dict[str, Callable[[MemoryHolder], str]] = {
        "Module or parameter": lambda holder: holder.path or NULL,
        "Category": lambda holder: holder.category,
        "Made by": lambda holder: holder.operator or NULL,
        "Shape": lambda holder: "x".join(map(str, holder.shape)) or "scalar",
        "Type": lambda holder: holder.dtype,
        ">MiB": lambda holder: fixed(holder.bytes, MIB, 2),
    }
    largest = tabled(timeline.holders[:_MOST_HOLDERS], holders)
    blocks += [
        tabled(timeline.stages, stages, "Memory by stage"),
        Fold(summary="The largest tensors at the peak", blocks=(largest,)),
    ]
    return Section(title="Memory over the step", blocks=tuple(blocks))


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


def _categories(timeline: MemoryTimeline) -> list[Block]:
    peak = timeline.peak
    highest = {name: max(getattr(point, name) for point in timeline.points) for name in CATEGORIES}
    columns: dict[str, Callable[[MemoryCategory], str]] = {
        "Category": str,
        ">At the peak, MiB": lambda name: fixed(getattr(peak, name), MIB, 1),
        ">Share": lambda name: percent(getattr(peak, name) / peak.total) if peak.total else NULL,
        ">At most, MiB": lambda name: fixed(highest[name], MIB, 1),
        "What it is": MEANINGS.__getitem__,
    }
    return [tabled([name for name in CATEGORIES if highest[name]], columns, "Live memory at the peak, by category")]


def _kept(timeline: MemoryTimeline) -> list[Block]:
    columns: dict[str, Callable[[SavedBytes], str]] = {
        "Made by": lambda one: one.made_by,
        ">Kept, MiB": lambda one: fixed(one.bytes, MIB, 1),
        ">Share": lambda one: percent(one.bytes / timeline.saved_bytes),
        ">Tensors": lambda one: str(one.tensors),
        "Needed by the backward pass of": lambda one: ", ".join(one.needed_by),
    }
    told = [one for one in timeline.saved_by_maker[:_MOST_KINDS] if one.bytes >= _SMALL * timeline.saved_bytes]
    return [tabled(told, columns, "Activations kept for the backward pass, by the operator that made them")]


def gradient_section(health: GradientHealth | None, prefix: str) -> Section | None:
    """Whether the error reaches the first layers, in a sentence; layers and stages as tables. `prefix`: as above."""
    if health is None:
        return None
    picture = Picture(
        name=f"{prefix}gradients",
        title="Gradients from the first layer to the last",
        alt="Norms of the weights' gradients and of the gradients that arrive at the layers, on a logarithmic axis.",
        spec=gradients_by_layer(health),
    )
    drawable = any(layer.gradient_norm and layer.gradient_norm.low > 0 for layer in health.layers)
    count = len(health.layers)
    chosen = sorted({round(place * (count - 1) / (_MOST_LAYERS - 1)) for place in range(_MOST_LAYERS)}) if count else []
    layers: dict[str, Callable[[LayerGradient], str]] = {
        ">Layer": lambda layer: str(layer.position + 1),
        "Path": lambda layer: layer.path,
        "Kind": lambda layer: layer.kind,
        ">Gradient norm": lambda layer: _ends(layer.gradient_norm),
        ">Over weight norm": lambda layer: plain(_over(layer.gradient_norm, layer.weight_norm)),
        ">Gradient of the output, rms": lambda layer: _ends(layer.signal_rms),
    }
    stages: dict[str, Callable[[StageActivation], str]] = {
        "Stage": lambda stage: stage.stage,
        ">Mean": lambda stage: NULL if stage.mean is None else plain(stage.mean.median),
        ">Standard deviation": lambda stage: NULL if stage.std is None else plain(stage.std.median),
        ">Zeros": lambda stage: percent(stage.zero_share.median) if stage.zero_share else NULL,
    }
    blocks: list[Block] = [
        Paragraph(gradient_line(health)),
        *([picture] if drawable else []),
        tabled(
            [health.layers[place] for place in chosen],
            layers,
            f"Gradients of {len(chosen)} of {count} weight layers at initialisation",
        ),
    ]
    if health.stages:
        blocks.append(tabled(health.stages, stages, "What comes out of each stage at initialisation"))
    return Section(title="Gradients at initialisation", blocks=tuple(blocks))


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


def _over(upper: AcrossSeeds | None, lower: AcrossSeeds | None) -> float | None:
    return upper.median / lower.median if upper and lower and lower.median else None


def _ends(spread: AcrossSeeds | None) -> str:
    return NULL if spread is None else f"{plain(spread.median)} ({plain(spread.low)} to {plain(spread.high)})"


def _mib(size: float) -> str:
    return f"{figure(size, MIB)} MiB"
