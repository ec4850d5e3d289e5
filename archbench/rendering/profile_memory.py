"""What a profile says of memory and of gradients, as sections."""

from __future__ import annotations

from collections.abc import Sequence

from archbench.model.profile import CATEGORIES, AcrossSeeds, GradientHealth, MemoryCategory, MemoryTimeline
from archbench.model.units import MIB, NULL, figure, fixed, percent, plain
from archbench.rendering.content import Block, Fold, Paragraph, Section, Table

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


def memory_section(timeline: MemoryTimeline, batch_size: int) -> Section:
    """The peak by category, what is kept for the backward pass, and what holds the peak."""
    blocks: list[Block] = [Paragraph(memory_line(timeline)), _categories(timeline)]
    if timeline.note:
        blocks.append(Paragraph(timeline.note))
    if timeline.saved_bytes:
        blocks += [Paragraph(saved_line(timeline, batch_size)), _kinds(timeline)]
    blocks += [_stages(timeline), Fold(summary="The largest tensors at the peak", blocks=(_holders(timeline),))]
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


_DURING = {
    "forward": "in the forward pass",
    "backward": "in the backward pass",
    "update": "in the optimizer's step",
    "compiled": "in the compiled step",
}


def saved_line(timeline: MemoryTimeline, batch_size: int) -> str:
    """How much the forward pass keeps, and the kinds of tensor that most of it is: one sentence."""
    kinds = _by_maker(timeline)[:_KINDS_IN_WORDS]
    parts = (f"`{name}` {percent(size / timeline.saved_bytes)}" for name, size, _, _ in kinds)
    return (
        f"{_mib(timeline.saved_bytes)} are kept for the backward pass, {_mib(timeline.saved_bytes / batch_size)} an "
        f"image, results of {', '.join(parts)}."
    )


def _categories(timeline: MemoryTimeline) -> Table:
    peak = timeline.peak
    highest = [max(point.by_category[place] for point in timeline.points) for place in range(len(CATEGORIES))]
    rows = [
        (
            category,
            fixed(size, MIB, 1),
            percent(size / peak.total) if peak.total else NULL,
            fixed(most, MIB, 1),
            MEANINGS[category],
        )
        for category, size, most in zip(CATEGORIES, peak.by_category, highest, strict=True)
        if most
    ]
    return Table(
        headings=("Category", "At the peak, MiB", "Share", "At most, MiB", "What it is"),
        rows=tuple(rows),
        numeric=frozenset({1, 2, 3}),
        caption="Live memory at the peak, by category",
    )


def _kinds(timeline: MemoryTimeline) -> Table:
    rows = [
        (name, fixed(size, MIB, 1), percent(size / timeline.saved_bytes), str(tensors), ", ".join(needed))
        for name, size, tensors, needed in _by_maker(timeline)[:_MOST_KINDS]
        if size >= _SMALL * timeline.saved_bytes
    ]
    return Table(
        headings=("Made by", "Kept, MiB", "Share", "Tensors", "Needed by the backward pass of"),
        rows=tuple(rows),
        numeric=frozenset({1, 2, 3}),
        caption="Activations kept for the backward pass, by the operator that made them",
    )


def _by_maker(timeline: MemoryTimeline) -> list[tuple[str, int, int, tuple[str, ...]]]:
    """Name, bytes, tensors and needing functions of each kind of operator, the largest first."""
    sizes: dict[str, list[int]] = {}
    needed: dict[str, dict[str, None]] = {}
    for kind in timeline.saved_by_operator:
        total = sizes.setdefault(kind.made_by, [0, 0])
        total[0] += kind.bytes
        total[1] += kind.tensors
        needed.setdefault(kind.made_by, {}).update(dict.fromkeys(kind.needed_by))
    ranked = sorted(sizes.items(), key=lambda item: -item[1][0])
    return [(name, size, tensors, tuple(needed[name])) for name, (size, tensors) in ranked]


def _stages(timeline: MemoryTimeline) -> Table:
    rows = [
        (stage.stage or "(no stage)", fixed(stage.saved_bytes or None, MIB, 1), fixed(stage.peak_bytes, MIB, 1))
        for stage in timeline.stages
    ]
    return Table(
        headings=("Stage", "Kept for backward, MiB", "Alive at the peak, MiB"),
        rows=tuple(rows),
        numeric=frozenset({1, 2}),
        caption="Memory by stage",
    )


