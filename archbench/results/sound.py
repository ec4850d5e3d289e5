"""Stored rows that cannot be: named and left out, so that no reader has to expect a latency of -1 or of infinity.

A file that is whole as its checksum goes may still hold them: another program wrote it, or wrote it anew.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from archbench.model import axes
from archbench.model.counts import read_lines
from archbench.model.errors import escaped
from archbench.model.record import STATUSES, VERDICTS, columns
from archbench.results.schema import REQUIRED

log = logging.getLogger(__name__)

_LONGEST_S = 1e9
"""Thirty years: what is longer was not measured."""
_LARGEST = 1e18
"""Of any real number: the square of it, too, is one."""
_NAMED = 3
_CHOICES = {
    "status": STATUSES,
    "verdict": VERDICTS,
    "phase": axes.PHASES,
    "precision": axes.PRECISIONS,
    "compile_mode": axes.COMPILE_MODES,
    "memory_format": axes.MEMORY_FORMATS,
    "device": axes.DEVICE_KINDS,
}
_MAY_BE_ZERO = frozenset({"duration_s", "issue_s", "device_s"})
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def sound(table: pa.Table, place: Path) -> pa.Table:
    """`table` less its rows that cannot be, the first of which a warning names with what is wrong.

    Control characters in texts, which could steer a terminal and end the plotting library's process, are escaped.
    """
    bad: dict[int, str] = {}
    for name in table.column_names:
        if not _all_can_be(name, table[name]):
            for row, value in enumerate(table[name].to_pylist()):
                if (problem := _problem(name, value)) is not None:
                    bad.setdefault(row, f"{name} {problem}")
    if bad:
        for row, problem in sorted(bad.items())[:_NAMED]:
            key = ", ".join(
                f"{name} {_escaped(str(table[name][row].as_py()))}"
                for name in ("cell_id", "round", "visit")
                if name in table.column_names
            )
            log.warning("%s: a row cannot be and is left out: %s (%s)", place, problem, key)
        if len(bad) > _NAMED:
            log.warning("%s: %d further rows likewise", place, len(bad) - _NAMED)
        table = table.take(pa.array([row for row in range(table.num_rows) if row not in bad], pa.int64()))
    for position, field in enumerate(table.schema):
        if (
            pa.types.is_string(field.type)
            and table[field.name].null_count < table.num_rows
            and pc.any(pc.match_substring_regex(table[field.name], _CONTROL.pattern)).as_py()
        ):
            texts = [None if text is None else _escaped(text) for text in table[field.name].to_pylist()]
            table = table.set_column(position, field, pa.array(texts, pa.string()))
    return table


def _all_can_be(name: str, column: pa.ChunkedArray) -> bool:
    """Told by the extremes, or by the different values of a text. No array from a list: that would import pandas."""
    if column.null_count and name in REQUIRED:
        return False
    if column.null_count == len(column):  # of many columns in most runs
        return True
    if pa.types.is_floating(column.type) and pc.any(pc.is_nan(column)).as_py():
        return False
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        return all(_problem(name, value) is None for value in pc.min_max(column).as_py().values() if value is not None)
    if name in _CHOICES or name in _TEXTS:
        return all(_problem(name, text) is None for text in pc.unique(column).to_pylist() if text is not None)
    return True


def _problem(name: str, value: Any) -> str | None:
    """What is wrong with a value; `None` where nothing is."""
    if value is None:
        return "is null" if name in REQUIRED else None
    if name in _CHOICES:
        return None if value in _CHOICES[name] else "is none of its values"
    if name in _TEXTS:
        return None if _TEXTS[name](value) else "cannot be read"
    if isinstance(value, float) and not abs(value) < _LARGEST:
        return "is no number that was measured"
    unit = _units().get(name, "s" if name.endswith("_s") else None)
    if unit == "s" and value > _LONGEST_S:
        return "is longer than thirty years"
    if name == "batch_size" or (unit in ("s", "img/s") and name not in _MAY_BE_ZERO):
        return None if value > 0 else "is not positive"
    if (isinstance(value, int) or unit) and unit != "points":
        return None if 0 <= value < _LARGEST else "is negative, or too large"
    return None


@cache
def _units() -> dict[str, str | None]:
    """Of rows; what is timed in samples goes by its name."""
    return {column.name: column.unit for column in columns().values()}


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda found: escaped(found[0]), text)


def _is_date(text: str) -> bool:
    try:
        return 1970 <= datetime.fromisoformat(text).year <= 2200
    except ValueError:
        return False


def _is_flags(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _are_lines(text: str) -> bool:
    try:
        return bool(read_lines(text))
    except ValueError:
        return False


_TEXTS: dict[str, Callable[[str], bool]] = {
    "started_at": _is_date,
    "applied": _is_flags,
    "predicted_peak_lines": _are_lines,
}
