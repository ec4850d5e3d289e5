from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_coverage_table_is_current_and_complete():
    spec = importlib.util.spec_from_file_location("coverage_table", ROOT / "docs" / "coverage_table.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs" / "coverage.md").read_text()
    assert page == module.table(), "run: python docs/coverage_table.py > docs/coverage.md"
    assert "| no |" not in page, "an architecture is neither built nor counted"
    rows = [line for line in page.splitlines() if line.startswith("| ") and "---" not in line][1:]
    assert all(not line.endswith("|  |") for line in rows), "an architecture is in no suite"


def test_the_page_on_what_runtimes_take_is_current():
    spec = importlib.util.spec_from_file_location("runtime_coverage", ROOT / "docs" / "runtime_coverage.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "runtime_coverage.md").read_text() == module.page(), "run: nox -s regenerate"
    assert {row["network"] for row in module.rows()} <= set(module.smallest_of_each_family())
    assert all(bool(row["error"]) != bool(row["reason"]) for row in module.rows())


def test_the_page_on_constants_is_current():
    spec = importlib.util.spec_from_file_location("protocol_page", ROOT / "docs" / "protocol_page.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs" / "protocol.md").read_text()
    assert page == module.protocol_markdown(), "run: nox -s regenerate"
    assert "| `max_sampling_s` | 1 | 5 | seconds | And here, " in page
