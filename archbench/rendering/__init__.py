"""Results as something to read: content is made once, free of any format (`content`), and rendered.

`report` makes and writes a run's report; a further format is a function from `Report` to text, and a line in its
`FORMATS`. Its names load on first use: a table on the terminal needs neither pandas nor plots.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archbench.rendering.report import *  # noqa: F403


def __getattr__(name: str) -> Any:
    report = import_module("archbench.rendering.report")
    if name in report.__all__:
        return getattr(report, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
