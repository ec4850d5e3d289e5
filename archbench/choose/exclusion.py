"""Why a network is not in a ranking: of its cells the one that came nearest, and what that one lacks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct

from archbench.choose.evaluate import Truth, numbers, plain_values
from archbench.choose.ties import Estimate, Margin
from archbench.model.derived import judged_columns, without_unit
from archbench.model.reasons import REASONS
from archbench.query.expression import Compare, Expression, Value, leaves, show

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

_CIRCUMSTANCES = frozenset({"batch_size", "input_size", "protocol_version", "schema_version"})
"""Numbers that say which cell it is, as columns of text do, and not how well it does."""
IDENTITY = ("variant", "cell_id", "status", "verdict", "error_message", "reasons")
"""Columns that say which cell a row is and what became of it."""


class Miss(Struct, frozen=True, kw_only=True):
    """One condition that a cell does not satisfy."""

    condition: str
    actual: tuple[tuple[str, Value | None], ...]
    """The columns that the condition names, and the cell's values in stored units; `None` is not measured."""
    bound: float | None = None
    """What a single number was compared with, in the stored unit."""
    excess: float | None = None
    """How far beyond the bound, as a ratio less 1; `None` where there is no one number to compare."""
    unmeasured: str | None = None
    """Why the column is null, where the row says so."""


class Comparison(Struct, frozen=True, kw_only=True):
    """Two cells in one goal."""

    better: Estimate
    worse: Estimate
    margin: Margin | None
    """`None` where no ratio can be formed."""


class Beaten(Struct, frozen=True, kw_only=True):
    """A cell off the Pareto front: another that is nowhere worse, and by how much it is better in each goal."""

    by: str
    comparisons: tuple[Comparison, ...]


class LeftOut(Struct, frozen=True, kw_only=True):
    """A network without a place in the ranking."""

    network: str
    cell_id: str
    """The cell of it that came nearest."""
    elsewhere: bool = False
    """No cell of it is of the kind that the conditions choose: not measured in that phase, say."""
    misses: tuple[Miss, ...] = ()
    failure: str | None = None
    """What became of the cell where it has no figures fit to rank."""
    beaten: Beaten | None = None


def left_out(
    frame: pd.DataFrame,
    conditions: Sequence[Expression],
    truths: Sequence[Truth],
    goals: Sequence[str],
    ranked: NDArray[np.bool_],
) -> tuple[LeftOut, ...]:
    """Every network of `frame` that no `ranked` row belongs to, in the order of how near they came.

    `truths` are those of `conditions` on the frame's rows; `goals` the columns to rank by.
    """
    network = frame.groupby("variant", sort=False).ngroup().to_numpy()
    there = np.bincount(network[ranked], minlength=network.max(initial=-1) + 1) > 0
    absent = np.flatnonzero(~there[network])
    order = absent[np.lexsort([key[absent] for key in _nearness(frame, conditions, truths)])]
    _, first = np.unique(network[order], return_index=True)
    nearest = order[np.sort(first)]
    terms = [_term(condition) for condition in conditions]
    cells = _Cells(frame, nearest, (*IDENTITY, *(name for term in terms for name in term.columns), *goals))
    satisfied = zip(*(truth.yes[nearest].tolist() for truth in truths), strict=True) if truths else [()] * len(nearest)
    return tuple(
        cells.explained(place, [one for one, yes in zip(terms, fine, strict=True) if not yes], goals)
        for place, fine in enumerate(satisfied)
    )


class _Term(Struct, frozen=True, kw_only=True):
    """One condition with what is needed of it for every row that it excludes."""

    text: str
    columns: tuple[str, ...]
    bound: float | None
    chooses_cells: bool


def _term(condition: Expression) -> _Term:
    columns = tuple(dict.fromkeys(leaf.column for leaf in leaves(condition)))
    compared = isinstance(condition, Compare) and not isinstance(condition.value, (str, bool))
    return _Term(
        text=show(condition),
        columns=columns,
        bound=float(condition.value) if isinstance(condition, Compare) and compared else None,
        chooses_cells=_chooses_cells(columns),
    )


def _chooses_cells(columns: Iterable[str]) -> bool:
    """Whether a condition on these says which cell is meant, and nothing of how well it does."""
    return all(judged_columns()[name].kind == "text" or name in _CIRCUMSTANCES for name in columns)


