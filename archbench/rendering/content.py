"""What a report says, free of any format: a renderer turns it into markdown, HTML or LaTeX.

Text may hold `code` between backticks and nothing else; renderers escape everything, so names need no care.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count, islice, takewhile
from typing import TypeAlias, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from archbench.model.errors import UsageError, did_you_mean
from archbench.model.units import printable

_CODE = re.compile(r"`([^`]+)`")
"""Splits a text into what stands outside and, at odd places, inside of backticks."""


class Paragraph(Struct, frozen=True):
    """Running text, with code in backticks."""

    text: str


class Bullets(Struct, frozen=True):
    """A list of short points, with code in backticks."""

    items: tuple[str, ...]


class Code(Struct, frozen=True):
    """Commands to copy."""

    text: str
    language: str = "sh"


PLACE = {"phase": "{}", "setting": "{}", "batch": "batch {}"}
"""Columns that say where rows were measured, by heading, and the words for one place that all of them share."""
Shared: TypeAlias = frozenset[tuple[str, str]]
"""What rows have in common of `PLACE`: headings, and the text below each."""


class Table(Struct, frozen=True, kw_only=True):
    """Headings and rows of text; `numeric` says which columns stand to the right. `table` and `tabled` make one."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()
    caption: str = ""
    """What it would be called in a paper; a table without a caption is for this report alone, and LaTeX leaves it out.
    """
    shared: tuple[tuple[str, str], ...] = ()
    """What all rows have in common of `PLACE`, by heading: said once, in place of a column."""

    def shared_words(self, known: Shared = frozenset(), said: str = "") -> str:
        """`inference, fp32, batch 4`: what all rows share, without what is `known` or was `said` in a heading."""
        words = (PLACE[name.lower()].format(text) for name, text in self.shared if (name, text) not in known)
        return ", ".join(one for one in words if not re.search(rf"(?<![\w-]){re.escape(one)}(?![\w-])", said, re.I))


class Fold(Struct, frozen=True, kw_only=True):
    """Something long behind one line that opens it."""

    summary: str
    blocks: tuple[Block, ...]


SHOWN = "shown"
"""Name of the layer of a picture whose marks stand for the figures."""
NAMES = "names"
"""Name of the layer of a picture whose marks are the points' names, placed where there is room."""


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
    """The whole: a title, and what stands under it in reading order. `report` makes one."""

    title: str
    parts: tuple[Block, ...]
    dataset: Dataset | None = None
    """What its pictures draw, unless they hold their own data."""
    trust: str = ""
    """Which differences are differences: what stands beside figures that travel without the text around them."""
    shared: Shared = frozenset()
    """What all rows of all tables have in common, as `Table.shared` has it: the lead says it."""

    @property
    def lead(self) -> tuple[Block, ...]:
        """What stands before the first section."""
        return tuple(takewhile(lambda block: not isinstance(block, Section), self.parts))

    @property
    def sections(self) -> tuple[Block, ...]:
        """The first section and what follows."""
        return self.parts[len(self.lead) :]

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Everything under the title, with what a table's rows share said above it."""
        return spelled_out(self.parts, self.shared)


def spelled_out(blocks: Iterable[Block], known: Shared, said: str = "") -> tuple[Block, ...]:
    """The blocks, with a line above each table on what its rows share, unless it is `known` or was `said` above."""
    spelled: list[Block] = []
    before = ""
    for block in blocks:
        match block:
            case Table():
                words = block.shared_words(known, said)
                if words not in ("", before):  # of tables side by side the first says it
                    spelled.append(Paragraph(f"All rows: {words}."))
                before = words
            case Fold():
                block = replace(block, blocks=spelled_out(block.blocks, known, f"{said} {block.summary}"))
            case Section():
                block = replace(block, blocks=spelled_out(block.blocks, known, f"{said} {block.title}"))
        spelled.append(block)
    return tuple(spelled)


def marked(text: str, plain: Callable[[str], str], code: Callable[[str], str]) -> str:
    """One line of text, with what stands between backticks written by `code` and the rest by `plain`."""
    pieces = _CODE.split(printable(text))
    return "".join((code if place % 2 else plain)(piece) for place, piece in enumerate(pieces))


def slug(text: str) -> str:
    """ASCII letters, digits and hyphens: a name for a place that nothing can be smuggled into; may be empty."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def unique(name: str, taken: set[str]) -> str:
    """The name, with a number behind it where it is `taken`; from now on it is."""
    numbered = (f"{name}-{number}" if number > 1 else name for number in count(1))
    taken.add(free := next(one for one in numbered if one not in taken))
    return free


def known_format(name: str, known: Iterable[str], option: str = "--format") -> None:
    """Raises `UsageError` for a format that is none of those known."""
    if name not in (known := tuple(known)):
        raise UsageError(f"{option} {name}: no such format, known: {', '.join(known)}{did_you_mean(name, known)}")


Kind = TypeVar("Kind")
Item = TypeVar("Item")
Key = TypeVar("Key")
Whole = TypeVar("Whole")
Columns = Mapping[str, Callable[[Item], str]]
"""A table's columns: by heading as `table` takes it, the text of one item."""


