"""The commands of docs/profiling.md are understood to the last option, and name cells that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from builders import make_environment
from typer.main import get_command

from archbench.cli import app
from archbench.model.suite import AXES
from archbench.profiling import _cell, _other

PAGE = Path(__file__).parents[2] / "docs" / "profiling.md"
LINES = re.findall(r"^archbench profile .*$", PAGE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("line", LINES)
def test_a_profile_of_the_docs_is_of_cells_that_exist(line: str) -> None:
    command = get_command(app).commands["profile"]  # type: ignore[attr-defined]
    given = command.make_context("profile", shlex.split(line)[2:]).params
    axes = {
        axis: given[axis] for axis in AXES if axis not in ("runtime", "quantize")
    }  # a profile is of PyTorch's own operators
    cell = _cell(given["name"], axes, make_environment(), given["allow_code"])[0]
    assert cell.batch_size == int(given["batch_size"])
    if given["against"]:
        name, other = _other(given["name"], axes, given["against"])
        assert _cell(name, other, make_environment(), given["allow_code"])[0] != cell
