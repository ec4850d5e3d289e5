"""A report as markdown that code forges render (GitHub's flavour: tables and foldable details)."""

from __future__ import annotations

import re
from urllib.parse import quote

from archbench.model.units import printable
from archbench.rendering.content import CODE, Block, Bullets, Code, Fold, Paragraph, Picture, Report, Section, Table
from archbench.rendering.html import html

# Everything that markdown, HTML or a forge's mathematics could take for markup. An underscore inside a word is safe.
_ESCAPES = str.maketrans(
    {**{mark: f"\\{mark}" for mark in "\\*[]|~$"}, "<": "&lt;", ">": "&gt;", "&": "&amp;", "`": "&#96;"}
)
_LOOSE_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")
_OPENING = re.compile(r"(\d{1,9})(?=[.)])|(?=[#+=-])")
"""What at the start of a line makes it a heading, a list or an underline."""


def render_markdown(report: Report, plots: str | None = None) -> str:
    """The report as one markdown document, ending in a newline.

    Its pictures are SVG files in the folder `plots` beside it (`report.drawing` makes them); without one, their
    descriptions stand in their place.
    """
    return "\n\n".join([f"# {_text(report.title)}", *(_block(block, 2, plots) for block in report.blocks)]) + "\n"


def _block(block: Block, level: int, plots: str | None) -> str:
    match block:
        case Paragraph():
            return _line(block.text)
        case Bullets():
            return "\n".join(f"- {_line(item)}" for item in block.items)
        case Code():
            fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", block.text)), 3)
            return f"{fence}{block.language}\n{block.text}\n{fence}"
        case Table():
            return _table(block)
        case Fold():
            # Forges render markdown inside details only after an empty line.
            inside = "\n\n".join(_block(each, level, plots) for each in block.blocks)
            return f"<details><summary>{html(block.summary)}</summary>\n\n{inside}\n\n</details>"
        case Picture():
            # An image without a folder of its own would be a broken one.
            place = None if plots is None else f"{quote(plots)}/{block.name}.svg"
            return f"*{_text(block.title)}.* {_text(block.alt)}" if place is None else f"![{_text(block.alt)}]({place})"
        case Section():
            below = [_block(each, level + 1, plots) for each in block.blocks]
            return "\n\n".join([f"{'#' * level} {_text(block.title)}", *below])


def _table(table: Table) -> str:
    rules = ("--:" if column in table.numeric else "---" for column in range(len(table.headings)))
    # A bar ends a cell even inside code.
    cells = (" | ".join(_text(cell, bar="\\|") for cell in row) for row in (table.headings, *table.rows))
    head, *body = (f"| {line} |" for line in cells)
    return "\n".join([head, f"| {' | '.join(rules)} |", *body])


def _line(text: str) -> str:
    return _OPENING.sub(lambda found: f"{found[0]}\\", _text(text), count=1) if _OPENING.match(text) else _text(text)


def _text(text: str, bar: str = "|") -> str:
    """One line of text with everything escaped but `code`."""
    if text.isalnum():  # most cells of a long table
        return text
    pieces = CODE.split(printable(text))
    return "".join(f"`{piece.replace('|', bar)}`" if odd % 2 else _escaped(piece) for odd, piece in enumerate(pieces))


def _escaped(text: str) -> str:
    text = text.translate(_ESCAPES)
    return _LOOSE_UNDERSCORE.sub(r"\_", text) if "_" in text else text
