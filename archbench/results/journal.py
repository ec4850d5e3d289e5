"""A table that grows row by row on disk: a folder of small parquet files, now and then folded into one large file.

A file is written whole or not at all; a damaged one is named in a warning and left out, of the large one the group of
rows that is damaged. Rows in the folder win over rows in the large file, so a death in the middle of folding loses and
doubles nothing. Reading writes nothing.

Schemas come from the types of rows and samples; a file carries their version. The large file carries its footer twice,
and a checksum of each group of rows. Both stand between its last page and its footer, where readers do not look, with a
short head before and behind: so a changed byte costs the rows of its group, and outside of the groups nothing.
"""

from __future__ import annotations

import errno
import io
import logging
import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.parquet as pq

from archbench.model.errors import UsageError
from archbench.model.record import SCHEMA_VERSION, Record, Sample, columns
from archbench.results.files import footer_start, is_whole, sealed_parquet, write_bytes

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

ROW_GROUP, ROW_GROUPS = 64, 16
"""Rows of a group at least, and groups at most: what one damaged byte costs, against what groups cost in size."""
_FEW = 1024
"""Rows up to which most of a file's time goes into opening column after column."""
LONG_FILE = 1 << 20
"""Bytes."""


class Journal:
    """Rows of one schema, in `folder` as long as they are fresh and in `merged` after `fold`. One writer at a time.

    `order`: columns by which rows are sorted; `key`: those that tell one row, or the rows of one file, from another.
    """

    def __init__(
        self, folder: Path, merged: Path, schema: pa.Schema, order: Sequence[str], key: Sequence[str] = KEY_COLUMNS
    ) -> None:
        self.folder = folder
        self.merged = merged
        self.schema = schema
        self.order = order
        self.key = key

    def add(self, name: str, rows: Sequence[msgspec.Struct]) -> None:
        """Store rows durably as the file `name`, in the place of an earlier one.

        Raises `UnfitError` where the disk is full.
        """
        # Plain pages: with compression and statistics a row of 80 columns takes three times as long to write and read.
        write_bytes(self.folder / name, parquet_bytes(to_table(rows, self.schema), self.schema, **_plain("none")))

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*.parquet"))

    def read(self, columns: Sequence[str] | None = None, only: Collection[str] | None = None) -> pa.Table:
        """All rows, of the fresh files those named in `only`; sorted where all columns are read.

        Raises `UsageError` for a file of a newer version.
        """
        wanted = columns or self.schema.names
        # The folder before the large file: what a fold takes out of the one meanwhile is found in the other.
        fresh = self._fresh(wanted, only)
        rows = self._overlay(self._folded(wanted), fresh.values(), _columns_of(self.schema, wanted))
        return rows if columns or not fresh else self._sorted(rows)  # the large file is sorted already

    def fold(self, only: Collection[str] | None = None) -> None:
        """Move the fresh rows into the large file. Damaged files are renamed to `*.damaged`, not deleted.

        Raises `UnfitError` where the disk is full; nothing is lost then.
        """
        for leftover in (*self.folder.glob(".*.tmp"), *self.merged.parent.glob(f".{self.merged.name}.*.tmp")):
            leftover.unlink()  # a writer was killed
        fresh = self._fresh(self.schema.names, only)
        if not fresh:
            return
        folded = self._folded(self.schema.names)
        if self.merged.exists() and (folded is None or not is_whole(self.merged.read_bytes())):
            _put_aside(self.merged)
        self.fill(self._overlay(folded, fresh.values(), self.schema))
        for name, table in fresh.items():
            if table is None:
                _put_aside(self.folder / name)
            else:
                (self.folder / name).unlink()

    def fill(self, rows: pa.Table) -> None:
        """Store all rows at once, in the place of a large file. Raises `UnfitError` where the disk is full."""
        # One of few rows is packed so that it is read in a quarter of zstd's time, and is no larger.
        packed: dict[str, Any] = {"compression": "zstd"} if rows.num_rows > _FEW else _plain("lz4")
        write_bytes(self.merged, parquet_bytes(self._sorted(rows), self.schema, grouped=True, **packed))

    def _sorted(self, rows: pa.Table) -> pa.Table:
        return rows.sort_by([(name, "ascending") for name in self.order])

    def _fresh(self, wanted: Sequence[str], only: Collection[str] | None) -> dict[str, pa.Table | None]:
        tables: dict[str, pa.Table | None] = {}
        for name in self.names():
            if only is not None and name not in only:
                continue
            try:
                tables[name] = _read_if_whole(self.folder / name, self.schema, wanted)
            except FileNotFoundError:
                continue  # folded meanwhile
        return tables

    def _folded(self, wanted: Sequence[str]) -> pa.Table | None:
        try:
            return _read_if_whole(self.merged, self.schema, wanted)
        except FileNotFoundError:
            return None

    def _overlay(self, folded: pa.Table | None, fresh: Iterable[pa.Table | None], empty: pa.Schema) -> pa.Table:
        added = [table for table in fresh if table is not None]
        if not added:
            # Not `empty.empty_table()`, which goes through Python lists and so imports pandas.
            return pa.Table.from_batches([], schema=empty) if folded is None else folded
        if folded is not None:
            new = keys_of(pa.concat_tables(added), self.key).combine_chunks()
            added.insert(0, folded.filter(pc.invert(pc.is_in(keys_of(folded, self.key), value_set=new))))
        return pa.concat_tables(added)


