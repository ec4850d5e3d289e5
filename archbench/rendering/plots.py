"""The plots of a run: which there are, what each says, and what it needs. `charts` defines how they look."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from msgspec import Struct

from archbench.rendering.content import Block, Dataset, Fold, Paragraph, Picture, Section
from archbench.rendering.points import Point

_NOTE = (
    "Medians, with 95 % intervals as lines. A stepped line joins the networks that no other beats in both figures at "
    "once. Phases, batch sizes and machines never share a plot: each says at its top which ones it shows."
)


class _Plot(Struct, frozen=True, kw_only=True):
    name: str
    """Of its file, and in `charts.CHARTS`."""
    title: str
    alt: str
    drawable: Callable[[list[Point]], bool]
    """Whether these cells are enough for it."""
    folded: bool = False
    """Stands behind a line that opens it."""


def plots(cells: Dataset) -> Section | None:
    """The plots that these cells (of `points.plotted`) are enough for; `None` where that is not one.

    Raises `ImportError` where the plotting library is missing.
    """
    points = [msgspec.convert(dict(zip(cells.columns, row, strict=True)), Point) for row in cells.rows]
    chosen = [plot for plot in _PLOTS if plot.drawable(points)]
    if not chosen:
        return None
    first = [_picture(plot, points) for plot in chosen if not plot.folded]
    folded = [_picture(plot, points) for plot in chosen if plot.folded]
    blocks: list[Block] = [Paragraph(_NOTE), *([Paragraph(cells.left_out)] if cells.left_out else []), *first]
    if folded:
        blocks.append(Fold(summary=f"{len(folded)} more plots", blocks=tuple(folded)))
    return Section(title="Plots", blocks=tuple(blocks))


def _picture(plot: _Plot, points: list[Point]) -> Picture:
    from altair.utils.schemapi import debug_mode

    from archbench.rendering.charts import CHARTS

    # Altair checks each part of a chart as it is made, which takes nine tenths of the time; the tests have it checked.
    with debug_mode(False):
        spec = CHARTS[plot.name](points).to_json(validate=False, indent=None)
    return Picture(name=plot.name, title=plot.title, alt=plot.alt, spec=spec)


def _several(values: Iterable[object]) -> bool:
    return len(set(values)) > 1


_PLOTS = (
    _Plot(
        name="accuracy-over-latency",
        title="Top-1 accuracy over latency",
        alt="Each point is a network under one setting. Further left is faster, higher is more accurate.",
        drawable=lambda points: any(one.latency and one.top1 for one in points),
    ),
    _Plot(
        name="accuracy-over-throughput",
        title="Top-1 accuracy over throughput",
        alt="Each point is a network under one setting, at the largest batch size that most networks ran. "
        "Further right is faster, higher is more accurate.",
        # At one batch size it would be the plot over latency turned round.
        drawable=lambda points: _several(one.batch for one in points if one.rate and one.top1),
    ),
    _Plot(
        name="gains",
        title="What each setting gains",
        alt="A bar for each network and setting: how many times faster it is than the same network in fp32 "
        "without compilation. Bars to the left of 1 are slower.",
        drawable=lambda points: any(one.gain for one in points),
    ),
    _Plot(
        name="training-memory",
        title="Memory of training",
        alt="The peak memory of a training step for each network, over the batch size where several were measured.",
        drawable=lambda points: any(one.memory and one.phase == "training" for one in points),
    ),
    _Plot(
        name="throughput-over-batch",
        title="Throughput over batch size",
        alt="A line for each network: the images per second as the batch grows. Where it flattens, larger batches "
        "gain nothing.",
        drawable=lambda points: _several(one.batch for one in points if one.rate),
    ),
    _Plot(
        name="latency-over-batch",
        title="Latency over batch size",
        alt="A line for each network: the time of a batch as the batch grows.",
        drawable=lambda points: _several(one.batch for one in points if one.latency),
    ),
    _Plot(
        name="accuracy-over-macs",
        title="Top-1 accuracy over multiply-accumulates",
        alt="Each point is a network. Further left needs fewer multiply-accumulates, higher is more accurate. "
        "Nothing here was timed: compare it with the plot over latency.",
        drawable=lambda points: any(one.macs and one.top1 for one in points),
        folded=True,
    ),
    _Plot(
        name="latency-over-macs",
        title="Latency over multiply-accumulates",
        alt="Each point is a network. If multiply-accumulates were all that counts, the points would lie on one "
        "rising line.",
        drawable=lambda points: _several(one.network for one in points if one.latency and one.macs),
        folded=True,
    ),
    _Plot(
        name="latency-over-activations",
        title="Latency over activations",
        alt="Each point is a network. If activations were all that counts, the points would lie on one rising line.",
        drawable=lambda points: _several(one.network for one in points if one.latency and one.activations),
        folded=True,
    ),
)
"""In the order in which they are shown."""
