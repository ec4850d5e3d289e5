"""Which rows satisfy a condition; why a network is in no ranking: of its cells the nearest, and what that one lacks.

A condition is satisfied, not satisfied, or unknown where a row is null. Only what is satisfied counts; what is null
satisfies nothing, under `not` neither (Kleene's logic, as in SQL).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct

from archbench.choose.cell_summary import Estimate, Margin, failure_line, numbers, plain_values
from archbench.choose.summary import CIRCUMSTANCES, fit_rows
from archbench.model.axes import TOGGLES, Toggles
from archbench.model.derived import judged_columns, ranked_by, without_unit
from archbench.model.reasons import REASONS
from archbench.query.expression import OPERATORS, All, Among, Compare, Expression, Not, Value, leaves, show
from archbench.query.expression import Any as Either

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

IDENTITY = ("variant", "cell_id", *TOGGLES, "status", "verdict", "error_message", "reasons")
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


class GoalMargin(Struct, frozen=True, kw_only=True):
    """Two cells in one goal."""

    better: Estimate
    worse: Estimate
    margin: Margin | None
    """`None` where no ratio can be formed."""


class Beaten(Struct, frozen=True, kw_only=True):
    """A cell off the Pareto front: another that is nowhere worse, and by how much it is better in each goal."""

    by: str
    comparisons: tuple[GoalMargin, ...]


class LeftOut(Struct, frozen=True, kw_only=True):
    """A network without a place in the ranking, or a setting of one that has its place by another."""

    network: str
    cell_id: str
    """The cell of it that came nearest."""
    setting: str
    """Its toggles in words."""
    elsewhere: bool = False
    """No cell of it is of the kind that the conditions choose: not measured in that phase, say."""
    misses: tuple[Miss, ...] = ()
    failure: str | None = None
    """What became of the cell where it has no figures fit to rank."""
    beaten: Beaten | None = None


def left_out(
    frame: pd.DataFrame, terms: Sequence[Term], goals: Sequence[str], ranked: NDArray[np.bool_]
) -> tuple[LeftOut, ...]:
    """Every network of `frame` that no `ranked` row belongs to, in the order of how near they came.

    `goals`: the columns to rank by.
    """
    network = frame.groupby("variant", sort=False).ngroup().to_numpy()
    there = np.bincount(network[ranked], minlength=network.max(initial=-1) + 1) > 0
    absent = np.flatnonzero(~there[network])
    order = absent[np.lexsort([key[absent] for key in _nearness(frame, terms)])]
    _, first = np.unique(network[order], return_index=True)
    return _all_explained(frame, terms, goals, order[np.sort(first)])


def outside(
    frame: pd.DataFrame, terms: Sequence[Term], goals: Sequence[str], places: NDArray[np.int64]
) -> tuple[LeftOut, ...]:
    """Of each network the first among the rows at `places` that is of the kind asked for, and what it misses."""
    for term in terms:
        if term.chooses_cells:
            places = places[term.truth[places]]
    first = places[~frame["variant"].iloc[places].duplicated().to_numpy()]
    return _all_explained(frame, terms, goals, first)


def _all_explained(
    frame: pd.DataFrame, terms: Sequence[Term], goals: Sequence[str], places: NDArray[np.int64]
) -> tuple[LeftOut, ...]:
    named = (*IDENTITY, *(ranked_by(name) for term in terms for name in term.columns), *map(ranked_by, goals))
    columns = {}
    for name in dict.fromkeys(named):
        column = frame[name].iloc[places]
        number = judged_columns()[name].kind in ("real", "whole")
        columns[name] = plain_values(column.astype(float) if number else column)
    rows = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
    return tuple(
        _explained(row, [term for term in terms if not term.truth[place]], goals)
        for row, place in zip(rows, places.tolist(), strict=True)
    )


class Term(Struct, frozen=True, kw_only=True):
    """One condition with what is needed of it for every row that it excludes."""

    text: str
    columns: tuple[str, ...]
    bound: float | None
    """What one number is compared with."""
    chooses_cells: bool
    """It says which cell is meant, and nothing of how well it does."""
    truth: NDArray[np.bool_]
    """Which rows satisfy it; shape (rows,)."""


def term_of(condition: Expression, frame: pd.DataFrame) -> Term:
    """The condition, judged on every row of `frame`."""
    columns = tuple(dict.fromkeys(leaf.column for leaf in leaves(condition)))
    compared = isinstance(condition, Compare) and not isinstance(condition.value, (str, bool))
    return Term(
        text=show(condition),
        columns=columns,
        bound=float(condition.value) if isinstance(condition, Compare) and compared else None,
        chooses_cells=all(judged_columns()[name].kind == "text" or name in CIRCUMSTANCES for name in columns),
        truth=satisfied(condition, frame),
    )


def _nearness(frame: pd.DataFrame, terms: Sequence[Term]) -> list[NDArray[np.float64]]:
    """Keys to sort rows by, the last one first: the right cell at all, measured, fewest misses, smallest miss."""
    wrong_cell, missed, excess = (np.zeros(len(frame)) for _ in range(3))
    for term in terms:
        if term.chooses_cells:
            wrong_cell += ~term.truth
            continue
        missed += ~term.truth
        far = np.full(len(frame), np.inf)  # where a distance from the bound has no meaning
        if term.bound is not None and term.bound > 0:
            figures = numbers(frame[ranked_by(term.columns[0])])
            known = figures > 0
            far[known] = np.abs(np.log(figures[known] / term.bound))
        excess = np.maximum(excess, np.where(term.truth, 0.0, far))
    return [excess, missed, (~fit_rows(frame)).astype(float), wrong_cell]


def _explained(row: dict[str, Any], unsatisfied: Sequence[Term], goals: Sequence[str]) -> LeftOut:
    misses = [_miss(row, term) for term in unsatisfied]
    failure = failure_line(row["status"], row["verdict"], row["error_message"], row["reasons"])
    if failure is not None:
        # Most figures are missing because it failed; conditions on them would only say so again.
        misses = [miss for miss in misses if any(value is not None for _, value in miss.actual)]
    elif not misses:
        misses = [
            Miss(condition=without_unit(goal), actual=((ranked_by(goal), None),), unmeasured=_why_null(row, goal))
            for goal in goals
            if row[ranked_by(goal)] is None
        ]
    return LeftOut(
        network=str(row["variant"]),
        cell_id=str(row["cell_id"]),
        setting=Toggles(**{name: row[name] for name in TOGGLES}).label,
        elsewhere=any(term.chooses_cells for term in unsatisfied),
        misses=tuple(misses),
        failure=failure,
    )


def _miss(row: dict[str, Any], term: Term) -> Miss:
    values = {name: row[ranked_by(name)] for name in term.columns}
    actual = tuple(
        (ranked_by(name), ", ".join(value) or None if isinstance(value, tuple) else value)
        for name, value in values.items()
    )
    value, bound, excess = actual[0][1], term.bound, None
    if bound is not None and isinstance(value, float) and value > 0 and bound > 0:
        excess = math.expm1(abs(math.log(value / bound)))
    nothing = next((name for name, (_, known) in zip(values, actual, strict=True) if known is None), None)
    why = None if nothing is None else _why_null(row, nothing)
    return Miss(condition=term.text, actual=actual, bound=bound, excess=excess, unmeasured=why)


def _why_null(row: dict[str, Any], column: str) -> str | None:
    """What the row's reasons say of a column that is null."""
    codes = [code.rpartition(":")[2] for code in row["reasons"] if code.startswith(f"{column}:")]
    if not codes:
        return "archbench knows none" if column in ("top1", "top5") else None
    return REASONS[codes[0]].meaning if codes[0] in REASONS else codes[0]


