"""The plots of a run: which there are and what each says; the figures that they draw, and the filters of a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

import msgspec
from msgspec import Struct

from archbench.choose.cell_summary import CellSummary, setting_labels
from archbench.choose.toggles import gain
from archbench.model.units import GIGA, MIB, MILLION, MS
from archbench.rendering import charts
from archbench.rendering.charts import OTHERS, Point, bars, chosen, cloud, curves, fronts, keep, largest_usual_batch
from archbench.rendering.content import Dataset, Facet, Picture, Section, fold, section

_NOTE = (
    "Medians, with 95 % intervals as lines. A stepped line joins the networks that no other beats in both figures at "
    "once; hollow marks are suspect. Phases, batch sizes and machines never share a plot: each says at its top which "
    "ones it shows. Points are named where there is room, those on a line first."
)

MOST_CELLS = 2000
"""Cells beyond which only some networks are drawn: more points are a cloud, and slow to draw."""
FAMILY_COLOURS = 5
"""Families with a colour of their own; the others share one, as no palette holds more that everybody can tell apart."""
_NO_FAMILY = "no family"
_DIGITS = 6
"""Significant digits: no picture and no hover shows more, and they are a third of a page's bytes."""


def plotted(cells: Sequence[CellSummary], settings: Iterable[str], label: Sequence[str] = ("*",)) -> Dataset | None:
    """The cells that were measured and are not invalid; `None` where there are none.

    `settings`: the suite's own names, in its order. `label`: patterns of the networks to name. Beyond
    `MOST_CELLS`, whole networks are left out: every one on the front of accuracy over time stays, and of the others
    evenly many from the fastest to the slowest.
    """
    usable = [one for one in cells if one.is_usable]
    if not usable:
        return None
    order = {label: place for place, label in enumerate(setting_labels(cells, settings))}
    shown = usable if len(usable) <= MOST_CELLS else _some_networks(usable)
    families = Counter({one.variant: one.family or _NO_FAMILY for one in shown}.values())
    coloured = {family for family, _ in families.most_common(FAMILY_COLOURS)}
    plain = {_identity(one): one for one in shown if one.is_plain}
    datasets = Counter({one.variant: one.accuracy_dataset for one in shown if one.top1 is not None}.values())
    dataset, _ = next(iter(datasets.most_common(1)), (None, 0))
    points = [_point(one, plain.get(_identity(one)), order, coloured, dataset, label) for one in shown]
    notes = []
    if len(datasets) > 1:
        notes.append(f"Plots of accuracy show {dataset} alone, of which most networks' accuracies are.")
    if len(shown) < len(usable):
        notes.append(
            f"Plots show {len(shown):,} of {len(usable):,} measured cells: every network on the front of accuracy "
            "over time, and of the others some from the fastest to the slowest. All are in `results.parquet`."
        )
    return Dataset(
        name=charts.NAME,
        columns=Point.__struct_fields__,
        rows=tuple(tuple(getattr(point, name) for name in Point.__struct_fields__) for point in points),
        facets=tuple(facet for facet in _facets(cells, list(order)) if len(facet.options) > 1),
        left_out=" ".join(notes) or None,
    )


def _facets(cells: Sequence[CellSummary], settings: list[str]) -> list[Facet]:
    """Filters for all cells: tables hold failed ones too, and those that no plot has room for."""
    families = {one.network: one.family or _NO_FAMILY for one in cells}
    phases, machines = (sorted({getattr(one, name) for one in cells}) for name in ("phase", "hardware_class"))
    batches = (str(size) for size in sorted({one.batch_size for one in cells}))
    return [
        Facet(
            column="family",
            label="Family",
            options=tuple(sorted(set(families.values()))),
            heading="Network",
            stands_for=families,
        ),
        Facet(column="setting", label="Setting", options=tuple(settings), heading="Setting"),
        Facet(column="phase", label="Phase", options=tuple(phases), heading="Phase"),
        Facet(column="batch", label="Batch size", options=tuple(batches), heading="Batch"),
        Facet(column="machine", label="Hardware", options=tuple(machines), heading="Hardware"),
    ]


