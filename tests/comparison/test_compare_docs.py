"""The commands of docs/comparing.md, run on runs that lie where the page has them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import msgspec
import pytest
from builders import make_run, make_suite
from compare_sides import cell, measured, times, twin

from archbench.cli import main
from archbench.comparison import MUST_MATCH, NEVER
from archbench.model.comparison import CELL_VERDICTS
from archbench.rendering.comparison_formats import FORMATS

PAGE = Path(__file__).parents[2] / "docs" / "comparing.md"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for seed, day in enumerate(("monday", "tuesday")):
        rows = [*twin(0.01, cell("resnet18")), *measured(times(0.01, 5, 0.003, seed))]
        stamped = [msgspec.structs.replace(row, run_id=day) for row in rows]
        made = make_run(tmp_path / "new", stamped, suite=make_suite(suite="nightly"))
        place = tmp_path / "results" / "nightly" / day
        place.parent.mkdir(parents=True, exist_ok=True)
        made.rename(place)
    (tmp_path / "monday.parquet").write_bytes((tmp_path / "results/nightly/monday/results.parquet").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_of_the_page_works(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
    assert len(lines) >= 6
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "archbench"
        with pytest.raises(SystemExit) as caught:
            main(words[1:])
        out, err = capsys.readouterr()
        assert caught.value.code in (0, None), f"{line}: {err}"
        for place in out.splitlines() if "--out" in words else ():
            assert (runs / place).stat().st_size


def test_the_page_names_every_format_lock_and_verdict() -> None:
    text = PAGE.read_text()
    for word in (*FORMATS, *MUST_MATCH, *NEVER, *CELL_VERDICTS):
        assert f"`{word}`" in text, word
