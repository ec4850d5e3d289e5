"""The expressions that judge claims: arithmetic over figures, compared. Python's syntax, read by hand, never run.

    macs(simple_vgg22) / macs(alexnet) >= 100
    params(googlenet) == 5e6 and depth(googlenet) == 22

A figure is called like a function of what it is about: networks by their names (in quotes where those are no words),
options as `batch_norm=True`, axes of cells as `phase="training"`. `==` means within the claim's tolerance.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping

from msgspec import Struct

from archbench.model.axes import Scalar
from archbench.model.errors import UsageError

_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_RELATIONS: dict[type[ast.cmpop], tuple[str, Callable[[float, float], bool]]] = {
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
}
MAX_LENGTH = 2000


class Figure(Struct, frozen=True, kw_only=True):
    """One figure, with its 95 % interval where it has one, and where it is from."""

    value: float
    low: float | None = None
    high: float | None = None
    origin: str = ""


class Term(Struct, frozen=True):
    """One figure that a formula asks for: `latency(resnet50, batch_size=1)`."""

    function: str
    about: tuple[Scalar, ...]
    options: tuple[tuple[str, Scalar], ...] = ()

    @property
    def text(self) -> str:
        """As it is written."""
        words = [*map(_written, self.about), *(f"{name}={_written(value)}" for name, value in self.options)]
        return f"{self.function}({', '.join(words)})"


class Compared(Struct, frozen=True, kw_only=True):
    """One comparison and what decides it."""

    text: str
    """The left side."""
    relation: str
    bound_text: str
    value: float
    low: float | None
    high: float | None
    bound: float
    holds: bool | None
    """`None`: the interval leaves it open."""


Figures = Mapping[Term, Figure]


class Formula:
    """One expression, read. Raises `UsageError` for the first mistake in `text`."""

    def __init__(self, text: str) -> None:
        self.text = text = " ".join(text.split())
        try:
            if len(text) > MAX_LENGTH:
                raise UsageError(f"longer than {MAX_LENGTH:,} characters")
            self._tree = ast.parse(text, mode="eval").body
            self._check(self._tree)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise UsageError(f"{text!r} is no expression: {getattr(error, 'msg', error)}") from None
        except UsageError as error:
            raise UsageError(f"in {text!r}: {error}") from None
        self.terms = tuple(dict.fromkeys(_term(node) for node in ast.walk(self._tree) if isinstance(node, ast.Call)))

    @property
    def compares(self) -> bool:
        """Whether it is true or false, and not a number."""
        return isinstance(self._tree, ast.Compare | ast.BoolOp) or (
            isinstance(self._tree, ast.UnaryOp) and isinstance(self._tree.op, ast.Not)
        )

    def value(self, figures: Figures) -> float:
        """Of an expression that is a number; NaN where it is not defined (a division by 0)."""
        return _number(self._tree, {term: figure.value for term, figure in figures.items()})

    def judged(self, figures: Figures, tolerance: float = 0.0) -> tuple[bool | None, list[Compared]]:
        """Whether it holds (`None`: intervals leave that open), and its comparisons in the order written.

        Each side's interval is the terms' deviations in quadrature: they are taken as independent, and a term that
        stands twice moves both times.
        """
        compared: list[Compared] = []
        return self._truth(self._tree, figures, tolerance, compared), compared

    def _truth(self, node: ast.expr, figures: Figures, tolerance: float, into: list[Compared]) -> bool | None:
        match node:
            case ast.BoolOp(op=op, values=values):
                truths = {self._truth(each, figures, tolerance, into) for each in values}
                decides = isinstance(op, ast.Or)
                return decides if decides in truths else None if None in truths else not decides
            case ast.UnaryOp(op=ast.Not(), operand=inside):
                truth = self._truth(inside, figures, tolerance, into)
                return None if truth is None else not truth
            case ast.Compare(left=left, ops=ops, comparators=others):
                sides = [left, *others]
                triples = zip(sides, ops, sides[1:], strict=False)
                found = [_compare(self.text, left, op, right, figures, tolerance) for left, op, right in triples]
                into += found
                truths = {one.holds for one in found}
                return False if False in truths else None if None in truths else True
        raise UsageError(f"{ast.unparse(node)!r} compares nothing")

    def _check(self, node: ast.AST) -> None:
        match node:
            case ast.BoolOp(values=values):
                parts: list[ast.AST] = list(values)
            case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in _RELATIONS for op in ops):
                parts = [left, *others]
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                parts = [left, right]
            case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=inside):
                parts = [inside]
            case ast.Constant(value=value) if isinstance(value, int | float) and not isinstance(value, bool):
                parts = []
            case ast.Call():
                _term(node)
                parts = []
            case _:
                raise UsageError(f"{ast.unparse(node)!r} is neither a number, a figure nor a comparison")
        for part in parts:
            self._check(part)


def _term(node: ast.Call) -> Term:
    if not isinstance(node.func, ast.Name) or any(one.arg is None for one in node.keywords):
        raise UsageError(f"{ast.unparse(node)!r} is no figure; write figure(network)")
    options = tuple((str(one.arg), _scalar(one.value)) for one in node.keywords)
    return Term(node.func.id, tuple(_scalar(one) for one in node.args), options)


def _scalar(node: ast.expr) -> Scalar:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Constant(value=value) if isinstance(value, int | float | str):
            return value
    raise UsageError(f"{ast.unparse(node)!r} is neither a name, a number nor text in quotes")


def _written(value: Scalar) -> str:
    return value if isinstance(value, str) and value.isidentifier() else repr(value)


def _number(node: ast.expr, values: Mapping[Term, float]) -> float:
    try:
        match node:
            case ast.BinOp(left=left, op=op, right=right):
                return float(_ARITHMETIC[type(op)](_number(left, values), _number(right, values)))
            case ast.UnaryOp(op=ast.USub(), operand=inside):
                return -_number(inside, values)
            case ast.Constant(value=float() | int() as value):
                return float(value)
            case ast.Call():
                return values[_term(node)]
    except (ZeroDivisionError, OverflowError, TypeError):  # TypeError: the root of a negative number is complex
        return math.nan
    raise UsageError(f"{ast.unparse(node)!r} is compared where a number should stand")


def _compare(
    source: str, left: ast.expr, op: ast.cmpop, right: ast.expr, figures: Figures, tolerance: float
) -> Compared:
    relation, compare = _RELATIONS[type(op)]
    value, low, high = _interval(lambda values: _number(left, values), figures)
    bound = _number(right, {term: figure.value for term, figure in figures.items()})

    def least(factor: float) -> tuple[float, float, float]:
        """Of the left side less the right side, times `factor`."""
        found, lowest, highest = _interval(lambda all: _number(left, all) - factor * _number(right, all), figures)
        return found, found if lowest is None else lowest, found if highest is None else highest

    if relation in ("==", "!="):
        wide = tolerance if bound >= 0 else -tolerance
        above, below = least(1 - wide), least(1 + wide)
        inside: bool | None = (
            True if above[1] >= 0 and below[2] <= 0 else False if above[2] < 0 or below[1] > 0 else None
        )
        holds = inside if relation == "==" or inside is None else not inside
    else:
        _, lowest, highest = least(1.0)
        truths = {compare(lowest, 0), compare(highest, 0)}
        holds = truths.pop() if len(truths) == 1 else None
    if math.isnan(value) or math.isnan(bound):
        holds = None
    text, bound_text = (ast.get_source_segment(source, side) or "" for side in (left, right))
    return Compared(
        text=text, relation=relation, bound_text=bound_text, value=value, low=low, high=high, bound=bound, holds=holds
    )


def _interval(
    of: Callable[[Mapping[Term, float]], float], figures: Figures
) -> tuple[float, float | None, float | None]:
    """The value at the figures' values, and the ends of its interval; none where no figure has one."""
    centre = {term: figure.value for term, figure in figures.items()}
    value = of(centre)
    below = above = 0.0
    for term, figure in figures.items():
        moved = [of({**centre, term: end}) - value for end in (figure.low, figure.high) if end is not None]
        if any(moved):
            below, above = math.hypot(below, min(0.0, *moved)), math.hypot(above, max(0.0, *moved))
    return (value, value - below, value + above) if below or above else (value, None, None)
