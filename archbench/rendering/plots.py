"""The figures that the plots of a run draw: one point a cell, and the filters that a page offers for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from msgspec import Struct

from archbench.choose.cell_summary import CellSummary, setting_labels
from archbench.choose.toggles import gain
from archbench.model.units import GIGA, MIB, MILLION, MS
from archbench.rendering.content import Dataset, Facet

NAME = "cells"
MOST_CELLS = 2000
"""Cells beyond which only some networks are drawn: more points are a cloud, and slow to draw."""
FAMILY_COLOURS = 5
"""Families with a colour of their own; the others share one, as no palette holds more that everybody can tell apart."""
OTHERS = "others"
_NO_FAMILY = "no family"
_DIGITS = 6
"""Significant digits: no picture and no hover shows more, and they are a third of a page's bytes."""


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
        name=NAME,
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
    front = _front(same)
    others = [name for name in dict.fromkeys([*(one.variant for one in same), *names]) if name not in front]
    room = max(1, MOST_CELLS * len(names) // len(cells) - len(front))
    kept = front | set(others[:: max(1, -(-len(others) // room))])
    # A few networks with very many cells each would still be too many points.
    return [one for one in cells if one.variant in kept][: 2 * MOST_CELLS]


def _front(by_time: Iterable[CellSummary]) -> set[str]:
    """The networks that are more accurate than every faster one."""
    front, best = set(), 0.0
    for one in by_time:
        if one.top1 is not None and one.top1 > best:
            front.add(one.variant)
            best = one.top1
    return front


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
