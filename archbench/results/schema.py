"""What stored rows and samples look like: arrow schemas from the types themselves, and which rows cannot be.

A file carries the version of its schema. One that is whole as its checksum goes may still hold rows that cannot be, as
another program wrote it, or wrote it anew: these are named and left out, so that no reader has to expect a latency of
-1 or of infinity.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from archbench.model import axes
from archbench.model.counts import read_lines
from archbench.model.errors import UsageError, escaped
from archbench.model.record import SCHEMA_VERSION, STATUSES, VERDICTS, Record, Sample, columns

log = logging.getLogger(__name__)

VERSION_KEY = b"archbench.schema_version"
KEY_COLUMNS = ("cell_id", "round", "visit")
"""What tells one row from another; the samples of a row carry the same three."""


def check_version(path: Path, schema: pa.Schema) -> None:
    """Raises `UsageError` for a file whose schema version, in its metadata, this archbench cannot read."""
    text = (schema.metadata or {}).get(VERSION_KEY, b"").decode(errors="replace")
    if not text:
        raise UsageError(f"{path}: is parquet, but not a file of archbench's results (it carries no schema version)")
    if not text.isdecimal() or not 1 <= int(text) <= SCHEMA_VERSION:
        raise UsageError(
            f"{path}: has schema version {text}, and this archbench reads 1 to {SCHEMA_VERSION}; "
            "use the archbench that wrote it, or a newer one"
        )


def _arrow_type(kind: msgspec.inspect.Type) -> pa.DataType:
    """The arrow type of a field's type: explicit, so that a column of nulls alone keeps its type."""
    match kind:
        case msgspec.inspect.Metadata(type=inner):
            return _arrow_type(inner)
        case msgspec.inspect.UnionType(types=types):
            (only,) = (one for one in types if not isinstance(one, msgspec.inspect.NoneType))
            return _arrow_type(only)
        case msgspec.inspect.VarTupleType(item_type=item):
            return pa.list_(_arrow_type(item))
        case msgspec.inspect.BoolType():
            return pa.bool_()
        case msgspec.inspect.IntType():
            return pa.int64()
        case msgspec.inspect.FloatType():
            return pa.float64()
        case msgspec.inspect.StrType() | msgspec.inspect.LiteralType():
            return pa.string()
    raise TypeError(f"no arrow type for {kind}")


def schema_of(struct: type[msgspec.Struct]) -> pa.Schema:
    """One arrow field a struct field, with what `Meta` says of it, so that a file explains itself in any reader."""
    info: Any = msgspec.inspect.type_info(struct)
    known = columns() if struct is Record else {}
    fields = [
        pa.field(
            field.name,
            _arrow_type(field.type),
            metadata={"description": known[field.name].description, "unit": known[field.name].unit or ""}
            if field.name in known
            else None,
        )
        for field in info.fields
    ]
    return pa.schema(fields, metadata={VERSION_KEY: str(SCHEMA_VERSION).encode()})


def _required(struct: type[msgspec.Struct]) -> Iterator[str]:
    info: Any = msgspec.inspect.type_info(struct)
    for field in info.fields:
        kind = field.type.type if isinstance(field.type, msgspec.inspect.Metadata) else field.type
        if not isinstance(kind, msgspec.inspect.UnionType):
            yield field.name


RECORDS: pa.Schema = schema_of(Record)
SAMPLES: pa.Schema = schema_of(Sample)
REQUIRED = frozenset(_required(Record)) | frozenset(_required(Sample))
"""Columns that are never null, and so are in every file of their kind; any other may be younger than a file."""

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
    known = columns().get(name)  # of rows; what is timed in samples goes by its name
    unit = known.unit if known else "s" if name.endswith("_s") else None
    if unit == "s" and value > _LONGEST_S:
        return "is longer than thirty years"
    if name == "batch_size" or (unit in ("s", "img/s") and name not in _MAY_BE_ZERO):
        return None if value > 0 else "is not positive"
    if (isinstance(value, int) or unit) and unit != "points":
        return None if 0 <= value < _LARGEST else "is negative, or too large"
    return None


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