def _some_networks(cells: Sequence[CellSummary]) -> list[CellSummary]:
    """About `MOST_CELLS` of the cells, all of a network or none."""
    names = dict.fromkeys(one.variant for one in cells)
    # One cell stands for a network: that of the phase, batch size and setting which most of them have.
    terms = Counter((one.phase, one.batch_size, one.setting_label) for one in cells).most_common(1)[0][0]
    same = [one for one in cells if (one.phase, one.batch_size, one.setting_label) == terms and one.rank_latency_s]
    same.sort(key=lambda one: (one.rank_latency_s or 0.0, -(one.top1 or 0.0)))
    front, best = set(), 0.0  # the networks that are more accurate than every faster one
    for one in same:
        if (one.top1 or 0.0) > best:
            front.add(one.variant)
            best = one.top1 or 0.0
    others = [name for name in dict.fromkeys([*(one.variant for one in same), *names]) if name not in front]
    room = max(1, MOST_CELLS * len(names) // len(cells) - len(front))
    kept = front | set(others[:: max(1, -(-len(others) // room))])
    # A few networks with very many cells each would still be too many points.
    return [one for one in cells if one.variant in kept][: 2 * MOST_CELLS]


def _identity(one: CellSummary) -> tuple[object, ...]:
    """All that two settings of one network must share for one to be held against the other."""
    return (one.variant, one.phase, one.batch_size, one.input_size, one.hardware_class, one.threads)


def _point(
    one: CellSummary,
    plain: CellSummary | None,
    order: dict[str, int],
    coloured: set[str],
    dataset: str | None,
    label: Sequence[str],
) -> Point:
    found = gain(plain, one) if plain is not None and not one.is_plain else None
    family = one.family or _NO_FAMILY
    return Point(
        network=one.network,
        family=family,
        colour=family if family in coloured else OTHERS,
        setting=one.setting_label,
        setting_order=order[one.setting_label],
        phase=one.phase,
        batch=one.batch_size,
        machine=one.hardware_class,
        size=one.input_size,
        params=_in(one.params, MILLION.size),
        macs=_in(one.macs, GIGA.size),
        activations=_in(one.activations, MILLION.size),
        top1=_in(one.top1) if one.accuracy_dataset == dataset else None,
        latency=_in(one.rank_latency_s, MS.size),
        latency_low=_in(one.rank_latency_low_s, MS.size),
        latency_high=_in(one.rank_latency_high_s, MS.size),
        rate=_in(one.rank_throughput_img_s),
        rate_low=_in(one.rank_throughput_low_img_s),
        rate_high=_in(one.rank_throughput_high_img_s),
        memory=_in(one.peak_bytes, MIB.size),
        gain=_in(found.ratio) if found else None,
        gain_low=_in(found.low) if found else None,
        gain_high=_in(found.high) if found else None,
        verdict=one.verdict_label,
        named=any(fnmatchcase(one.variant, pattern) for pattern in label),
    )


def _in(value: float | None, unit: float = 1.0) -> float | None:
    """The value in a unit, rounded to `_DIGITS`; nothing where it is infinite, as JSON has no word for that."""
    if value is None or not abs(value) < float("inf"):
        return None
    return float(f"{value / unit:.{_DIGITS}g}")


class _Plot(Struct, frozen=True, kw_only=True):
    name: str
    """Of its file."""
    title: str
    alt: str
    drawable: Callable[[list[Point]], bool]
    """Whether these cells are enough for it."""
    draw: Callable[[list[Point]], str]
    folded: bool = False
    """Stands behind a line that opens it."""


def plots(cells: Dataset | None) -> Section | None:
    """The plots that these cells (of `plotted`) are enough for; `None` where that is not one."""
    if cells is None:
        return None
    points = [msgspec.convert(dict(zip(cells.columns, row, strict=True)), Point) for row in cells.rows]

    def pictures(*, folded: bool) -> list[Picture]:
        those = [plot for plot in PLOTS if plot.folded == folded and plot.drawable(points)]
        return [Picture(name=plot.name, title=plot.title, alt=plot.alt, spec=plot.draw(points)) for plot in those]

    more = pictures(folded=True)
    return section("Plots", pictures(folded=False), fold(f"{len(more)} more plots", more), note=(_NOTE, cells.left_out))


def _several(values: Iterable[object]) -> bool:
    return len(set(values)) > 1


def _training_memory(points: Sequence[Point]) -> str:
    """A line for each network under the first setting, or a bar where there is one batch size."""
    training = keep("datum.phase === 'training'")
    trained = [one for one in points if one.memory and one.phase == "training"]
    if _several(one.batch for one in trained):
        return curves(points, "memory", [training, *chosen("memory", "machine", "setting_order")])
    return bars(points, "memory", [training, *chosen("memory", "machine", "batch")], largest_first=False)


PLOTS = (
    _Plot(
        name="accuracy-over-latency",
        title="Top-1 accuracy over latency",
        alt="Each point is a network under one setting. Further left is faster, higher is more accurate.",
        drawable=lambda points: any(one.latency and one.top1 for one in points),
        draw=lambda points: fronts(points, "latency", chosen("latency", "phase_order", "machine", "batch")),
    ),
    _Plot(
        name="accuracy-over-throughput",
        title="Top-1 accuracy over throughput",
        alt="Each point is a network under one setting, at the largest batch size that most networks ran. "
        "Further right is faster, higher is more accurate.",
        # At one batch size it would be the plot over latency turned round.
        drawable=lambda points: _several(one.batch for one in points if one.rate and one.top1),
        draw=lambda points: fronts(points, "rate", [*chosen("rate", "phase_order", "machine"), *largest_usual_batch()]),
    ),
    _Plot(
        name="gains",
        title="What each setting gains",
        alt="A bar for each network and setting: how many times faster it is than the same network in fp32 "
        "without compilation. Bars to the left of 1 are slower.",
        drawable=lambda points: any(one.gain for one in points),
        draw=lambda points: bars(points, "gain", chosen("gain", "phase_order", "machine", "batch"), largest_first=True),
    ),
    _Plot(
        name="training-memory",
        title="Memory of training",
        alt="The peak memory of a training step for each network, over the batch size where several were measured.",
        drawable=lambda points: any(one.memory and one.phase == "training" for one in points),
        draw=_training_memory,
    ),
    _Plot(
        name="throughput-over-batch",
        title="Throughput over batch size",
        alt="A line for each network: the images per second as the batch grows. Where it flattens, larger batches "
        "gain nothing.",
        drawable=lambda points: _several(one.batch for one in points if one.rate),
        draw=lambda points: curves(points, "rate", chosen("rate", "phase_order", "machine", "setting_order")),
    ),
    _Plot(
        name="latency-over-batch",
        title="Latency over batch size",
        alt="A line for each network: the time of a batch as the batch grows.",
        drawable=lambda points: _several(one.batch for one in points if one.latency),
        draw=lambda points: curves(points, "latency", chosen("latency", "phase_order", "machine", "setting_order")),
    ),
    _Plot(
        name="accuracy-over-macs",
        title="Top-1 accuracy over multiply-accumulates",
        alt="Each point is a network. Further left needs fewer multiply-accumulates, higher is more accurate. "
        "Nothing here was timed: compare it with the plot over latency.",
        drawable=lambda points: any(one.macs and one.top1 for one in points),
        draw=lambda points: fronts(points, "macs", chosen("macs", "phase_order", "machine", "batch", "setting_order")),
        folded=True,
    ),
    _Plot(
        name="latency-over-macs",
        title="Latency over multiply-accumulates",
        alt="Each point is a network. If multiply-accumulates were all that counts, the points would lie on one "
        "rising line.",
        drawable=lambda points: _several(one.network for one in points if one.latency and one.macs),
        draw=lambda points: cloud(points, "macs"),
        folded=True,
    ),
    _Plot(
        name="latency-over-activations",
        title="Latency over activations",
        alt="Each point is a network. If activations were all that counts, the points would lie on one rising line.",
        drawable=lambda points: _several(one.network for one in points if one.latency and one.activations),
        draw=lambda points: cloud(points, "activations"),
        folded=True,
    ),
)
"""In the order in which they are shown."""
