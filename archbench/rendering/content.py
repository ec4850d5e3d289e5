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
    caption: str = ""
    """What it would be called in a paper; a table without a caption is for this report alone, and LaTeX leaves it out.
    """


class Fold(Struct, frozen=True, kw_only=True):
    """Something long behind one line that opens it."""

    summary: str
    blocks: tuple[Block, ...]


SHOWN = "shown"
"""Name of the layer of a picture whose marks stand for the figures."""


class Picture(Struct, frozen=True, kw_only=True):
    """A chart: a file beside markdown (`report.drawing`), live in HTML."""

    name: str
    """Stem of its file: lower-case letters, digits and hyphens; unique in a report, and never made from data."""
    title: str
    alt: str
    """What it shows, in words, for those who do not see it."""
    spec: str
    """Vega-Lite as JSON, without colours of its own theme; data inline, or `{"name": ...}` of the `Dataset`.

    What the tooltips of its layer named `SHOWN` say is also offered as a table.
    """


class Section(Struct, frozen=True, kw_only=True):
    """A heading and what stands under it."""

    title: str
    blocks: tuple[Block, ...]
    phase: str | None = None
    """`inference` or `training` where every table in it is about that phase: what an interactive page filters by."""


Block = Paragraph | Bullets | Code | Table | Fold | Picture | Section


class Facet(Struct, frozen=True, kw_only=True):
    """A filter that an interactive page offers; it changes the pictures and the tables."""

    column: str
    """Of the `Dataset`."""
    label: str
    """What the reader sees."""
    options: tuple[str, ...]
    """What can be chosen, in order: values of the column as text."""
    heading: str
    """Tables with a column of this heading follow the filter."""
    stands_for: dict[str, str] | None = None
    """The option that each text below that heading stands for, where it is not the text itself."""


class Dataset(Struct, frozen=True, kw_only=True):
    """Figures that several pictures share, stored once; numbers in the unit that the pictures name."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int | bool | None, ...], ...]
    facets: tuple[Facet, ...] = ()
    left_out: str | None = None
    """What is not in it, and where it is: a sentence."""


class Report(Struct, frozen=True, kw_only=True):
    """The whole: a title, what stands before the first heading, and the sections in order."""

    title: str
    lead: tuple[Block, ...]
    sections: tuple[Section, ...]
    dataset: Dataset | None = None
    """What its pictures draw, unless they hold their own data."""
