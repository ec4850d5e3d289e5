"""Conditions judged on the rows of a frame, in three values: satisfied, not satisfied, and unknown where a row is null.

Only what is satisfied counts; what is null satisfies nothing, under `not` neither (Kleene's logic, as in SQL).
"""

from __future__ import annotations

import operator
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from archbench.model.derived import judged_columns, ranked_by
from archbench.query.expression import OPERATORS, All, Among, Compare, Expression, Not, Value
from archbench.query.expression import Any as Either

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


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


def numbers(series: pd.Series[Any]) -> NDArray[np.float64]:
    """A column of numbers or flags as floats, NaN where it is null."""
    return series.to_numpy(dtype=np.float64, na_value=np.nan)


def plain_values(series: pd.Series[Any]) -> list[Any]:
    """A column as Python's own values, `None` for pandas' several kinds of nothing."""
    known = series.notna()
    return series.tolist() if known.all() else series.astype(object).where(known, None).tolist()


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
