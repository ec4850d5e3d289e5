"""What of a large parquet file survives damage: it carries its footer twice, and a checksum of each group of rows.

Both stand between its last page and its footer, where readers do not look, with a short head before and behind: so a
changed byte costs the rows of its group, and outside of the groups nothing.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from itertools import pairwise

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from archbench.results.files import footer_start

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
    """Where each group of rows begins."""
    about = pq.read_metadata(pa.BufferReader(content))
    starts = []
    for number in range(about.num_row_groups):
        first = about.row_group(number).column(0)
        starts.append(first.dictionary_page_offset if first.has_dictionary_page else first.data_page_offset)
    return starts