def satisfied(expression: Expression, frame: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows of `frame`, which has the columns that `expression` names, satisfy it; a mask of shape (rows,)."""
    return np.asarray(evaluate(expression, frame).to_numpy(dtype=bool, na_value=False))


def evaluate(expression: Expression, frame: pd.DataFrame) -> pd.arrays.BooleanArray:
    """Judge `expression` on every row of `frame`: true, false, or NA where what is null would decide."""
    match expression:
        case Compare(column=column, operator=sign, value=value):
            return _compare(frame[ranked_by(column)], column, sign, value)
        case Among(column=column, values=values, negated=negated):
            series = frame[ranked_by(column)]
            found = reduce(operator.or_, [_compare(series, column, "==", value) for value in values])
            return ~found if negated else found
        case Not(term=term):
            return ~evaluate(term, frame)
        case All(terms=terms):
            return reduce(operator.and_, [evaluate(term, frame) for term in terms])
        case Either(terms=terms):
            return reduce(operator.or_, [evaluate(term, frame) for term in terms])


def _compare(series: pd.Series[Any], name: str, sign: str, value: Value) -> pd.arrays.BooleanArray:
    from pandas.arrays import BooleanArray

    kind = judged_columns()[name].kind
    if kind == "texts":  # a list holds a value, or does not
        holds = np.fromiter((value in codes for codes in series), dtype=bool, count=len(series))
        return BooleanArray(holds == (sign == "=="), np.zeros(len(series), dtype=bool))
    if kind == "text":
        equal = (series == value).to_numpy(dtype=bool, na_value=False)
        return BooleanArray(equal == (sign == "=="), series.isna().to_numpy())
    figures = numbers(series)
    return BooleanArray(OPERATORS[sign](figures, float(value)), np.isnan(figures))
