"""A report as plain text: whole in a pipe or a file, as wide as the screen on a terminal.

Where a table is wider than the screen, texts are shortened first and then columns are left out from the right, by name;
a number is never cut. Rich would lay tables out as well, but takes 0.2 s of the 0.8 s within which `list` answers.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from archbench.rendering.content import Block, Bullets, Code, Fold, Paragraph, Picture, Report, Section, Table

PROSE = 120
"""Characters of a line of running text at most."""
_GAP = "  "
_NUMBER = re.compile(r"[+±-]?\d[\d.,e%-]*")
_SHORTEST = 16
"""Characters to which a text in a table is shortened before a column is left out."""
_COLOURS = {
    **dict.fromkeys(("ok", "same", "faster"), 32),
    **dict.fromkeys(("note", "suspect", "warn", "undecided"), 33),
    **dict.fromkeys(("invalid", "unfit", "slower", "FAILS", "oom", "error", "crashed", "timeout"), 31),
}
"""By the first word of a line, as the standard's numbers: green, yellow, red."""


def print_report(report: Report) -> None:
    """Print on stdout, with colours on a terminal unless NO_COLOR is set (https://no-color.org)."""
    screen = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if screen else None
    print(render_terminal(report, width, colour=screen and not os.environ.get("NO_COLOR")), end="")


def render_terminal(report: Report, width: int | None = None, *, colour: bool = False) -> str:
    """The report as lines of at most `width` characters (but for code and long words); of any length without one."""
    lines = _Lines(width, colour)
    if report.title:
        lines.title(report.title)
    lines.blocks(report.blocks)
    return "".join(f"{line}\n" for line in lines.said)


class _Lines:
    def __init__(self, width: int | None, colour: bool) -> None:
        self.said: list[str] = []
        self._width = width
        self._colour = colour

    def title(self, text: str) -> None:
        """On one line where nothing is as narrow as a screen: a log's last line is a verdict."""
        lines = self._wrapped(text) if self._width else [_clean(text)]
        self.said += [self._painted(line, 1) for line in lines]

    def blocks(self, blocks: Iterable[Block]) -> None:
        """A heading, a fold and a table with headings stand off from the text before them."""
        before: Block | None = None
        for block in blocks:
            apart = isinstance(block, Section | Fold) or (
                isinstance(block, Table) and any(block.headings) and before is not None
            )
            if apart and self.said:
                self.said.append("")
            self._block(block)
            before = block

    def _block(self, block: Block) -> None:
        match block:
            case Paragraph():
                self.said += self._wrapped(block.text)
            case Bullets():
                for item in block.items:
                    self.said += self._wrapped(item, "  - ")
            case Code():
                self.said += [f"  {_clean(line)}".rstrip() for line in block.text.splitlines()]
            case Table() if any(block.headings):
                self.said += self._table(block)
            case Table():
                self.said += self._terms(block)
            case Fold():
                self.said += self._wrapped(block.summary)
                self.blocks(block.blocks)
            case Section():
                self.title(block.title)
                self.blocks(block.blocks)
            case Picture():
                pass

    def _table(self, table: Table) -> Iterator[str]:
        rows = [[_clean(cell) for cell in row] for row in (table.headings, *table.rows)]
        widths, dropped = _fitting(rows, table.numeric, self._width)
        for row in rows:
            cells = (
                text.rjust(width) if place in table.numeric else _shortened(text, width).ljust(width)
                for place, (text, width) in enumerate(zip(row, widths, strict=False))
            )
            yield self._verdict(_GAP.join(cells).rstrip(), row[0])
        if dropped:
            yield from self._wrapped(f"(no room for: {', '.join(dropped)}; a wider screen or `| cat` shows all)")

    def _terms(self, table: Table) -> Iterator[str]:
        """A table without headings: what stands first, and text that hangs beside it."""
        rows = [[_clean(cell) for cell in row] for row in table.rows]
        widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
        for *first, text in rows:
            lead = "  " + "".join(cell.ljust(width) + _GAP for cell, width in zip(first, widths, strict=False))
            for line in self._wrapped(text, lead):
                yield self._verdict(line, first[0] if first else "")

    def _wrapped(self, text: str, lead: str = "") -> list[str]:
        room = min(self._width or PROSE, PROSE)
        return textwrap.wrap(
            " ".join(_clean(text).split()),
            max(room, len(lead) + _SHORTEST),
            initial_indent=lead,
            subsequent_indent=" " * len(lead),
            break_long_words=False,
            break_on_hyphens=False,
        ) or [lead.rstrip()]

    def _verdict(self, line: str, first: str) -> str:
        """The line with the word that it begins with in its colour."""
        word = first.partition(" ")[0]
        if not self._colour or word not in _COLOURS:
            return line
        return line.replace(word, self._painted(word, _COLOURS[word]), 1)

    def _painted(self, text: str, code: int) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text


def _fitting(
    rows: Sequence[Sequence[str]], numeric: frozenset[int], room: int | None
) -> tuple[list[int], Sequence[str]]:
    """The widths of the columns that fit, and the headings of those that do not. The first two always stay."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if room is None:
        return widths, ()
    count = len(widths)
    while count > 1:
        fitting = widths[:count]
        over = sum(fitting) + len(_GAP) * (count - 1) - room
        texts = sorted((place for place in range(count) if place not in numeric), key=lambda place: -fitting[place])
        for place in texts:
            cut = min(max(over, 0), max(fitting[place] - _SHORTEST, 0))
            fitting[place] -= cut
            over -= cut
        if over <= 0 or count == 2:
            return fitting, [heading for heading in rows[0][count:] if heading]
        count -= 1
    return widths, ()


def _shortened(text: str, width: int) -> str:
    """The text, or its beginning: a number that would be cut is left out whole."""
    if len(text) <= width:
        return text
    cut = width - 1
    for number in _NUMBER.finditer(text):
        if number.start() < cut < number.end():
            cut = number.start()
    return f"{text[:cut].rstrip()}…"


def _clean(text: str) -> str:
    """On one line and without marks of code; a control character must not reach the terminal."""
    text = text.replace("`", "")
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)
