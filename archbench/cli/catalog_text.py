"""What `list` and `show` have in common: plain tables and figures that a person can read.

Rich would lay the tables out as well, but takes 0.2 s of the 0.8 s within which these commands answer.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection, Iterator, Sequence

from archbench.model.units import MIB, Unit

_GAP = "  "


def table(headings: Sequence[str], numeric: Collection[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table without borders; columns in `numeric` stand right.

    On a terminal a line ends at its right edge, in a pipe or a file nothing is cut.
    """
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for row in (headings, *rows):
        fields = (
            text.rjust(width) if heading in numeric else text.ljust(width)
            for text, width, heading in zip(row, widths, headings, strict=True)
        )
        line = _GAP.join(fields).rstrip()
        yield line if room is None or len(line) <= room else line[: room - 1] + "…"


def scaled(value: float | None, unit: Unit) -> str:
    """`value` in `unit`s with about three digits: 25.6, 7.98, 0.270, 6.5e-05; empty for None."""
    if value is None:
        return ""
    number = value / unit.size
    for least, digits in ((100, 0), (10, 1), (1, 2), (0.1, 3)):
        if number >= least:
            return f"{number:,.{digits}f}"
    return f"{number:.2g}"


def mib(size: int | None) -> str:
    """Bytes as `30.8 MiB`."""
    return "unknown" if size is None else f"{scaled(size, MIB)} {MIB.symbol}"


def shape(sides: Sequence[int] | None) -> str:
    """`3x224x224`; empty for None."""
    return "x".join(map(str, sides or ()))
