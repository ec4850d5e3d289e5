"""The project's chores: `nox -s check`, `test`, `docs`, `regenerate`. Each runs in the environment that you are in.

No session makes an environment of its own: one with torch takes 5 GB and minutes, and `.ci/run` makes a fresh one.
"""

from __future__ import annotations

import sys

import nox

PYTHON = sys.executable
"""The environment that nox was called from, activated or not."""

nox.options.default_venv_backend = "none"
nox.options.sessions = ["check", "test"]


@nox.session
def check(session: nox.Session) -> None:
    """Lint, format and types, as continuous integration asks for them."""
    session.run(PYTHON, "-m", "ruff", "check", ".")
    session.run(PYTHON, "-m", "ruff", "format", "--check", ".")
    session.run(PYTHON, "-m", "mypy")


@nox.session
def test(session: nox.Session) -> None:
    """The unit suite; what follows `--` goes to pytest: `nox -s test -- -m slow tests/networks`."""
    session.run(PYTHON, "-m", "pytest", *(session.posargs or ["-n", "2"]))


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation site into build/site, strict: a broken link or an unknown name fails."""
    session.run(PYTHON, "-m", "sphinx", "-b", "html", "-n", "-W", "--keep-going", "-q", "docs", "build/site")


@nox.session
def regenerate(session: nox.Session) -> None:
    """Every page and table that is made from code, catalogue or reference runs; tests fail where one is stale.

    `nox -s regenerate -- catalog` also builds and counts every network anew, which takes some minutes.
    """
    if "catalog" in session.posargs:
        session.run(PYTHON, "docs/catalog_tables.py")
    pages = {
        "docs/columns.md": ("docs/columns_page.py",),
        "docs/coverage.md": ("docs/coverage_table.py",),
        "docs/runtime_coverage.md": ("docs/runtime_coverage.py",),
        "docs/lecture.md": ("docs/lecture_page.py",),
        "docs/picking.md": ("docs/picking_page.py",),
        "docs/protocol.md": ("docs/protocol_page.py",),
        "docs/report.md": ("docs/report_page.py",),
    }
    for page, words in pages.items():
        text = session.run(PYTHON, *words, silent=True, stderr=None)
        with open(page, "w", encoding="utf-8") as file:
            file.write(str(text))
    session.run(PYTHON, "docs/readme_figures.py")
