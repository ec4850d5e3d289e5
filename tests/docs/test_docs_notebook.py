"""The notebook of the docs runs, and what it shows is what its cells show."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import notebook_page
import pytest

import archbench

CELLS = json.loads(notebook_page.NOTEBOOK.read_text())["cells"]


def shown(cell):
    """What a cell shows, as text by kind of output."""
    found: dict[str, str] = {}
    for output in cell.get("outputs", []):
        parts = output["data"] if "data" in output else {"stdout": output["text"]}
        found |= {kind: "".join(lines) for kind, lines in parts.items()}
    return found


def test_every_cell_is_python_of_the_public_functions_and_shows_something():
    code = [cell for cell in CELLS if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        assert shown(cell), "run: python docs/notebook_page.py"
        for node in ast.walk(ast.parse("".join(cell["source"]))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "archbench":
                assert node.attr in archbench.__all__


def test_what_is_read_without_measuring_is_current(tmp_path, monkeypatch):
    """The cells up to the first that measures, and its reference run, as they show now."""
    place = tmp_path / "results"
    place.symlink_to(notebook_page.NOTEBOOK.parents[1] / "results")
    monkeypatch.chdir(tmp_path)
    first = next(n for n, cell in enumerate(CELLS) if "archbench.run(" in "".join(cell["source"]) and n > 1)
    quick = CELLS[: min(first, 5)]
    for now, stored in zip(notebook_page.executed({"cells": quick})["cells"], quick, strict=True):
        assert {kind: text for kind, text in shown(now).items() if kind != "text/html"} == {
            kind: text for kind, text in shown(stored).items() if kind != "text/html"
        }, "run: python docs/notebook_page.py"


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path):
    done = notebook_page.run_in(tmp_path)["cells"]
    assert [set(shown(cell)) for cell in done] == [set(shown(cell)) for cell in CELLS]
    printed = [(shown(now).get("stdout"), shown(then).get("stdout")) for now, then in zip(done, CELLS, strict=True)]
    assert all(now == then for now, then in printed)
    (counted,) = [shown(cell)["text/plain"] for cell in done if "own.frame" in "".join(cell["source"])]
    assert "TwoLayers#" in counted
    assert str(3 * 8 * 9 + 8 + 8 * 8 * 9 + 8 + 8 * 10 + 10) in counted  # its parameters, by hand
