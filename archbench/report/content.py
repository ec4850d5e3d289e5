"""What a report says, free of any format: a renderer turns it into markdown, HTML or LaTeX.

Text may hold `code` between backticks and nothing else; renderers escape everything, so names need no care.
"""

from __future__ import annotations

from msgspec import Struct


class Paragraph(Struct, frozen=True):
    """Running text."""

    text: str


class Bullets(Struct, frozen=True):
    """A list of short points."""

    items: tuple[str, ...]


class Code(Struct, frozen=True):
    """Commands to copy."""

    text: str
    language: str = "sh"


class Table(Struct, frozen=True, kw_only=True):
    """Headings and rows of text; `numeric` says which columns stand to the right."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()


class Fold(Struct, frozen=True, kw_only=True):
    """Something long behind one line that opens it."""

    summary: str
    blocks: tuple[Block, ...]


class Section(Struct, frozen=True, kw_only=True):
    """A heading and what stands under it."""

    title: str
    blocks: tuple[Block, ...]


Block = Paragraph | Bullets | Code | Table | Fold | Section


class Report(Struct, frozen=True, kw_only=True):
    """The whole: a title, what stands before the first heading, and the sections in order."""

    title: str
    lead: tuple[Block, ...]
    sections: tuple[Section, ...]
