"""Figures and names as text: the one place where seconds become milliseconds and bytes become MiB. Null is always `-`.

A figure carries as many digits as its interval supports; one without an interval, three significant ones. Thousands are
set apart by commas; an exponent stands only where the figure would need more than a dozen digits (`plain`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeGuard

import msgspec
from msgspec import Struct

NULL = "-"
AT_LEAST = "≥ "
"""Before a figure that is a lower bound."""
HUNDREDFOLD = 100.0
"""A ratio from which its size means nothing any more."""
_MOST_DIGITS = 5
"""Significant digits beyond which even a tight interval is not printed: nobody reads them."""
_SMALLEST, _LARGEST = 1e-4, 1e12
"""Where a number begins and ends to be told without an exponent."""
_WIDE = 0.25
"""Half an interval over its figure from which both ends are printed: the ± of a lopsided interval misleads."""

_LONGEST_NAME = 48
"""Characters of a name in a table; beyond, its middle gives way: both ends tell networks apart."""


class Unit(Struct, frozen=True, kw_only=True):
    """What stands in a column's heading, and how many of the stored unit make one."""

    symbol: str
    size: float


SECOND = Unit(symbol="s", size=1.0)
MS = Unit(symbol="ms", size=1e-3)
IMAGES = Unit(symbol="img/s", size=1.0)
MILLION = Unit(symbol="M", size=1e6)
GIGA = Unit(symbol="G", size=1e9)
MIB = Unit(symbol="MiB", size=2.0**20)
GIB = Unit(symbol="GiB", size=2.0**30)
RATIO = Unit(symbol="x", size=1.0)


def memory_unit(values: Iterable[float]) -> Unit:
    """One unit for a whole column of bytes: MiB, or GiB where the largest exceeds 10 GiB."""
    return GIB if max((value for value in values if value == value), default=0) > 10 * GIB.size else MIB


def figure(value: float | None, unit: Unit, low: float | None = None, high: float | None = None) -> str:
    """`12.34 ±0.17` of a value and its interval in stored units; `12 (9.1 to 30)` where the interval is wide."""
    if not _known(value):
        return NULL
    value = value / unit.size
    if not (_known(low) and _known(high)):
        return plain(value)
    low, high = low / unit.size, high / unit.size
    half = max(high - value, value - low)
    if half > _WIDE * abs(value):
        return f"{plain(value, 2)} ({plain(low, 2)} to {plain(high, 2)})"
    decimals = _decimals(value, half)
    return f"{value:,.{decimals}f} ±{half:,.{decimals}f}"


def plain(value: float | None, significant: int = 3) -> str:
    """A bare number to so many significant digits: `1,850`, `0.394`; below 0.0001 and from 10^12 on, `7.9e-32`."""
    if not _known(value):
        return NULL
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0:
        return "0"
    if not _SMALLEST <= abs(value) < _LARGEST:
        digits, _, exponent = f"{value:.{significant - 1}e}".partition("e")
        return f"{digits}e{int(exponent)}"
    decimals = significant - 1 - math.floor(math.log10(abs(value)))
    return f"{value:,.{max(decimals, 0)}f}"


def rounded(value: float | None, unit: Unit, low: float | None = None, high: float | None = None) -> str:
    """The value alone, with the digits that `figure` would give it."""
    return figure(value, unit, low, high).partition(" ")[0]


def whole(value: float | None, unit: Unit) -> str:
    """The value in whole units."""
    return f"{value / unit.size:,.0f}" if _known(value) else NULL


def fixed(value: float | None, unit: Unit, decimals: int) -> str:
    """The value with this many decimals, so that a column lines up."""
    return f"{value / unit.size:,.{decimals}f}" if _known(value) else NULL


def images(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """A number of images, where infinitely many are `never`: `5,200 (3,700 to 8,600)`, `never (at best 12,000)`."""
    if not _known(value):
        return NULL
    if math.isinf(value):
        return f"never (at best {plain(low, 2)})" if _known(low) and not math.isinf(low) else "never"
    if _known(high) and math.isinf(high):
        return f"{plain(value, 2)} ({plain(low or 0.0, 2)} to never)"
    return figure(value, Unit(symbol="images", size=1.0), low, high)


def percent(share: float | None, *, signed: bool = False) -> str:
    """`2.7 %` of 0.027; with a sign in front where it is a change."""
    return f"{'+' if signed and share > 0 else ''}{plain(100 * share, 2)} %" if _known(share) else NULL


def excess(share: float) -> str:
    """`2.7 %` of 0.027; from 100 % on in words: `a factor of 2.3` of 1.3, beyond a hundredfold no number at all."""
    if share < 1:
        return percent(share)
    return f"a factor of {plain(1 + share, 2)}" if 1 + share <= HUNDREDFOLD else "a hundredfold or more"


def from_on(share: float) -> str:
    """`2.7 % or more` of 0.027, in the words of `excess`."""
    text = excess(share)
    return text if text.endswith("or more") else f"{text} or more"


def change(share: float) -> str:
    """`+2.7 %` of 0.027, with one decimal always: a column of changes lines up, and none is finer than its noise."""
    return f"{100 * share:+,.1f} %" if math.isfinite(share) else f"{plain(share)} %"


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 5 min`."""
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def counted(number: int, noun: str) -> str:
    """`1 cell`, `1,200 cells`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Sequence[str], most: int) -> str:
    """`a, b, c and 4 more`: the first `most` of them."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def shortened(name: str) -> str:
    """A name as a table shows it: printable, and where it is long, its middle gives way."""
    name = name if name.isprintable() else printable(name)
    half = _LONGEST_NAME // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[: half - 1]}…{name[-half:]}"


def printable(text: str) -> str:
    """On one line, with control and direction marks replaced: they could reorder what is read."""
    line = " ".join(text.split())
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)


def indented_json(value: object) -> str:
    """A document for people and programs: JSON of two spaces' indent, ending in a newline."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and not math.isnan(value)


def _decimals(value: float, half: float) -> int:
    """Decimals that show `half` with one digit, or with two where the first is a 1: one digit would round it hard."""
    limit = _MOST_DIGITS - 1 - math.floor(math.log10(abs(value))) if value else 9
    if half <= 0:
        return min(max(limit - 2, 0), 9)
    leading = f"{half:.1e}"  # rounded first: 0.0996 leads with a 1
    digits = 2 if leading.startswith("1") else 1
    return min(max(min(digits - 1 - int(leading[4:]), limit), 0), 9)
