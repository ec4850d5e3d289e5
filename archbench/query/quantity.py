"""Numbers with units as people write them in conditions: `5ms`, `4GiB`, `1.2G`, `76 %`; the stored unit comes out."""

from __future__ import annotations

import math
import re

from msgspec import Struct

from archbench.model.errors import UsageError, did_you_mean
from archbench.model.record import Column

_DECIMAL = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}
_TIME = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>[smh])")
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}


class Dimension(Struct, frozen=True, kw_only=True):
    """Which units a column's numbers may be written in, and what each is in the stored unit."""

    name: str
    units: dict[str, float]
    proposed: tuple[str, ...] = ()
    """Units to choose from where a number without one could mean several things; else empty."""


_COUNT = Dimension(name="number", units={**_DECIMAL, "K": 1e3})
_SHARE = Dimension(name="ratio", units={"": 1.0, "%": 0.01})
_PERCENTAGE = Dimension(name="percentage", units={"": 1.0, "%": 1.0})
_DIMENSIONS: dict[str, Dimension] = {
    "s": Dimension(
        name="time",
        units={"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0},
        proposed=("ms", "s"),
    ),
    "B": Dimension(
        name="size in bytes",
        units={f"{prefix}B": size for prefix, size in {**_DECIMAL, "K": 1e3, **_BINARY}.items()},
        proposed=("MiB", "GiB"),
    ),
    "img/s": Dimension(name="rate", units={"": 1.0, "img/s": 1.0}),
    "J": Dimension(name="energy", units={"": 1.0, "J": 1.0, "mJ": 1e-3, "kJ": 1e3}),
    "W": Dimension(name="power", units={"": 1.0, "W": 1.0, "mW": 1e-3, "kW": 1e3}),
    "MHz": Dimension(name="clock", units={"": 1.0, "MHz": 1.0, "GHz": 1e3}),
    "%": _PERCENTAGE,
    "points": Dimension(name="number of percentage points", units={"": 1.0, "points": 1.0, "%": 1.0}),
    "px": Dimension(name="size in pixels", units={"": 1.0, "px": 1.0}),
    "images": Dimension(name="number of images", units={"": 1.0, "images": 1.0, "img": 1.0}),
    "FLOP/s": Dimension(name="rate of FLOP/s", units={f"{p}FLOP/s": size for p, size in _DECIMAL.items()} | _DECIMAL),
}

_PLAIN_BELOW = 1e5
"""Counts that are written in full: 1000, not 1k."""
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")


def begins_number(text: str) -> bool:
    """Whether `text` would be read as a number, with or without a unit behind it."""
    return _NUMBER.match(text) is not None


def dimension(column: Column) -> Dimension:
    """What the numbers of a column measure."""
    if column.unit is not None:
        return _DIMENSIONS[column.unit]
    return _COUNT if column.kind == "whole" or column.name == "achieved_flops" else _SHARE


def stored_value(text: str, column: Column, *, unit_known: bool = False) -> float:
    """The number that `text` means, in the column's stored unit.

    Raises `ValueError` with the reason and a proposal for what is no number, a unit of another dimension, a number
    too large, and a missing unit where it could mean two things (a time or a size other than 0, unless `unit_known`; a
    percentage below 1).
    """
    found = _NUMBER.match(text)
    kind = dimension(column)
    if found is None:
        such_as = f" such as 5{kind.proposed[0]}" if kind.proposed else ""
        raise ValueError(f"{text!r} is not a number, and {column.name} holds numbers; give one{such_as}")
    number, unit = float(found[0]), text[found.end() :].strip()
    if not math.isfinite(number):
        raise ValueError(f"{found[0]} is too large for a number; write a finite one")
    if not unit and kind.proposed:
        if number and not unit_known:
            units = " or ".join(f"{found[0]}{one}" for one in kind.proposed)
            raise ValueError(f"{found[0]} of what? {column.name} is a {kind.name}; write {units}")
        return number
    if kind is _PERCENTAGE and not unit and 0 < abs(number) < 1:
        meant = f"{number * 100:.10g}"
        raise ValueError(f"{found[0]} of what? {column.name} is in percent; write {meant}, or {found[0]}%")
    if unit not in kind.units:
        raise ValueError(_wrong_unit(unit, found[0], column, kind))
    value = number * kind.units[unit]
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large for a number; write a finite one")
    return value


def written(value: float, column: Column) -> str:
    """The handiest text that `stored_value` reads as exactly `value`: 0.005 of a time is `5ms`, 0.1 `100ms`."""
    kind = dimension(column)
    plain = _number(value)
    if kind is _PERCENTAGE and 0 < abs(value) < 1:
        return f"{plain}%"  # bare, it would be taken for a share of 1
    if not kind.proposed and abs(value) < _PLAIN_BELOW:
        return plain
    found = [] if kind.proposed and value else [(False, len(plain), plain)]
    for unit, size in kind.units.items():
        for scaled in (value / size, round(value / size, 12)):
            if math.isfinite(scaled) and float(_number(scaled)) * size == value:
                text = f"{_number(scaled)}{unit}"
                found.append((abs(scaled) < 1, len(text), text))
    return min(found)[2]


def _number(value: float) -> str:
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else repr(value)


def _wrong_unit(unit: str, number: str, column: Column, kind: Dimension) -> str:
    others = (one for one in (*_DIMENSIONS.values(), _SHARE, _COUNT) if one is not kind)
    meant = next((one.name for one in others if unit in one.units), None)
    known = [one for one in kind.units if one]
    near = did_you_mean(unit, known, limit=1) or (f"; it takes {', '.join(known)}" if known else "; it takes no unit")
    if kind.name == "size in bytes" and unit in ("k", "K", "M", "G", "T"):
        near = f"; write {number}{unit.upper()}iB or {number}{unit}B"
        meant = None
    what = f"is a {meant}, and" if meant else "is no unit that fits:"
    return f"{unit!r} {what} {column.name} is a {kind.name}{near}"


def seconds_of(text: str, option: str) -> float:
    """Seconds of `90s`, `10m` or `2h`. Raises `UsageError` for anything else, and for 0."""
    found = _TIME.fullmatch(text.strip())
    seconds = float(found["number"]) * _UNITS_S[found["unit"]] if found else 0.0
    if not seconds:
        raise UsageError(f"{option} {text!r}: is no time; write 90s, 10m or 2h")
    return seconds
