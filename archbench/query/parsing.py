"""The grammar of conditions (`--where`, a decision's `where`), read by hand: never `eval`, no names but columns.

    or       := and ("or" and)*
    and      := not ("and" not)*
    not      := "not" not | "(" or ")" | condition
    condition:= COLUMN ("<" | "<=" | ">" | ">=" | "==" | "!=") value
              | COLUMN ["not"] "in" "(" value ("," value)* ")"
              | COLUMN                       of a column that is true or false
    value    := 5ms | 4 GiB | 1.2G | 76 | 'quoted text' | bare-word

A column's unit ending may be left out. Numbers of a time or a size carry a unit, unless the column's name says it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NoReturn

from msgspec import Struct

from archbench.model import axes
from archbench.model.derived import UNIT_ENDINGS, judged_names
from archbench.model.errors import UsageError, did_you_mean
from archbench.model.record import STATUSES, VERDICTS, Column
from archbench.query.expression import KEYWORDS, All, Among, Any, Compare, Expression, Not, Value
from archbench.query.quantity import begins_number, stored_value

MAX_LENGTH = 10_000
"""Characters; a longer condition was not written by a person."""
MAX_DEPTH = 50
"""Brackets and `not` inside each other; a limit keeps `((((...` from exhausting the stack."""
_SHOWN = 70

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<operator><=|>=|==|!=|=<|=>|<>|&&|\|\||[<>=!&|])
      | (?P<mark>[(),])
      | (?P<text>'[^']*'|"[^"]*")
      | (?P<word>[^\s<>=!&|(),'"]+)""",
    re.VERBOSE,
)
_REMEDIES = {"=": "==", "=<": "<=", "=>": ">=", "<>": "!=", "&&": "and", "&": "and", "||": "or", "|": "or", "!": "not"}
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_CHOICES: dict[str, tuple[str, ...]] = {
    "status": STATUSES,
    "verdict": VERDICTS,
    "phase": axes.PHASES,
    **axes.LEGAL,
    "device": axes.DEVICE_KINDS,
}


class ExpressionError(UsageError):
    """What is wrong with a condition, and where in it."""

    def __init__(self, text: str, position: int, problem: str) -> None:
        shown = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
        super().__init__(f"in the condition {shown!r}, column {position + 1}: {problem}")
        self.position = position
        """From 0."""
        self.problem = problem


class _Token(Struct, frozen=True):
    kind: str
    """operator, mark, text, word or end."""
    text: str
    start: int

    def reads(self, text: str) -> bool:
        return self.kind in ("word", "mark") and self.text.lower() == text


def parse(text: str) -> Expression:
    """Read one condition. Raises `ExpressionError` (a `UsageError`) for the first mistake, and nothing else."""
    return _Parser(text).whole()


def column_named(name: str) -> Column:
    """The column that `name` means, with or without its unit's ending. Raises `UsageError` with the nearest names."""
    known = judged_names()
    if name not in known:
        # The first word of several names, such as `latency`, proposes those; ends of intervals come last.
        begun = sorted((one for one in known if one.startswith(f"{name}_")), key=lambda one: "_ci_" in one)
        near = f"; did you mean {', '.join(begun[:4])}?" if begun else did_you_mean(name, known)
        raise UsageError(f"unknown column {name!r}{near or '; docs/columns.md has them all'}")
    return known[name]


def number_column(name: str) -> Column:
    """`column_named`, of a column of numbers. Raises `UsageError` for another, too."""
    column = column_named(name)
    if column.kind not in ("real", "whole"):
        raise UsageError(f"the column {name!r} holds no numbers; name one that does")
    return column


