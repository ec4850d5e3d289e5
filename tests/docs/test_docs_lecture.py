"""The lecture is what the committed runs and the committed probe say today."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_lecture_is_what_its_runs_say(monkeypatch) -> None:
    spec = importlib.util.spec_from_file_location("lecture_page", ROOT / "docs" / "lecture_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(ROOT)
    assert len(module.TEN) == 10
    page = (ROOT / "docs" / "lecture.md").read_text()
    assert page == module.page(), "run: python docs/lecture_page.py > docs/lecture.md"
