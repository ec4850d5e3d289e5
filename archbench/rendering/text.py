"""A report as text: lines for a terminal, markdown that code forges render, LaTeX tables for a paper.

The lines are whole in a pipe or a file, and as wide as the screen on a terminal. Where a table is wider, texts are
shortened first and then columns are left out from the right, by name; a number is never cut. Rich would lay tables out
as well, but takes 0.2 s of the 0.8 s within which `list` answers.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from urllib.parse import quote

from archbench.model.units import NULL, printable
from archbench.rendering import content
from archbench.rendering.content import Block, Report, Table, every, marked, slug, unique

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

# Everything that markdown, HTML or a forge's mathematics could take for markup. An underscore inside a word is safe.
_ESCAPES = str.maketrans(
    {**{mark: f"\\{mark}" for mark in "\\*[]|~$"}, "<": "&lt;", ">": "&gt;", "&": "&amp;", "`": "&#96;"}
)
_LOOSE_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")
_OPENING = re.compile(r"(\d{1,9})(?=[.)])|(?=[#+=-])")
"""What at the start of a line makes it a heading, a list or an underline."""
ONE_PAGE = 40
"""Rows that fit a page; a longer table goes over several, with its head on each."""
_WRAPPED = 40
"""Characters from which a column of text is broken into lines."""
_SHARE = 0.24
r"""Of `\linewidth`, for a column that is broken."""
_AS_TEXT = {"\\": "backslash", "~": "asciitilde", "^": "asciicircum", "<": "less", ">": "greater", "|": "bar"}
_QUOTES = {'"': "quotedbl", "`": "asciigrave", "'": "quotesingle"}
_AS_MATHS = {"±": "pm", "×": "times", "∞": "infty", "ρ": "rho", "↑": "uparrow"}
_LATEX_ESCAPES = str.maketrans(
    {
        **{mark: f"\\{mark}" for mark in "{}$&#_%"},
        **{mark: f"\\text{name}{{}}" for mark, name in {**_AS_TEXT, **_QUOTES}.items()},
        **{mark: f"$\\{name}$" for mark, name in _AS_MATHS.items()},
        "…": r"\ldots{}",
        "\N{REPLACEMENT CHARACTER}": "?",
    }
)
_HYPHENS = re.compile("-(?=-)")
"""Two in a row would be set as a dash."""


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
            apart = isinstance(block, content.Section | content.Fold) or (
                isinstance(block, Table) and any(block.headings) and before is not None
            )
            if apart and self.said:
                self.said.append("")
            self._block(block)
            before = block

    def _block(self, block: Block) -> None:
        match block:
            case content.Paragraph():
                self.said += self._wrapped(block.text)
            case content.Bullets():
                for item in block.items:
                    self.said += self._wrapped(item, "  - ")
            case content.Code():
                self.said += [f"  {_clean(line)}".rstrip() for line in block.text.splitlines()]
            case Table() if any(block.headings):
                self.said += self._table(block)
            case Table():
                self.said += self._terms(block)
            case content.Fold():
                self.said += self._wrapped(block.summary)
                self.blocks(block.blocks)
            case content.Section():
                self.title(block.title)
                self.blocks(block.blocks)
            case content.Picture():
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


def render_markdown(report: Report, plots: str | None = None) -> str:
    """The report as one markdown document of GitHub's flavour, ending in a newline.

    Its pictures are SVG files in the folder `plots` beside it (`report.drawing` makes them); without one, their
    descriptions stand in their place.
    """
    return "\n\n".join([f"# {_text(report.title)}", *(_markdown(block, 2, plots) for block in report.blocks)]) + "\n"


def _markdown(block: Block, level: int, plots: str | None) -> str:
    match block:
        case content.Paragraph():
            return _line(block.text)
        case content.Bullets():
            return "\n".join(f"- {_line(item)}" for item in block.items)
        case content.Code():
            fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", block.text)), 3)
            return f"{fence}{block.language}\n{block.text}\n{fence}"
        case Table():
            return _piped(block)
        case content.Fold():
            # Forges render markdown inside details only after an empty line.
            inside = "\n\n".join(_markdown(each, level, plots) for each in block.blocks)
            return f"<details><summary>{html(block.summary)}</summary>\n\n{inside}\n\n</details>"
        case content.Picture():
            # An image without a folder of its own would be a broken one.
            place = None if plots is None else f"{quote(plots)}/{block.name}.svg"
            return f"*{_text(block.title)}.* {_text(block.alt)}" if place is None else f"![{_text(block.alt)}]({place})"
        case content.Section():
            below = [_markdown(each, level + 1, plots) for each in block.blocks]
            return "\n\n".join([f"{'#' * level} {_text(block.title)}", *below])


def _piped(table: Table) -> str:
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
    return marked(text, _escaped, lambda code: f"`{code.replace('|', bar)}`")


def _escaped(text: str) -> str:
    text = text.translate(_ESCAPES)
    return _LOOSE_UNDERSCORE.sub(r"\_", text) if "_" in text else text


def html(text: str) -> str:
    """One line of text between tags."""
    if text.isalnum():  # most cells of a long table
        return text
    return marked(text, escape, lambda code: f"<code>{escape(code)}</code>")


def render_latex(report: Report) -> str:
    """Every table of the report that has a caption, in order, by booktabs, without what is said around them.

    Letters beyond Latin need LuaLaTeX or XeLaTeX and a font that has them.
    """
    head = (  # on one line: a comment ends with it
        f"% {printable(report.title)}\n% In the preamble: \\usepackage[T1]{{fontenc}} \\usepackage{{textcomp}} "
        "\\usepackage{booktabs} \\usepackage{longtable}"
    ) + (f"\n% {printable(report.trust)}" if report.trust else "")
    labels: set[str] = set()
    captioned = (table for table in every(Table, report.blocks) if table.caption)
    tables = (_booktabs(table, unique(slug(table.caption) or "table", labels)) for table in captioned)
    return "\n\n".join([head, *tables]) + "\n"


def _booktabs(table: Table, label: str) -> str:
    columns = "".join(_column(table, place) for place in range(len(table.headings)))
    head = f"\\toprule\n{_row(table.headings)}\n\\midrule"
    body = "\n".join(map(_row, table.rows))
    shared = f" ({words})" if (words := table.shared_words(said=table.caption)) else ""
    caption = f"\\caption{{{_latex(table.caption + shared)}}}\\label{{tab:{label}}}"
    if len(table.rows) > ONE_PAGE:
        return (
            f"\\begin{{longtable}}{{{columns}}}\n{caption}\\\\\n{head}\n\\endfirsthead\n{head}\n\\endhead\n"
            f"\\bottomrule\n\\endfoot\n{body}\n\\end{{longtable}}"
        )
    return (
        f"\\begin{{table}}\n\\centering\n{caption}\n\\begin{{tabular}}{{{columns}}}\n{head}\n{body}\n"
        "\\bottomrule\n\\end{tabular}\n\\end{table}"
    )


def _column(table: Table, place: int) -> str:
    if place in table.numeric:
        return "r"
    longest = max((len(row[place]) for row in table.rows), default=0)
    return f"p{{{_SHARE}\\linewidth}}" if longest > _WRAPPED else "l"


def _row(cells: Iterable[str]) -> str:
    first, *others = ("{--}" if cell == NULL else _latex(cell) for cell in cells)
    # After the end of a row, a bracket would be taken for a length, and a star for a command.
    first = f"{{{first}}}" if first.startswith(("[", "*")) else first
    return f"{' & '.join([first, *others])} \\\\"


def _latex(text: str) -> str:
    """One line of text with everything escaped but `code`, which is set as such."""

    def plain(piece: str) -> str:
        return _HYPHENS.sub("-{}", piece.translate(_LATEX_ESCAPES))

    return marked(text, plain, lambda code: f"\\texttt{{{plain(code)}}}")
