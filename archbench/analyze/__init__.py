"""What can be said of a network without timing it: counts, a second opinion on them, predicted memory.

Names load on first use: the second opinion alone needs fvcore.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archbench.analyze.allocator import measured_peak as measured_peak
    from archbench.analyze.counts import count as count
    from archbench.analyze.counts import count_module as count_module
    from archbench.analyze.fvcore_counts import second_opinion as second_opinion
    from archbench.analyze.memory import predict as predict
    from archbench.analyze.memory import predict_cell as predict_cell

_HOMES = {
    "count": "counts",
    "count_module": "counts",
    "measured_peak": "allocator",
    "predict": "memory",
    "predict_cell": "memory",
    "second_opinion": "fvcore_counts",
}

__all__ = [
    "count",
    "count_module",
    "measured_peak",
    "predict",
    "predict_cell",
    "second_opinion",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
