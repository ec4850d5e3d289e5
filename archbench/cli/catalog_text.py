"""What `list` and `show` have in common: a console, a plain table, and figures that a person can read."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

MILLION = 1e6
BILLION = 1e9

# A pipe has no width; wide enough that nothing is wrapped or cut.
_PIPE_WIDTH = 240


def console() -> Console:
    """stdout; rich leaves the colours out for NO_COLOR and where nobody is looking."""
    found = Console(highlight=False, markup=False)
    return found if found.is_terminal else Console(highlight=False, markup=False, width=_PIPE_WIDTH)


def table(headings: Sequence[str], numeric: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Borderless; the columns in `numeric` stand right."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        made.add_column(heading, justify="right" if heading in numeric else "left", no_wrap=True)
    for row in rows:
        made.add_row(*row)
    return made


def scaled(value: float | None, unit: float) -> str:
    """`value` in `unit`s with about three digits: 25.6, 7.98, 0.270, 6.5e-05; empty for None."""
    if value is None:
        return ""
    number = value / unit
    for least, digits in ((100, 0), (10, 1), (1, 2), (0.1, 3)):
        if number >= least:
            return f"{number:,.{digits}f}"
    return f"{number:.2g}"


def shape(sides: Sequence[int] | None) -> str:
    """`3x224x224`; empty for None."""
    return "x".join(map(str, sides or ()))
