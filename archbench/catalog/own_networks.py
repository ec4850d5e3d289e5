"""Finds and builds the networks of `archbench.catalog.networks`.

They are found without importing any of them: to import all would cost a worker's child two seconds, since one file
needs timm.
"""

from __future__ import annotations

import ast
import functools
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from archbench.catalog.tables import Entry
from archbench.model.cell import Network
from archbench.model.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

_FIELDS = ("num_classes", "in_channels", "head")


def make(entry: Entry, network: Network) -> nn.Module:
    """Return the own network `entry` with the departures of `network`."""
    from archbench.catalog.build import construct, keywords

    home = importlib.import_module(f"archbench.catalog.networks.{_file_of(entry.constructor).stem}")
    builder = getattr(home, entry.constructor)
    takes = keywords(builder)
    chosen: dict[str, object] = {}
    for field in _FIELDS:
        value = getattr(network, field)
        if value is None or value == "classifier":
            continue
        if field not in takes:
            raise UsageError(f"{network.label}: {network.name} has no {field} to choose")
        chosen[field] = value
    return construct(builder, entry, network, _FIELDS, chosen)


def docstring_of(function: str) -> str | None:
    """What a network was written from, its shapes, and where it departs from its paper."""
    body = ast.parse(_file_of(function).read_text(encoding="utf-8")).body
    return next(ast.get_docstring(d) for d in body if isinstance(d, ast.FunctionDef) and d.name == function)


@functools.cache
def _file_of(function: str) -> Path:
    """The file that defines `function`. Raises `LookupError` where none does."""
    for file in sorted((Path(__file__).parent / "networks").glob("*.py")):
        if f"\ndef {function}(" in file.read_text(encoding="utf-8"):
            return file
    raise LookupError(f"no file of archbench.catalog.networks defines {function}")
