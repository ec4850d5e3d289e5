"""The page on reports shows the reference run's tables as they are rendered today."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from archbench.cli import main

ROOT = Path(__file__).parents[2]


def test_the_excerpts_are_the_reports_own() -> None:
    spec = importlib.util.spec_from_file_location("report_page", ROOT / "docs" / "report_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "report.md").read_text() == module.page(), (
        "run: python docs/report_page.py > docs/report.md"
    )


def test_its_command_renders_the_reference_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (command,) = re.findall(r"^archbench report .*$", (ROOT / "docs" / "report.md").read_text(), re.MULTILINE)
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as caught:
        main([*shlex.split(command)[1:], "--out", str(tmp_path / "report.md")])
    assert not caught.value.code
    assert (tmp_path / "report.md").read_text().startswith("# imagenet_backbones on ")