def _nearness(
    frame: pd.DataFrame, conditions: Sequence[Expression], truths: Sequence[Truth]
) -> list[NDArray[np.float64]]:
    """Keys to sort rows by, the last one first: the right cell at all, measured, fewest misses, smallest miss."""
    wrong_cell, missed, excess = (np.zeros(len(frame)) for _ in range(3))
    for condition, truth in zip(conditions, truths, strict=True):
        if _chooses_cells(leaf.column for leaf in leaves(condition)):
            wrong_cell += ~truth.yes
        else:
            missed += ~truth.yes
            excess = np.maximum(excess, np.where(truth.yes, 0.0, _excess(condition, frame)))
    unfit = ((frame["status"] != "ok") | (frame["verdict"] == "invalid")).to_numpy(dtype=bool)
    return [excess, missed, unfit.astype(float), wrong_cell]


def _excess(condition: Expression, frame: pd.DataFrame) -> NDArray[np.float64]:
    """How far each row is from a single bound, in logs; infinite where that has no meaning."""
    far = np.full(len(frame), np.inf)
    if not isinstance(condition, Compare) or isinstance(condition.value, (str, bool)) or condition.value <= 0:
        return far
    figures = numbers(frame[condition.column])
    known = figures > 0
    far[known] = np.abs(np.log(figures[known] / condition.value))
    return far


class _Cells:
    """Some rows of the frame as plain values, to be looked at one by one."""

    def __init__(self, frame: pd.DataFrame, places: NDArray[np.int64], names: Iterable[str]) -> None:
        self._columns: dict[str, list[Any]] = {}
        for name in dict.fromkeys(names):
            values = frame[name].iloc[places]
            kind = judged_columns()[name].kind
            self._columns[name] = plain_values(values.astype(float) if kind in ("real", "whole") else values)

    def explained(self, place: int, unsatisfied: Sequence[_Term], goals: Sequence[str]) -> LeftOut:
        """Why the network of this row is left out."""
        misses = [self._miss(place, term) for term in unsatisfied]
        failure = self._failure(place)
        if failure is not None:
            # Most figures are missing because it failed; conditions on them would only say so again.
            misses = [miss for miss in misses if any(value is not None for _, value in miss.actual)]
        elif not misses:
            misses = [
                Miss(condition=without_unit(goal), actual=((goal, None),), unmeasured=self._why_null(place, goal))
                for goal in goals
                if self._value(place, goal) is None
            ]
        return LeftOut(
            network=str(self._columns["variant"][place]),
            cell_id=str(self._columns["cell_id"][place]),
            elsewhere=any(term.chooses_cells for term in unsatisfied),
            misses=tuple(misses),
            failure=failure,
        )

    def _failure(self, place: int) -> str | None:
        status, verdict, message, reasons = (
            self._columns[name][place] for name in ("status", "verdict", "error_message", "reasons")
        )
        if status != "ok":
            return f"{status}: {message}" if message else str(status)
        if verdict == "invalid":
            codes = [code for code in reasons if code in REASONS and REASONS[code].effect == "invalid"]
            return f"invalid: {', '.join(codes)}" if codes else "invalid"
        return None

    def _miss(self, place: int, term: _Term) -> Miss:
        actual = tuple((name, self._value(place, name)) for name in term.columns)
        value, bound, excess = actual[0][1], term.bound, None
        if bound is not None and isinstance(value, float) and value > 0 and bound > 0:
            excess = math.expm1(abs(math.log(value / bound)))
        nothing = next((name for name, known in actual if known is None), None)
        why = None if nothing is None else self._why_null(place, nothing)
        return Miss(condition=term.text, actual=actual, bound=bound, excess=excess, unmeasured=why)

    def _value(self, place: int, column: str) -> Value | None:
        value = self._columns[column][place]
        return ", ".join(value) or None if isinstance(value, tuple) else value

    def _why_null(self, place: int, column: str) -> str | None:
        """What the row's reasons say of a column that is null."""
        reasons = self._columns["reasons"][place]
        codes = [code.rpartition(":")[2] for code in reasons if code.startswith(f"{column}:")]
        if not codes:
            return "nobody has published it" if column in ("top1", "top5") else None
        return REASONS[codes[0]].meaning if codes[0] in REASONS else codes[0]
