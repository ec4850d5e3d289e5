"""The commands of docs/profiling.md are understood to the last option, and name cells that exist."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
from typer.main import get_command

from archbench.cli import app
from archbench.options import ProfileOptions
from archbench.profiling import _cells

PAGE = Path(__file__).parents[2] / "docs" / "profiling.md"
LINES = re.findall(r"^archbench profile .*$", PAGE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("line", LINES)
def test_a_profile_of_the_docs_is_of_cells_that_exist(line: str) -> None:
    command = get_command(app).commands["profile"]  # type: ignore[attr-defined]
    given = command.make_context("profile", shlex.split(line)[2:]).params
    asked = {one.name: given[one.name] for one in fields(ProfileOptions) if given.get(one.name) is not None}
    cell, *others = _cells(given["name"], ProfileOptions(**asked), "cpu")[0]
    assert cell.batch_size == int(given["batch_size"])
    assert [other != cell for other in others] == [True] * bool(given["against"])
