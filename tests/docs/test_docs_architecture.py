"""The page on how archbench is built names every room that there is, and none that is not."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def test_every_room_stands_in_the_table() -> None:
    rooms = {folder.parent.name for folder in (ROOT / "archbench").glob("*/__init__.py")}
    table = PAGE.partition("| room |")[2].partition("Beside the rooms")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == rooms


def test_every_file_beside_the_rooms_is_named() -> None:
    files = {path.stem for path in (ROOT / "archbench").glob("*.py")} - {"__init__", "__main__"}
    beside = PAGE.partition("Beside the rooms")[2].partition("\n\n")[0]
    assert {word for word in re.findall(r"`(\w+)`", beside) if word != "show"} == files


def test_every_file_that_it_names_exists() -> None:
    named = re.findall(r"`(\w+/\w+\.py)`", PAGE)
    assert named
    for path in named:
        assert (ROOT / "archbench" / path).is_file(), path
