"""Runs docs/notebook.ipynb and stores in it what its cells show: text, and the HTML of what has any.

python docs/notebook_page.py     # it measures three small networks

A notebook needs a kernel to be worked in, but not to be run once: cells are Python, and the value of a cell's last
expression is what it shows.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

NOTEBOOK = Path(__file__).with_name("notebook.ipynb")


def executed(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs that its code cells have here and now. Raises whatever a cell raises."""
    main = ModuleType("__main__")  # so that what cells define travels as it would from a kernel
    usual, sys.modules["__main__"] = sys.modules["__main__"], main
    try:
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        shown = {id(cell): outputs("".join(cell["source"]), main, number) for number, cell in enumerate(code, 1)}
    finally:
        sys.modules["__main__"] = usual
    numbers = {id(cell): number for number, cell in enumerate(code, 1)}
    cells = [
        {**cell, "outputs": shown[id(cell)], "execution_count": numbers[id(cell)]} if id(cell) in shown else cell
        for cell in notebook["cells"]
    ]
    return {**notebook, "cells": cells}


def outputs(source: str, main: ModuleType, number: int) -> list[dict[str, Any]]:
    """What one cell prints, and the value of its last expression."""
    body = ast.parse(source).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), f"cell {number}", "exec"), main.__dict__)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), main.__dict__)
    found: list[dict[str, Any]] = []
    if text := printed.getvalue():
        found.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)})
    if value is not None:
        data = {"text/plain": repr(value).splitlines(keepends=True)}
        if hasattr(value, "_repr_html_"):
            data["text/html"] = value._repr_html_().splitlines(keepends=True)
        found.append({"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": data})
    return found


def run_in(place: Path) -> dict[str, Any]:
    """Run it in a directory of its own, from where the reference runs are seen as from the repository's root."""
    (place / "results").symlink_to(NOTEBOOK.parents[1] / "results")
    with contextlib.chdir(place):
        return executed(json.loads(NOTEBOOK.read_text()))


def main() -> None:
    """Run it and write it back."""
    with tempfile.TemporaryDirectory() as place:
        done = run_in(Path(place))
    NOTEBOOK.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