class _Parser:
    """One condition being read, from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        if len(text) > MAX_LENGTH:
            raise self._error(0, f"longer than {MAX_LENGTH:,} characters; write a shorter one")
        self._tokens = self._split()
        self._next = 0
        self._depth = 0

    def whole(self) -> Expression:
        if self._here.kind == "end":
            raise self._error(0, "empty; write a comparison such as top1 >= 76")
        found = self._either()
        if self._here.kind != "end":
            self._unexpected()
        return found

    def _error(self, position: int, problem: str) -> ExpressionError:
        return ExpressionError(self._text, position, problem)

    def _split(self) -> list[_Token]:
        tokens, place = [], 0
        while place < len(self._text):
            found = _TOKEN.match(self._text, place)
            if found is None:
                raise self._error(place, f"the quotation mark {self._text[place]} is never closed")
            kind = found.lastgroup
            if kind == "operator" and found[0] in _REMEDIES:
                raise self._error(place, f"{found[0]!r} is not part of a condition; write {_REMEDIES[found[0]]}")
            if kind == "word" and ("[" in found[0] or "]" in found[0]):
                raise self._error(place, f"square brackets in {found[0]!r}; quote the text, and list values in (a, b)")
            if kind != "space":
                tokens.append(_Token(str(kind), found[0], place))
            place = found.end()
        return [*tokens, _Token("end", "", len(self._text))]

    @property
    def _here(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._here
        self._next += token.kind != "end"
        return token

    def _take_word(self, word: str) -> bool:
        return self._here.reads(word) and bool(self._take())

    def _unexpected(self) -> NoReturn:
        token = self._here
        if token.reads(")"):
            raise self._error(token.start, "this bracket closes none; remove it, or open one")
        if token.kind == "end":
            raise self._error(token.start, "the condition ends here; write the rest of it")
        if token.kind == "operator":
            raise self._error(token.start, f"{token.text!r} compares nothing; to chain, write a <= b and b <= c")
        hint = "join two conditions with 'and' or 'or', and quote text that has spaces"
        raise self._error(token.start, f"{token.text!r} is one thing too many; {hint}")

    # From loose to tight

    def _either(self) -> Expression:
        return self._joined("or", self._both, Any)

    def _both(self) -> Expression:
        return self._joined("and", self._negation, All)

    def _joined(self, word: str, term: Callable[[], Expression], kind: type[Any] | type[All]) -> Expression:
        terms = [term()]
        while self._take_word(word):
            terms.append(term())
        return terms[0] if len(terms) == 1 else kind(terms=tuple(terms))

    def _negation(self) -> Expression:
        token = self._here
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._error(token.start, f"nested deeper than {MAX_DEPTH} levels; write it flatter")
        if self._take_word("not"):
            found: Expression = Not(term=self._negation())
        elif token.reads("("):
            self._take()
            found = self._either()
            self._close(token)
        else:
            found = self._condition()
        self._depth -= 1
        return found

    def _close(self, opening: _Token) -> None:
        if not self._here.reads(")"):
            if self._here.kind == "end":
                raise self._error(opening.start, "this bracket is never closed; add ')'")
            self._unexpected()
        self._take()

    # Conditions

    def _condition(self) -> Expression:
        start = self._here
        column, unit_known = self._column()
        token = self._here
        if token.kind == "operator":
            self._take()
            self._check_operator(token, column)
            value = self._value(column, unit_known)
            return Compare(column=column.name, operator=token.text, value=value)  # type: ignore[arg-type]
        if token.reads("in") or (token.reads("not") and self._tokens[self._next + 1].reads("in")):
            negated = self._take_word("not")
            self._take()
            return Among(column=column.name, values=self._values(column, unit_known), negated=negated)
        if column.kind == "flag":
            return Compare(column=column.name, operator="==", value=True)
        is_text = column.kind in ("text", "texts")
        rest = f"== {_CHOICES.get(column.name, ('resnet',))[0]}" if is_text else "<= ..."
        raise self._error(start.start, f"{start.text} alone is no condition; compare it, as in {column.name} {rest}")

    def _column(self) -> tuple[Column, bool]:
        """The column at this place, and whether its name was written with the unit."""
        token = self._take()
        if token.kind != "word" or token.text.lower() in KEYWORDS:
            self._next -= token.kind != "end"
            what = "the end" if token.kind == "end" else repr(token.text)
            raise self._error(token.start, f"a column's name should stand here, not {what}")
        if self._here.reads("("):
            what = f"{token.text}(...) calls a function, and conditions only compare columns; write column <= value"
            raise self._error(token.start, what)
        if token.text in judged_names():
            return judged_names()[token.text], token.text.endswith(UNIT_ENDINGS)
        self._refuse_reversed(token)
        try:
            return column_named(token.text), False
        except UsageError as error:
            raise self._error(token.start, str(error)) from None

    def _refuse_reversed(self, value: _Token) -> None:
        """`5ms >= latency_p99` is understood, but one order is enough to read."""
        operator, other = self._here, self._tokens[min(self._next + 1, len(self._tokens) - 1)]
        if operator.kind == "operator" and other.kind == "word" and other.text in judged_names():
            better = f"{other.text} {_FLIPPED[operator.text]} {value.text}"
            raise self._error(value.start, f"the column stands on the left; write {better}")

    def _check_operator(self, token: _Token, column: Column) -> None:
        if column.kind not in ("real", "whole") and token.text not in ("==", "!="):
            what = f"{column.name} holds no numbers, so {token.text} says nothing of it; use == or !="
            raise self._error(token.start, what)

    def _values(self, column: Column, unit_known: bool) -> tuple[Value, ...]:
        opening = self._here
        if not opening.reads("("):
            raise self._error(opening.start, "'in' wants a list in brackets, as in family in (resnet, densenet)")
        self._take()
        values = [self._value(column, unit_known)]
        while self._here.reads(","):
            self._take()
            values.append(self._value(column, unit_known))
        self._close(opening)
        return tuple(values)

    def _value(self, column: Column, unit_known: bool) -> Value:
        token = self._take()
        if token.kind not in ("word", "text") or (token.kind == "word" and token.text.lower() in KEYWORDS):
            self._next -= token.kind != "end"
            what = "the end" if token.kind == "end" else repr(token.text)
            raise self._error(token.start, f"a value for {column.name} should stand here, not {what}")
        if token.kind == "word" and self._here.reads("("):
            raise self._error(token.start, f"{token.text}(...) calls a function; give a value")
        text = token.text[1:-1] if token.kind == "text" else token.text
        if column.kind in ("text", "texts"):
            return self._known_text(text, column, token)
        if column.kind == "flag":
            if text.lower() not in ("true", "false"):
                raise self._error(token.start, f"{column.name} is true or false, not {text!r}")
            return text.lower() == "true"
        if token.kind == "word" and begins_number(text) and self._here.kind == "word":
            follows = self._here.text
            text += "" if follows.lower() in KEYWORDS or follows in judged_names() else f" {self._take().text}"
        if text in judged_names():
            raise self._error(token.start, f"{text} is a column; a column is compared with a value only")
        try:
            return stored_value(text, column, unit_known=unit_known)
        except ValueError as error:
            raise self._error(token.start, str(error)) from None

    def _known_text(self, text: str, column: Column, token: _Token) -> str:
        known = _CHOICES.get(column.name)
        if known is not None and text not in known:
            near = did_you_mean(text, known, limit=1) or f"; it is one of {', '.join(known)}"
            raise self._error(token.start, f"{text!r} is no {column.name}{near}")
        if text.lower() in ("null", "none") and token.kind == "word":
            raise self._error(token.start, "null satisfies no comparison; quote it if it is meant as text")
        return text
