"""Networks that neither torchvision nor timm carries, or carries differently, written from their papers.

In every file but `layers`, a public function that needs no argument builds a network. It is named as the catalogue's
key and takes `num_classes`, `in_channels` and `head` as far as the network has them, then its own options; its
docstring says what it was written from and where it departs from that.

They are found here without importing any: to import all would cost a worker's child two seconds, since one needs timm.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path


@functools.cache
def file_of(function: str) -> Path:
    """The file that defines `function`. Raises `LookupError` where none does."""
    for file in sorted(Path(__file__).parent.glob("*.py")):
        if f"\ndef {function}(" in file.read_text(encoding="utf-8"):
            return file
    raise LookupError(f"no file of archbench.catalog.networks defines {function}")


def docstring_of(function: str) -> str | None:
    """What a network was written from, its shapes, and where it departs from its paper."""
    body = ast.parse(file_of(function).read_text(encoding="utf-8")).body
    return next(ast.get_docstring(one) for one in body if isinstance(one, ast.FunctionDef) and one.name == function)