def every(kind: type[Kind], blocks: Iterable[Block]) -> Iterator[Kind]:
    """All blocks of a kind in reading order, inside of sections and folds, too."""
    for block in blocks:
        if isinstance(block, kind):
            yield block
        elif isinstance(block, Fold | Section):
            yield from every(kind, block.blocks)


LONG_TABLE = 100
"""Rows beyond which a table waits behind a line that opens it."""
MOST_ROWS = 500
"""Rows beyond which a table is cut: code forges do not render markdown of some hundred KiB."""
_WIDEST = 6
"""Columns of figures side by side."""


def table(headings: Iterable[str], rows: Iterable[Iterable[str]], caption: str = "") -> Table:
    """A table; the column of a heading that begins with `>` stands to the right. `caption`: see `Table`."""
    named = tuple(headings)
    return Table(
        headings=tuple(name.removeprefix(">") for name in named),
        rows=tuple(map(tuple, rows)),
        numeric=frozenset(place for place, name in enumerate(named) if name.startswith(">")),
        caption=caption,
    )


def tabled(items: Iterable[Item], columns: Columns[Item], caption: str = "") -> Table:
    """A table of a row for each item, without the columns of `PLACE` in which all rows say the same."""
    rows = [[text(one) for text in columns.values()] for one in items]
    alike = [name for name, texts in zip(columns, zip(*rows, strict=True), strict=False) if len(set(texts)) == 1]
    shared = {name: rows[0][list(columns).index(name)] for name in alike if name.removeprefix(">").lower() in PLACE}
    kept = [place for place, name in enumerate(columns) if name not in shared]
    found = table([name for name in columns if name not in shared], ([row[n] for n in kept] for row in rows), caption)
    return replace(found, shared=tuple((name.removeprefix(">"), text) for name, text in shared.items()))


def of(part: Callable[[Whole], Item], *columns: Columns[Item]) -> dict[str, Callable[[Whole], str]]:
    """Columns of a part, for items that hold it."""

    def through(text: Callable[[Item], str]) -> Callable[[Whole], str]:
        return lambda whole: text(part(whole))

    return {heading: through(text) for each in columns for heading, text in each.items()}


def listed(
    items: Sequence[Item],
    columns: Columns[Item],
    *,
    noun: str,
    caption: str = "",
    most: int = MOST_ROWS,
    elsewhere: str = "of which `results.parquet` has the figures",
) -> Table | Fold:
    """`tabled`, folded where long, cut after `most` rows and never in silence.

    `noun`: what the items are, in the plural; `elsewhere`: where those are that were cut.
    """
    found = tabled(items[:most], columns, caption)
    if len(items) <= min(most, LONG_TABLE):
        return found
    if len(items) <= most:
        return fold(f"{len(items):,} {noun}", found)
    rest = f"And {len(items) - most:,} more {noun}, {elsewhere}."
    return fold(f"The first {most:,} of {len(items):,} {noun}", found, rest)


def wide(
    items: Sequence[Item], lead: Columns[Item], figures: Columns[Item], *, noun: str, caption: str = ""
) -> list[Block]:
    """`listed` in as many tables as `_WIDEST` columns of figures allow; each begins with the `lead`."""
    parts = (dict(islice(figures.items(), start, start + _WIDEST)) for start in range(0, len(figures), _WIDEST))
    return [listed(items, {**lead, **part}, noun=noun, caption=caption) for part in parts]


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """The items by a key, in the order in which keys come first."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


Part: TypeAlias = "Block | str | Iterable[Part] | None"
"""What `body` takes."""


def body(*parts: Part) -> tuple[Block, ...]:
    """Blocks in a row: text becomes a paragraph, what holds several is opened, and what is empty is left out."""
    found: list[Block] = []
    for part in parts:
        if isinstance(part, str):
            found += [Paragraph(part)] * bool(part)
        elif isinstance(part, Struct):
            match part:
                case Bullets(items=()) | Code(text="") | Table(rows=()) | Fold(blocks=()):
                    pass
                case _:  # a section may be no more than its title
                    found.append(part)
        elif part is not None:
            found += body(*part)
    return tuple(found)


def section(title: str, *parts: Part, note: Part = None, phase: str | None = None) -> Section | None:
    """What `body` makes of the parts under a heading, behind a note; `None` where they are empty."""
    inside = body(*parts)
    return Section(title=title, blocks=body(note, inside), phase=phase) if inside else None


def fold(summary: str, *parts: Part) -> Fold:
    """What `body` makes of the parts behind a line that opens it."""
    return Fold(summary=summary, blocks=body(*parts))


def bullets(*items: str | None) -> Bullets:
    """A point for each item that is not empty."""
    return Bullets(tuple(filter(None, items)))


def report(
    title: str, *parts: Part, dataset: Dataset | None = None, trust: str = "", shared: Shared = frozenset()
) -> Report:
    """What `body` makes of the parts under a title; the rest as of `Report`."""
    return Report(title=title, parts=body(*parts), dataset=dataset, trust=trust, shared=shared)