def _holders(timeline: MemoryTimeline) -> Table:
    rows = [
        (
            holder.path or NULL,
            holder.category,
            holder.operator or NULL,
            _times(holder.shape),
            holder.dtype,
            fixed(holder.bytes, MIB, 2),
        )
        for holder in timeline.holders[:_MOST_HOLDERS]
    ]
    return Table(
        headings=("Module or parameter", "Category", "Made by", "Shape", "Type", "MiB"),
        rows=tuple(rows),
        numeric=frozenset({5}),
    )


def gradient_section(health: GradientHealth) -> Section:
    """Whether the error reaches the first layers, in a sentence; layers and stages as tables."""
    blocks: list[Block] = [Paragraph(gradient_line(health)), _layers(health)]
    if health.stages:
        blocks.append(_activations(health))
    return Section(title="Gradients at initialisation", blocks=tuple(blocks))


EXPLODED, VANISHED = 100.0, 0.01
"""First over last weight layer. Networks that train lie well within, ResNet-56 at 0.4; plain-56 is at 1,800."""


def gradient_line(health: GradientHealth) -> str:
    """The ratio of first to last and what it means: a sentence or two."""
    how = f"Median of {health.seeds} draws of weights and of {health.batch_size} random images"
    if health.first_to_last is None:
        said = f"{how}: the ratio of first to last layer cannot be formed, a gradient is 0 or not finite. "
        return (said + _silent(health)).rstrip()
    ratio = health.first_to_last
    said = f"{how}: the gradient of the first layer's weights is {_ratio(ratio)} that of the last's. "
    if ratio.median >= EXPLODED:
        said += "It grows on its way back: one learning rate cannot suit both ends of the network. "
    elif ratio.median <= VANISHED:
        said += "It fades on its way back: the first layers hardly learn. "
    return (said + _silent(health)).rstrip()


def _silent(health: GradientHealth) -> str:
    if not health.without_gradient:
        return ""
    some = ", ".join(f"`{path}`" for path in health.without_gradient[:3])
    more = f" and {len(health.without_gradient) - 3} more" if len(health.without_gradient) > 3 else ""
    return f"No gradient reaches {some}{more}."


def _layers(health: GradientHealth) -> Table:
    count = len(health.layers)
    chosen = sorted({round(place * (count - 1) / (_MOST_LAYERS - 1)) for place in range(_MOST_LAYERS)}) if count else []
    rows = [
        (
            str(layer.position + 1),
            layer.path,
            layer.kind,
            _spread(layer.gradient_norm),
            plain(_over(layer.gradient_norm, layer.weight_norm)),
            _spread(layer.signal_rms),
        )
        for layer in (health.layers[place] for place in chosen if place < count)
    ]
    return Table(
        headings=("Layer", "Path", "Kind", "Gradient norm", "Over weight norm", "Gradient of the output, rms"),
        rows=tuple(rows),
        numeric=frozenset({0, 3, 4, 5}),
        caption=f"Gradients of {len(rows)} of {count} weight layers at initialisation",
    )


def _activations(health: GradientHealth) -> Table:
    rows = [
        (
            stage.stage,
            _median(stage.mean),
            _median(stage.std),
            percent(stage.zero_share.median) if stage.zero_share else NULL,
        )
        for stage in health.stages
    ]
    return Table(
        headings=("Stage", "Mean", "Standard deviation", "Zeros"),
        rows=tuple(rows),
        numeric=frozenset({1, 2, 3}),
        caption="What comes out of each stage at initialisation",
    )


def _over(upper: AcrossSeeds | None, lower: AcrossSeeds | None) -> float | None:
    return upper.median / lower.median if upper and lower and lower.median else None


def _spread(spread: AcrossSeeds | None) -> str:
    return NULL if spread is None else f"{plain(spread.median)} ({plain(spread.low)} to {plain(spread.high)})"


def _median(spread: AcrossSeeds | None) -> str:
    return NULL if spread is None else plain(spread.median)


def _ratio(spread: AcrossSeeds) -> str:
    return f"{plain(spread.median)} times ({plain(spread.low)} to {plain(spread.high)})"


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _mib(size: float) -> str:
    return f"{figure(size, MIB)} MiB"
