"""Conditions judged on the rows of a frame, in three values: satisfied, not satisfied, and unknown where a row is null.

Only what is satisfied counts; what is null satisfies nothing, under `not` neither (Kleene's logic, as in SQL).
"""

from __future__ import annotations

import operator
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct

from archbench.model.derived import judged_columns, ranked_by
from archbench.query.expression import OPERATORS, All, Among, Compare, Expression, Not, Value
from archbench.query.expression import Any as Either

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


class Truth(Struct, frozen=True):
    """What is known of each row, two masks of shape (rows,) that never both hold."""

    yes: NDArray[np.bool_]
    no: NDArray[np.bool_]


def evaluate(expression: Expression, frame: pd.DataFrame) -> Truth:
    """Judge `expression` on every row of `frame`, which has the columns that it names."""
    match expression:
        case Compare(column=column, operator=sign, value=value):
            return _compare(frame[ranked_by(column)], column, sign, value)
        case Among(column=column, values=values, negated=negated):
            found = [_compare(frame[ranked_by(column)], column, "==", value) for value in values]
            truth = Truth(_any(one.yes for one in found), _all(one.no for one in found))
            return Truth(truth.no, truth.yes) if negated else truth
        case Not(term=term):
            inner = evaluate(term, frame)
            return Truth(inner.no, inner.yes)
        case All(terms=terms):
            truths = [evaluate(term, frame) for term in terms]
            return Truth(_all(one.yes for one in truths), _any(one.no for one in truths))
        case Either(terms=terms):
            truths = [evaluate(term, frame) for term in terms]
            return Truth(_any(one.yes for one in truths), _all(one.no for one in truths))


def numbers(series: pd.Series[Any]) -> NDArray[np.float64]:
    """A column of numbers or flags as floats, NaN where it is null."""
    return series.to_numpy(dtype=np.float64, na_value=np.nan)


def plain_values(series: pd.Series[Any]) -> list[Any]:
    """A column as Python's own values, `None` for pandas' several kinds of nothing."""
    known = series.notna()
    return series.tolist() if known.all() else series.astype(object).where(known, None).tolist()


def _compare(series: pd.Series[Any], name: str, sign: str, value: Value) -> Truth:
    kind = judged_columns()[name].kind
    if kind == "texts":  # a list holds a value, or does not
        holds = np.fromiter((value in codes for codes in series), dtype=bool, count=len(series))
        yes = holds if sign == "==" else ~holds
        return Truth(yes, ~yes)
    if kind == "text":
        known = series.notna().to_numpy()
        equal = (series == value).to_numpy(dtype=bool, na_value=False)
        yes = known & (equal if sign == "==" else ~equal)
        return Truth(yes, known & ~yes)
    figures = numbers(series)
    known = ~np.isnan(figures)
    yes = known & OPERATORS[sign](figures, float(value))
    return Truth(yes, known & ~yes)


def _all(masks: Any) -> NDArray[np.bool_]:
    return reduce(operator.and_, masks)  # type: ignore[no-any-return]


def _any(masks: Any) -> NDArray[np.bool_]:
    return reduce(operator.or_, masks)  # type: ignore[no-any-return]
