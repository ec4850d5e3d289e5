"""The README's figures are those of the reference run that it links."""

from __future__ import annotations

import doctest
import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_readme_shows_the_newest_reference_run():
    spec = importlib.util.spec_from_file_location("readme_figures", ROOT / "docs" / "readme_figures.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (shown,) = module.BLOCK.findall((ROOT / "README.md").read_text())
    assert shown == module.block(), "run: python docs/readme_figures.py"


def test_what_the_readme_shows_from_python_is_what_it_gives(monkeypatch):
    monkeypatch.chdir(ROOT)
    (block,) = re.findall(r"^```pycon\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    shown = doctest.DocTestParser().get_doctest(block, {}, "README.md", "README.md", 0)
    assert len(shown.examples) >= 5
    said: list[str] = []
    assert doctest.DocTestRunner().run(shown, out=said.append).failed == 0, "".join(said)
