"""`archbench report` as a user calls it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from builders import make_record, make_run

from archbench.cli import main


def report(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["report", *map(str, arguments)])
    return int(caught.value.code or 0)


def test_writes_beside_the_results_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path, [make_record()])
    assert report(run) == 0
    assert capsys.readouterr().out == f"{run / 'report.md'}\n"
    assert (run / "report.md").read_text().startswith("# example on AMD EPYC")


def test_writes_where_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path, [make_record()], merge=False)
    assert report(run, "--out", tmp_path / "here.md") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'here.md'}\n"
    images = re.compile(r"!\[([^]]*)\]\((here_plots/[a-z-]+\.svg)\)")
    written = (tmp_path / "here.md").read_text()
    assert images.search(written)
    assert all((tmp_path / place).read_text().startswith("<svg") for _, place in images.findall(written))
    assert report(run, "--out", "-") == 0
    printed = capsys.readouterr().out  # where no file can lie beside it, plots are described
    assert re.sub(r"\*[^*]+\.\* (Each point is|A line for|A bar for|The peak)", r"\1", printed) == images.sub(
        r"\1", written
    )
    assert not (run / "report.md").exists()


def test_mistakes_are_one_line_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path, [make_record()])
    for arguments, message in (
        ((tmp_path / "none",), "no such file or directory"),
        ((tmp_path,), "is not a run"),
        ((run, "--format", "m"), "--format m: no such format, known: md"),
    ):
        assert report(*arguments) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1


def test_a_damaged_cell_is_named_on_stderr_without_a_traceback(tmp_path: Path) -> None:
    run = make_run(tmp_path, [make_record(), make_record(round=1)], merge=False)
    victim = next(run.glob("cells/*-r1-*"))
    victim.write_bytes(b"PAR1")
    done = subprocess.run(
        [sys.executable, "-m", "archbench", "report", str(run)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert done.stdout == f"{run / 'report.md'}\n"
    assert victim.name in done.stderr
    assert "Traceback" not in done.stderr
    assert all("damaged (cut off?)" in line for line in done.stderr.splitlines())
