"""A report as markup: markdown that code forges render, and LaTeX tables for a paper."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote

from archbench.model.units import NULL, printable
from archbench.rendering.content import (
    Block,
    Bullets,
    Code,
    Fold,
    Paragraph,
    Picture,
    Report,
    Section,
    Table,
    every,
    marked,
    slug,
)
from archbench.rendering.html import html

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
_LATEX_ESCAPES = str.maketrans(
    {
        **{mark: f"\\{mark}" for mark in "{}$&#_%"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\textquotedbl{}",
        "`": r"\textasciigrave{}",
        "'": r"\textquotesingle{}",
        "±": r"$\pm$",
        "×": r"$\times$",
        "∞": r"$\infty$",
        "ρ": r"$\rho$",
        "↑": r"$\uparrow$",
        "…": r"\ldots{}",
        "\N{REPLACEMENT CHARACTER}": "?",
    }
)
_HYPHENS = re.compile("-(?=-)")
"""Two in a row would be set as a dash."""


def render_markdown(report: Report, plots: str | None = None) -> str:
    """The report as one markdown document of GitHub's flavour, ending in a newline.

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
            return _piped(block)
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


def render_latex(report: Report) -> str:
    """Every table of the report that has a caption, in order, by booktabs, without what is said around them.

    Letters beyond Latin need LuaLaTeX or XeLaTeX and a font that has them.
    """
    head = (  # on one line: a comment ends with it
        f"% {printable(report.title)}\n% In the preamble: \\usepackage[T1]{{fontenc}} \\usepackage{{textcomp}} "
        "\\usepackage{booktabs} \\usepackage{longtable}"
    ) + (f"\n% {printable(report.trust)}" if report.trust else "")
    labels: dict[str, int] = {}
    captioned = (table for table in every(Table, report.blocks) if table.caption)
    return "\n\n".join([head, *(_booktabs(table, _label(table.caption, labels)) for table in captioned)]) + "\n"


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


def _label(caption: str, taken: dict[str, int]) -> str:
    """The caption as a label of ASCII letters, digits and hyphens, numbered where another table has the same."""
    stem = slug(caption) or "table"
    taken[stem] = taken.get(stem, 0) + 1
    return stem if taken[stem] == 1 else f"{stem}-{taken[stem]}"
