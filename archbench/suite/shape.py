"""Plain values held against the grammar's types: every mistake named with its place and its remedy.

`msgspec.convert` would find the same mistakes, but says neither which key of a mapping holds one, nor what to write.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any, Protocol, cast

from msgspec import inspect

from archbench.model.cell import size_of
from archbench.model.errors import UsageError, did_you_mean, nearest
from archbench.suite.document import ValuePath

_PATTERN_MEANINGS = {r"^[a-z0-9][a-z0-9_.-]*$": "lower-case letters, digits, '_', '-' and '.', a letter or digit first"}


class Origin(Protocol):
    """Where values came from: a file or the command line."""

    def error(self, path: ValuePath, what: str, *, at_key: bool = False, offset: int = 0) -> UsageError:
        """Return the error `what` with the place of the value at `path`, of its key, or of a character of its text."""


def shaped(value: Any, kind: inspect.Type, path: ValuePath, origin: Origin) -> Any:
    """Return `value` in the shape that `msgspec.convert` takes for `kind`: a lone value in a list's place is wrapped.

    Raises `UsageError` for an unknown or missing key, a value of another type, out of range or not among the choices,
    and for a list that is empty or holds a value twice.
    """
    if isinstance(kind, inspect.Metadata):
        if (kind.extra_json_schema or {}).get("uniqueItems") is False and isinstance(kind.type, inspect.VarTupleType):
            items = value if isinstance(value, list) else [value]
            return [shaped(one, kind.type.item_type, (*path, number), origin) for number, one in enumerate(items)]
        return shaped(value, kind.type, path, origin)
    if isinstance(kind, inspect.UnionType):
        return _shaped_union(value, kind, path, origin)
    if value is None:
        raise origin.error(path, f"{_name(path)} has no value; give one, or leave the key out")
    if isinstance(kind, inspect.StructType):
        return _shaped_struct(value, kind, path, origin)
    if isinstance(kind, inspect.DictType):
        return _shaped_dict(value, kind, path, origin)
    if isinstance(kind, inspect.VarTupleType):
        return _shaped_list(value, kind, path, origin)
    problem = _leaf_problem(value, kind)
    if problem:
        raise origin.error(path, f"{_name(path)}: {problem}")
    return value


def _shaped_union(value: Any, kind: inspect.UnionType, path: ValuePath, origin: Origin) -> Any:
    options = kind.types
    if any(isinstance(option, inspect.BoolType) for option in options):  # an architecture's option: any plain value
        if isinstance(value, (dict, list)):
            raise origin.error(path, f"{_name(path)}: {_shown(value)} is not a plain value; give a number or text")
        if isinstance(value, str) and (problem := _control_problem(value)):
            raise origin.error(path, f"{_name(path)}: {problem}")
        return value
    wanted = [option for option in options if not isinstance(option, inspect.NoneType)]
    if {inspect.IntType, inspect.StrType} == {type(_bare(option)) for option in wanted}:
        return _shaped_size(value, path, origin)
    if isinstance(value, str) and {inspect.FloatType, inspect.StrType} <= {type(option) for option in wanted}:
        return value  # a number with its unit: "5 ms"
    if isinstance(value, dict):
        # Put first what can take a mapping: the choice is between a name and a mapping.
        wanted.sort(key=lambda option: not isinstance(option, inspect.StructType))
    else:
        wanted.sort(key=lambda option: isinstance(option, inspect.StructType))
    return shaped(value, wanted[0], path, origin)


def _bare(kind: inspect.Type) -> inspect.Type:
    return kind.type if isinstance(kind, inspect.Metadata) else kind


def _shaped_size(value: Any, path: ValuePath, origin: Origin) -> int | str:
    """The size of an image: `640`, `[640, 480]` or `640x480`; the latter two are height and width."""
    sides = value
    if isinstance(value, str) and re.fullmatch(r"[1-9][0-9]*x[1-9][0-9]*", value):
        sides = [int(side) for side in value.split("x")]
    if not isinstance(sides, list):
        if isinstance(value, str):
            raise origin.error(path, f"{_name(path)}: {_shown(value)} is no size; write 640, or 640x480 for two sides")
        return cast(int, shaped(value, _SIDE, path, origin))
    if len(sides) != 2:
        raise origin.error(path, f"{_name(path)}: an image has a height and a width; write one side, or two")
    return size_of(*(shaped(side, _SIDE, path, origin) for side in sides))


_SIDE = inspect.IntType(ge=1, le=1_000_000)


def _shaped_struct(value: Any, kind: inspect.StructType, path: ValuePath, origin: Origin) -> dict[str, Any]:
    if not isinstance(value, dict):
        keys = ", ".join(field.encode_name for field in kind.fields)
        raise origin.error(path, f"{_name(path)}: {_shown(value)} is not a mapping; give {{key: value}}, keys {keys}")
    fields = {field.encode_name: field for field in kind.fields}
    for key in value:
        if key not in fields:
            hint = did_you_mean(key, fields, limit=1) or _inside(key, kind) or f"; the keys are {', '.join(fields)}"
            where = f" in {_name(path)}" if path else ""
            raise origin.error((*path, key), f"unknown key {key!r}{where}{hint}", at_key=True)
    for name, field in fields.items():
        if field.required and name not in value:
            where = f" in {_name(path)}" if path else ""
            raise origin.error(path, f"the key '{name}' is missing{where}; add '{name}: ...'")
    return {key: shaped(item, fields[key].type, (*path, key), origin) for key, item in value.items()}


def _inside(key: str, kind: inspect.StructType) -> str:
    """Where a key belongs that stands a level too high: `batch_size` of `axes`."""
    for field in kind.fields:
        if isinstance(field.type, inspect.StructType):
            for name in nearest(key, [inner.encode_name for inner in field.type.fields], limit=1):
                return f"; did you mean {field.encode_name}: {{{name}: ...}}?"
    return ""


def _shaped_dict(value: Any, kind: inspect.DictType, path: ValuePath, origin: Origin) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise origin.error(path, f"{_name(path)}: {_shown(value)} is not a mapping; give {{key: value}}")
    for key in value:
        problem = _leaf_problem(key, kind.key_type)
        if problem:
            raise origin.error((*path, key), f"key of {_name(path)}: {problem}", at_key=True)
    return {key: shaped(item, kind.value_type, (*path, key), origin) for key, item in value.items()}


def _shaped_list(value: Any, kind: inspect.VarTupleType, path: ValuePath, origin: Origin) -> list[Any]:
    items = value if isinstance(value, list) else [value]
    if not items:
        raise origin.error(path, f"{_name(path)} is an empty list; give at least one value, or leave the key out")
    result = [shaped(item, kind.item_type, (*path, number), origin) for number, item in enumerate(items)]
    seen: set[Any] = set()
    for number, item in enumerate(items):
        if isinstance(item, (dict, list)):
            continue
        if item in seen:
            raise origin.error((*path, number), f"{_name(path)} lists {item} twice; keep one of them")
        seen.add(item)
    return result


def _leaf_problem(value: Any, kind: inspect.Type) -> str | None:
    """What is wrong with a plain value and what to write; `None` where nothing is."""
    if isinstance(kind, inspect.LiteralType):
        return _choice_problem(value, kind.values)
    if isinstance(kind, inspect.BoolType):
        return None if isinstance(value, bool) else f"{_shown(value)} is neither true nor false; write one of them"
    if isinstance(kind, inspect.IntType):
        if isinstance(value, int) and not isinstance(value, bool):
            return _range_problem(value, kind)
        return f"{_shown(value)} is not a whole number; {_number_remedy(value, int)}"
    if isinstance(kind, inspect.FloatType):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return _range_problem(value, kind)
        return f"{_shown(value)} is not a number; {_number_remedy(value, float)}"
    if isinstance(kind, inspect.StrType):
        return _text_problem(value, kind)
    raise TypeError(f"the grammar has no rule for {kind}")


def _choice_problem(value: Any, choices: tuple[Any, ...]) -> str | None:
    if any(value == choice and type(value) is type(choice) for choice in choices):
        return None
    if value is False and "off" in choices:
        return "false is not a choice; write off"
    words = [str(choice) for choice in choices]
    near = did_you_mean(value, words, limit=1) if isinstance(value, str) else ""
    return f"{_shown(value)} is not a choice{near or '; choose from ' + ', '.join(words)}"


def _range_problem(value: float, kind: inspect.IntType | inspect.FloatType) -> str | None:
    low, high = (kind.ge if kind.ge is not None else kind.gt), (kind.le if kind.le is not None else kind.lt)
    below = low is not None and (value < low or (kind.gt is not None and value == low))
    above = high is not None and (value > high or (kind.lt is not None and value == high))
    if not below and not above:
        return None
    bounds = [f"above {low}" if kind.gt is not None else f"at least {low}"] if low is not None else []
    bounds += [f"below {high}" if kind.lt is not None else f"at most {high}"] if high is not None else []
    return f"{value} is out of range; give a number {' and '.join(bounds)}"


def _number_remedy(value: Any, wanted: type[int] | type[float]) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return f"write {int(value)}"
    if isinstance(value, str):
        try:
            number = wanted(value)
        except ValueError:
            pass
        else:
            return f"write {number} without quotes" if str(number) == value else f"write {number}"
    return "give a number such as 8"


def _text_problem(value: Any, kind: inspect.StrType) -> str | None:
    if not isinstance(value, str):
        hint = "give a name or a sentence" if isinstance(value, (dict, list)) else "quote it if it is meant as text"
        return f"{_shown(value)} is not text; {hint}"
    if problem := _control_problem(value):
        return problem
    if kind.min_length is not None and len(value) < kind.min_length:
        return "the text is empty; give a name"
    if kind.max_length is not None and len(value) > kind.max_length:
        return f"the text has {len(value)} characters; give at most {kind.max_length}"
    if kind.pattern is not None and not re.fullmatch(kind.pattern, value):
        return f"{value!r} is not a valid name; use {_PATTERN_MEANINGS[kind.pattern]}"
    return None


def _control_problem(text: str) -> str | None:
    """A terminal obeys control characters, and half a character cannot be written to any file."""
    found = next((char for char in text if unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t"), None)
    return None if found is None else f"the text holds the control character {found!r}; remove it"


def _shown(value: Any) -> str:
    """A value as a reader of the file would recognise it."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "an empty value"
    return repr(value if len(str(value)) <= 60 else f"{str(value)[:57]}...") if isinstance(value, str) else str(value)


def _name(path: ValuePath) -> str:
    """The key that a value belongs to, for a reader who sees the line anyway."""
    return next((str(step) for step in reversed(path) if isinstance(step, str)), "the suite")