def _plain(compression: str) -> dict[str, Any]:
    return {"compression": compression, "use_dictionary": False, "write_statistics": False}


def parquet_bytes(rows: pa.Table, schema: pa.Schema, *, grouped: bool = False, **options: Any) -> bytes:
    """The content of a parquet file of `rows`, with its checksum; `options` as of `ParquetWriter`."""
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, schema, **options) as writer:
        writer.write_table(rows, row_group_size=max(ROW_GROUP, -(-rows.num_rows // ROW_GROUPS)))
    content = buffer.getvalue()
    return sealed_parquet(with_groups(content) if grouped else content)


def to_table(rows: Sequence[msgspec.Struct], schema: pa.Schema) -> pa.Table:
    """Rows as an arrow table of exactly `schema`. NaN and infinities become null: they are no measurements.

    Goes through JSON because building arrow arrays from Python lists imports pandas (0.7 s), and this does not.
    """
    lines = msgspec.json.Encoder().encode_lines(rows)
    return pj.read_json(
        pa.BufferReader(lines),
        read_options=pj.ReadOptions(use_threads=False, block_size=len(lines) + 1),
        parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
    ).replace_schema_metadata(schema.metadata)


def read_file(path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the columns of `schema`, or those named, from a file that this archbench wrote, or an older or newer one.

    Columns that the file lacks are null, like whatever was not measured; those that `schema` lacks are left out.
    Raises `OSError` where the disk fails, and `UsageError` for a damaged file (cut off, not parquet), for parquet that
    is not archbench's (it lacks what every row has), and for a newer schema version.
    """
    table = _read(path, schema, columns or schema.names)
    if table is None:
        raise UsageError(f"{path}: is not a parquet file, or a damaged one (cut off?)")
    return table


def _put_aside(damaged: Path) -> None:
    """Rename a file that cannot be read to the first free of `*.damaged`, `*.damaged.1`, ..."""
    suffixes = (".damaged", *(f".damaged.{number}" for number in range(1, 1000)))
    names = (damaged.with_name(damaged.name + suffix) for suffix in suffixes)
    damaged.rename(next(name for name in names if not name.exists()))


def keys_of(table: pa.Table, key: Sequence[str] = KEY_COLUMNS) -> pa.ChunkedArray:
    """The columns `key` of each row as one text, a line each."""
    parts = [table[name].cast(pa.string()) for name in key]
    return pc.binary_join_element_wise(*parts, "\n")


def _read_if_whole(path: Path, schema: pa.Schema, wanted: Sequence[str]) -> pa.Table | None:
    table = _read(path, schema, wanted)
    if table is None:
        log.warning("%s is damaged (cut off?); it is left out, and what was in it counts as not measured", path)
    return table


def _read(path: Path, schema: pa.Schema, wanted: Sequence[str]) -> pa.Table | None:
    """The columns, or `None` for a damaged file."""
    kept = _columns_of(schema, wanted)
    # Long files are read as dictionaries and decoded below, in a quarter of the time, as most texts repeat.
    try:
        content = path.read_bytes()
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR):  # somebody put a link or a folder in its place
            return None
        raise
    groups = None
    if not is_whole(content):
        if (saved := salvaged(content)) is None:
            return None
        content, groups = saved
        log.warning("%s is damaged; %s", path, _lost(content, groups))
    long = len(content) > LONG_FILE
    texts = [field.name for field in kept if pa.types.is_string(field.type)] if long else []
    try:
        with pq.ParquetFile(pa.BufferReader(content), read_dictionary=texts) as file:
            found = file.schema_arrow
            check_version(path, found)
            names = set(found.names)  # computed anew at every access
            present = [name for name in wanted if name in names]
            table = file.read_row_groups(
                list(range(file.num_row_groups)) if groups is None else groups, columns=present, use_threads=long
            )
            table.validate(full=True)
    except (pa.ArrowException, UnicodeDecodeError, OSError, MemoryError):  # the parser's; the disk's come before
        return None
    for name in sorted(set(wanted).difference(present)):
        if name in REQUIRED:
            raise UsageError(f"{path}: has no column {name!r}, so it is not a file of archbench's rows")
        # A column younger than the file: null, like whatever was not measured.
        table = table.append_column(name, pa.nulls(table.num_rows, schema.field(name).type))
    table = table.select(list(wanted))
    return table.replace_schema_metadata(kept.metadata) if table.schema.equals(kept) else table.cast(kept)


def _lost(content: bytes, whole: Collection[int]) -> str:
    about = pq.read_metadata(pa.BufferReader(content))
    kept = sum(about.row_group(number).num_rows for number in whole)
    if kept == about.num_rows:
        return "all its rows are whole"
    return f"of its {about.num_rows:,} rows {about.num_rows - kept:,} are left out, and count as not measured"


def _columns_of(schema: pa.Schema, wanted: Sequence[str]) -> pa.Schema:
    if list(wanted) == schema.names:  # made anew for each of many small files it is a twentieth of their time
        return schema
    return pa.schema([schema.field(name) for name in wanted], metadata=schema.metadata)


_HEAD = re.compile(rb"archbench\.groups ([0-9a-f]{8}) ([0-9a-f]{8}) ([0-9a-f]{8});")


class _Groups(msgspec.Struct, frozen=True, array_like=True):
    starts: list[int]
    """Of each group of rows, and where the last one ends."""
    checksums: list[int]
    footer: bytes
    """Its length and the format's last word included."""


def with_groups(content: bytes) -> bytes:
    """A parquet file with what `salvaged` needs."""
    end = footer_start(content)
    starts = [*_starts(content), end]
    checksums = [zlib.crc32(content[start:stop]) for start, stop in pairwise(starts)]
    told = zlib.compress(msgspec.msgpack.encode(_Groups(starts, checksums, content[end:])))
    head = b"archbench.groups %08x %08x %08x;" % (zlib.crc32(content), zlib.crc32(told), len(told))
    return content[:end] + head + told + head + content[end:]


def salvaged(content: bytes) -> tuple[bytes, list[int]] | None:
    """Of a damaged file, one that can be read, and the numbers of its whole groups; `None` where all is lost."""
    for before, head, told, after in _told(content):
        if zlib.crc32(told) == int(head[2], 16):
            groups: _Groups = msgspec.msgpack.decode(zlib.decompress(told), type=_Groups)
            ranges = enumerate(zip(pairwise(groups.starts), groups.checksums, strict=True))
            whole = [number for number, ((a, b), checksum) in ranges if zlib.crc32(content[a:b]) == checksum]
            return content[: groups.starts[-1]] + groups.footer, whole
        # Damaged itself, so that the rest may be whole; of its end the seal of the file is no part.
        pages = before + after[footer_start(after) :] if len(after) > 8 else b""
        if zlib.crc32(pages) == int(head[1], 16):
            return pages, list(range(pq.read_metadata(pa.BufferReader(pages)).num_row_groups))
    return None


def _told(content: bytes) -> Iterator[tuple[bytes, re.Match[bytes], bytes, bytes]]:
    """What stands before, in and behind the place of a head's checksums, by the head before it and by that behind."""
    for head in _HEAD.finditer(content):
        size, length = int(head[3], 16), len(head[0])
        start, end = head.end(), head.end() + size
        yield content[: head.start()], head, content[start:end], content[end + length :]
        start, end = head.start() - size, head.start()
        if start >= length:
            yield content[: start - length], head, content[start:end], content[head.end() :]


def _starts(content: bytes) -> list[int]:
    about = pq.read_metadata(pa.BufferReader(content))
    starts = []
    for number in range(about.num_row_groups):
        first = about.row_group(number).column(0)
        starts.append(first.dictionary_page_offset if first.has_dictionary_page else first.data_page_offset)
    return starts
