"""What a run says while it measures: a bar that cuts no count in a terminal, plain lines in a log."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from builders import make_record

from archbench.model.messages import CellFinished, CellStarted, StepGlimpsed
from archbench.model.record import Record
from archbench.progress import RunProgress
from archbench.suite.duration import Prediction

CELLS = 379
ROWS = [make_record(round=number, duration_s=2.0) for number in range(CELLS)]


def expected(seconds: float = 2.0) -> Prediction:
    visits = {(row.cell_id, row.round, row.visit): seconds for row in ROWS}
    phases = {"start": 0.0, "latency": seconds * len(visits), "report": 5.0}
    return Prediction(phases=phases, visits=visits, after=visits, basis="constants for 2 cores")


def measure(
    rows: Sequence[Record],
    total: int,
    *,
    shown: bool | None = None,
    passed_over: Sequence[Path] = (),
    elapse: Callable[[float], None] = lambda seconds: None,
) -> None:
    left = len(rows)
    with RunProgress(
        Path("results/x/y"), expected(), total=total, left=left, shown=shown, passed_over=passed_over
    ) as progress:
        for row in rows:
            progress.show(CellStarted(cell_id=row.cell_id, deadline_s=60.0))
            elapse(row.duration_s or 0.0)
            progress.show(CellFinished(record=row, samples=()))
    progress.ended(1.0)


def test_the_first_glimpse_of_all_has_a_line_and_later_ones_have_none(capsys: pytest.CaptureFixture[str]) -> None:
    with RunProgress(Path("r"), expected(), total=CELLS, left=CELLS) as progress:
        for row in ROWS[:2]:
            progress.show(CellStarted(cell_id=row.cell_id, deadline_s=60.0))
            progress.show(StepGlimpsed(cell_id=row.cell_id, step_s=0.0314159))
            progress.show(CellFinished(record=row, samples=()))
    glimpses = [line for line in capsys.readouterr().err.splitlines() if "about 31.4 ms" in line]
    assert len(glimpses) == 1
    assert glimpses[0].endswith(": about 31.4 ms, being measured")


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_log_has_a_plain_line_for_every_cell_with_its_number_its_figure_and_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    passed = [0.0]
    monkeypatch.setattr("archbench.progress.time", SimpleNamespace(monotonic=lambda: sum(passed)))
    measure(ROWS, CELLS, elapse=passed.append)
    said = capsys.readouterr().err
    assert not re.search(r"[\x00-\x09\x0b-\x1f━╸]", said)  # no control character, no piece of a bar
    lines = said.splitlines()
    assert lines[0] == "archbench: 379 measurements, about 13 min, by constants for 2 cores"
    assert lines[1].startswith("[1/379] resnet50@batch_size=1: 23.2 ms · 43.5 img/s · ETA 12 min 4")  # 378 x 2 s + 5 s
    assert lines[-2] == "[379/379] resnet50@batch_size=1: 23.2 ms · 43.5 img/s"
    assert lines[-1] == "archbench: 379 measurements took 1 s; predicted 12 min 43 s by constants for 2 cores"
    assert len(lines) == 379 + 2


def test_what_was_done_before_is_counted_and_what_was_passed_over_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    failed = make_record(status="oom", error_phase="latency", error_message="too large")
    measure([failed], 3, passed_over=[Path("results/x/old")])
    assert capsys.readouterr().err.splitlines()[:4] == [
        "archbench: resuming results/x/y: 2 of 3 measurements are done",
        "archbench: 1 measurement, about 13 min, by constants for 2 cores",
        "archbench: older runs alike, left as they are: results/x/old",
        "[3/3] resnet50@batch_size=1: oom in latency: too large",
    ]
    measure([failed], 3, shown=False)
    assert capsys.readouterr().err == ""


BAR = """
import sys
sys.path[:0] = {path!r}
import test_cli_progress as here
from pathlib import Path
from archbench.model.messages import CellStarted, PhaseStarted
from archbench.progress import RunProgress
cell = "inception_resnet_v2@batch_size=128,phase=training,precision=amp-bf16,memory_format=channels_last"
with RunProgress(Path("r"), here.expected(120.0), total=12_345, left=379) as progress:
    progress.show(CellStarted(cell_id=cell, deadline_s=60.0))
    progress.show(PhaseStarted(cell_id=cell, phase="throughput"))
    progress._bar.refresh()
"""


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_bar_gives_up_its_label_and_no_figure(width: int) -> None:
    """In a terminal that is one: the far end of a pseudo-terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-c", BAR.format(path=[str(Path(__file__).parent), str(Path(__file__).parents[1])])],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env={**environment, "TERM": "xterm"},
    )
    os.close(theirs)
    said = b""
    try:
        while piece := os.read(ours, 1 << 16):
            said += piece
    except OSError:  # the far end is closed
        pass
    os.close(ours)
    assert process.wait(60) == 0
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode()).replace("\r", "\n").splitlines()
    bars = [line for line in lines if "ETA" in line]
    assert bars
    for line in bars:
        assert len(line) <= width
        assert "11966/12345" in line
        assert re.search(r"\d:\d\d:\d\d ETA 12:38:\d\d", line)  # 379 x 120 s, and the report's 5 s
    assert any(line.startswith("inception_res") for line in bars)
