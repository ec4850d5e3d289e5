"""Where in `archbench.catalog.networks` a network is written, found without importing any of it.

Importing all of it would cost a worker's child two seconds, since one of the files needs timm.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path

PACKAGE = "archbench.catalog.networks"
_FOLDER = Path(__file__).parent / "networks"


@functools.cache
def file_of(function: str) -> Path:
    """The file that defines `function`. Raises `LookupError` where none does."""
    for file in sorted(_FOLDER.glob("*.py")):
        if f"\ndef {function}(" in file.read_text(encoding="utf-8"):
            return file
    raise LookupError(f"no file of {PACKAGE} defines {function}")


def docstring_of(function: str) -> str | None:
    """What the network was written from, its shapes, and where it departs from its paper."""
    body = ast.parse(file_of(function).read_text(encoding="utf-8")).body
    return next(ast.get_docstring(d) for d in body if isinstance(d, ast.FunctionDef) and d.name == function)
