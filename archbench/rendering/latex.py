r"""A report's tables for a paper: booktabs, everything escaped, each a `table` or a `longtable` to copy."""

from __future__ import annotations

import re
from collections.abc import Iterable

from archbench.model.units import NULL, printable
from archbench.rendering.content import CODE, Report, Table, every, slug

ONE_PAGE = 40
"""Rows that fit a page; a longer table goes over several, with its head on each."""
_WRAPPED = 40
"""Characters from which a column of text is broken into lines."""
_SHARE = 0.24
r"""Of `\linewidth`, for a column that is broken."""
_ESCAPES = str.maketrans(
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


def render_latex(report: Report) -> str:
    """Every table of the report that has a caption, in order; what the report says around them is left out.

    Letters beyond Latin need LuaLaTeX or XeLaTeX and a font that has them.
    """
    head = (  # on one line: a comment ends with it
        f"% {printable(report.title)}\n% In the preamble: \\usepackage[T1]{{fontenc}} \\usepackage{{textcomp}} "
        "\\usepackage{booktabs} \\usepackage{longtable}"
    ) + (f"\n% {printable(report.trust)}" if report.trust else "")
    labels: dict[str, int] = {}
    captioned = (table for table in every(Table, report.blocks) if table.caption)
    return "\n\n".join([head, *(_table(table, _label(table.caption, labels)) for table in captioned)]) + "\n"


def _table(table: Table, label: str) -> str:
    columns = "".join(_column(table, place) for place in range(len(table.headings)))
    head = f"\\toprule\n{_row(table.headings)}\n\\midrule"
    body = "\n".join(map(_row, table.rows))
    caption = f"\\caption{{{_text(table.caption)}}}\\label{{tab:{label}}}"
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
    first, *others = ("{--}" if cell == NULL else _text(cell) for cell in cells)
    # After the end of a row, a bracket would be taken for a length, and a star for a command.
    first = f"{{{first}}}" if first.startswith(("[", "*")) else first
    return f"{' & '.join([first, *others])} \\\\"


def _text(text: str) -> str:
    """One line of text with everything escaped but `code`, which is set as such."""
    pieces = [_HYPHENS.sub("-{}", piece.translate(_ESCAPES)) for piece in CODE.split(printable(text))]
    return "".join(f"\\texttt{{{piece}}}" if odd % 2 else piece for odd, piece in enumerate(pieces))


def _label(caption: str, taken: dict[str, int]) -> str:
    """The caption as a label of ASCII letters, digits and hyphens, numbered where another table has the same."""
    stem = slug(caption) or "table"
    taken[stem] = taken.get(stem, 0) + 1
    return stem if taken[stem] == 1 else f"{stem}-{taken[stem]}"
