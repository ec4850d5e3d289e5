"""Accuracy against latency, throughput and memory: the networks that no other beats in one without losing the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from archbench.choose.cell_summary import CellSummary
from archbench.choose.margins import Estimate, pareto_front
from archbench.model.units import NULL, RATIO, Unit, fixed, memory_unit
from archbench.rendering.content import Block, Fold, Paragraph, Section, listed, of
from archbench.rendering.figures import BATCH, NETWORK, PHASES, SETTING, CellColumns, by_phase, latency, rate
from archbench.rendering.run_data import RunData

_OBJECTIVES = ("latency", "img/s", "memory")
_FEWEST = 3
"""Networks with an accuracy below which a front says nothing."""


class Member(Struct, frozen=True, kw_only=True):
    """A cell on a front of at least one objective, or within the noise of one."""

    cell: CellSummary
    on: tuple[str, ...]
    near: tuple[str, ...]


def pareto(run: RunData) -> Section | None:
    """The fronts of every phase, setting and batch size that has enough networks; `None` where none has."""

    def blocks(phase: str) -> list[Block]:
        ranked = [one for one in run.cells if one.phase == phase and one.is_usable and one.top1 is not None]
        unit = memory_unit(one.peak_bytes for one in ranked if one.peak_bytes is not None)
        found: list[Block] = []
        for label in run.settings:
            caption = f"{PHASES[phase]}, {label}: accuracy against time and memory"
            table = _table(_members(one for one in ranked if one.setting_label == label), unit, caption)
            # The first setting is read by everybody, the others by who wants them.
            found += table if not found else [Fold(summary=label, blocks=tuple(table))] if table else []
        return found

    parts = by_phase("{}: fronts", blocks)
    if not parts:
        return None
    return Section(title="Accuracy against time and memory", blocks=(Paragraph(_note(run)), *parts))


def _members(cells: Iterable[CellSummary]) -> list[Member]:
    """The fronts of one setting by data set and batch, the most accurate first; image sizes as published together."""
    alike: dict[tuple[str, int, int], list[CellSummary]] = {}
    for one in cells:
        alike.setdefault((one.accuracy_dataset or "", one.asked_size or 0, one.batch_size), []).append(one)
    found = []
    for _, members in sorted(alike.items()):
        if len(members) < _FEWEST:
            continue
        marks = [_marks(members, objective) for objective in _OBJECTIVES]
        kept = [
            Member(
                cell=members[place],
                on=tuple(name for name, (on, _) in zip(_OBJECTIVES, marks, strict=True) if on[place]),
                near=tuple(name for name, (_, near) in zip(_OBJECTIVES, marks, strict=True) if near[place]),
            )
            for place in np.flatnonzero(np.any(marks, axis=(0, 1)))
        ]
        found += sorted(kept, key=lambda member: (-(member.cell.top1 or 0.0), member.cell.variant))
    return found


def _marks(cells: Sequence[CellSummary], objective: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which cells are on the front of accuracy and one objective, and which would be were they better by the noise."""
    costs = np.array([(-(one.top1 or 0.0), _cost(one, objective)) for one in cells], dtype=float)
    on = pareto_front(costs)
    near = np.zeros(len(cells), dtype=bool)
    if objective != "memory":  # which does not vary from one measurement to the next
        halves = np.array([_timed(one, objective).half for one in cells])
        lucky = np.repeat(costs[:, None], on.sum(), axis=1)
        lucky[..., 1] /= np.exp(np.hypot(halves[:, None], halves[on][None]))
        front = costs[on][None]
        beaten = np.any(np.all(front <= lucky, axis=2) & np.any(front < lucky, axis=2), axis=1)
        near = ~on & ~beaten & ~np.isnan(costs).any(axis=1)
    return on, near


def _cost(one: CellSummary, objective: str) -> float:
    """Smaller is better; NaN where it was not measured, or its interval is too wide to be evidence."""
    if objective == "memory":
        return one.peak_bytes or np.nan
    figure = _timed(one, objective)
    if not figure.evidence or not figure.value:
        return np.nan
    return figure.value if objective == "latency" else 1 / figure.value


def _timed(one: CellSummary, objective: str) -> Estimate:
    return one.timed("latency" if objective == "latency" else "throughput")


def _table(members: Sequence[Member], unit: Unit, caption: str) -> list[Block]:
    columns: CellColumns = {
        **NETWORK,
        **SETTING,
        **BATCH,
        ">Top-1 %": lambda one: fixed(one.top1, RATIO, 1),
        "Data set": lambda one: one.accuracy_dataset or NULL,
        ">Latency ms": latency,
        ">img/s": rate,
        f">Peak {unit.symbol}": lambda one: fixed(one.peak_bytes, unit, 0 if unit.symbol == "MiB" else 2),
    }
    if len({member.cell.accuracy_dataset for member in members}) == 1:
        del columns["Data set"]
    front: dict[str, Callable[[Member], str]] = {
        **of(lambda member: member.cell, columns),
        "On the front of": lambda member: ", ".join([*member.on, *(f"nearly {name}" for name in member.near)]),
    }
    return listed(members, front, noun="cells on a front", caption=caption)


def _note(run: RunData) -> str:
    without = {one.variant for one in run.cells if one.top1 is None}
    sizes = {one.input_size for one in run.cells if one.top1 is not None and one.input_size is not None}
    note = (
        "Networks that no other beats in accuracy without being slower, or larger in memory, among cells of one "
        "setting and batch size. Nearly: would be on the front were it faster by its ± and the other's."
    )
    if len({one.accuracy_dataset for one in run.cells if one.top1 is not None}) > 1:
        note += " Networks whose accuracies are of different data sets stand on different fronts."
    if len(sizes) > 1:
        note += (
            " Image sizes differ: each network is ranked at the size at which it was measured, and its accuracy is "
            "that of its own size and recipe (see the sources below)."
        )
    if without:
        of = "1 network" if len(without) == 1 else f"{len(without):,} networks"
        note += f" Of {of} archbench knows no accuracy, so that they cannot be ranked here; a suite can state it."
    return note
