"""The arrow schemas of rows and samples, derived from the types themselves, and the version that files carry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from archbench.model.errors import UsageError
from archbench.model.record import SCHEMA_VERSION, Record, Sample, columns

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
