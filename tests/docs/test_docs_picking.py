"""The page on picking is what its commands print today."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_answers_on_the_page_are_what_the_commands_print() -> None:
    spec = importlib.util.spec_from_file_location("picking_page", ROOT / "docs" / "picking_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert len(module.QUESTIONS) >= 5
    page = (ROOT / "docs" / "picking.md").read_text()
    assert page == module.page(), "run: python docs/picking_page.py > docs/picking.md"
