"""Conditions on rows of results, as frozen types: what `archbench.query.parsing` reads and `archbench.choose` judges.

Columns stand under their stored names and numbers in stored units (seconds, bytes), whatever the user wrote.
"""

from __future__ import annotations

import operator
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from msgspec import Struct

from archbench.model.derived import judged_columns, without_unit
from archbench.query.quantity import written

Operator = Literal["<", "<=", ">", ">=", "==", "!="]
Value = float | str | bool
OPERATORS: dict[str, Callable[[typing.Any, typing.Any], typing.Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


class Compare(Struct, frozen=True, kw_only=True):
    """One column against one value. Null satisfies no comparison, `!=` neither."""

    column: str
    operator: Operator
    value: Value


class Among(Struct, frozen=True, kw_only=True):
    """One column among several values, or among none of them."""

    column: str
    values: tuple[Value, ...]
    negated: bool = False


class Not(Struct, frozen=True, kw_only=True):
    """Satisfied where `term` is known not to be: what is null stays unsatisfied under `not`, too."""

    term: Expression


class All(Struct, frozen=True, kw_only=True):
    """`and`; two terms or more."""

    terms: tuple[Expression, ...]


class Any(Struct, frozen=True, kw_only=True):
    """`or`; two terms or more."""

    terms: tuple[Expression, ...]


Expression = Compare | Among | Not | All | Any
Leaf = Compare | Among


def conjuncts(expression: Expression) -> Iterator[Expression]:
    """The parts that each have to be satisfied, in the order in which they were written."""
    if isinstance(expression, All):
        for term in expression.terms:
            yield from conjuncts(term)
    else:
        yield expression


def leaves(expression: Expression) -> Iterator[Leaf]:
    """Every comparison in it, from left to right."""
    match expression:
        case Compare() | Among():
            yield expression
        case Not(term=term):
            yield from leaves(term)
        case All(terms=terms) | Any(terms=terms):
            for term in terms:
                yield from leaves(term)


def holds(expression: Expression, row: Mapping[str, object]) -> bool | None:
    """Whether a row of plain values, by column, satisfies `expression`; `None` where a null leaves that open.

    As `archbench.choose.conditions` judges the rows of a frame: Kleene's logic, without pandas.
    """
    match expression:
        case Compare(column=column, operator=sign, value=value):
            found = row[column]
            return None if found is None else bool(OPERATORS[sign](found, value))
        case Among(column=column, values=values, negated=negated):
            found = row[column]
            return None if found is None else (found in values) != negated
        case Not(term=term):
            inner = holds(term, row)
            return None if inner is None else not inner
        case All(terms=terms) | Any(terms=terms):
            truths = {holds(term, row) for term in terms}
            decides = isinstance(expression, Any)  # one that is true decides an `or`, one that is false an `and`
            return decides if decides in truths else None if None in truths else not decides


def show(expression: Expression) -> str:
    """As a user would write it; `parse` gives the same expression again."""
    match expression:
        case Compare(column=column, operator="==", value=True) if judged_columns()[column].kind == "flag":
            return column
        case Compare(column=column, operator=operator, value=value):
            return f"{without_unit(column)} {operator} {_value(value, column)}"
        case Among(column=column, values=values, negated=negated):
            inside = ", ".join(_value(value, column) for value in values)
            return f"{without_unit(column)} {'not in' if negated else 'in'} ({inside})"
        case Not(term=term):
            return f"not {_inside(term, (Compare, Among, Not))}"
        case All(terms=terms):
            return " and ".join(_inside(term, (Compare, Among, Not)) for term in terms)
        case Any(terms=terms):
            return " or ".join(_inside(term, (Compare, Among, Not, All)) for term in terms)


def _inside(term: Expression, bare: tuple[type, ...]) -> str:
    """A term of a larger expression: in brackets where what joins it binds more tightly."""
    return show(term) if isinstance(term, bare) else f"({show(term)})"


def _value(value: Value, column: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return written(value, judged_columns()[column])
    if value.replace("_", "").replace("-", "").isalnum() and value.lower() not in KEYWORDS:
        return value
    return f'"{value}"' if "'" in value else f"'{value}'"


KEYWORDS = frozenset({"and", "or", "not", "in"})
