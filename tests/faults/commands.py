"""Runs archbench as a user does, in processes of its own, and tells what is left of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from archbench.results import RunStore

FINE = (0, 1, 2, 3, 130)
"""The exit codes that there are."""
QUICK = {"max_sampling_s": 0.1, "min_sampling_s": 0.02, "warmup_first_cell_s": 0.02, "warmup_later_cell_s": 0.02,
         "warmup_cap_s": 0.3, "max_throughput_s": 0.1, "min_throughput_s": 0.02, "stall_wait_s": 0.0}  # fmt: skip
"""Constants of a protocol that measures badly and fast."""
_MARK = "ARCHBENCH_FAULTS"


def start(*words: object, cwd: Path, mark: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """A command in a session of its own; all that comes of it carries `mark` in its environment."""
    python = [sys.executable, "-P", "-m", "archbench"]
    return subprocess.Popen(
        [*python, *map(str, words)],
        cwd=cwd,
        # A place of its own for the device's lock: what runs beside this test need not be waited for.
        env={**os.environ, "TMPDIR": str(cwd), "PYTHONPATH": str(Path(__file__).parent), _MARK: mark, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="surrogateescape",
        start_new_session=True,
    )


def run(
    *words: object, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    """A command to its end, which is checked: an exit code that there is, no traceback, nothing a terminal obeys."""
    mark = f"{cwd}-{time.monotonic_ns()}"
    process = start(*words, cwd=cwd, mark=mark, env=env)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    check(done)
    assert not orphans(mark), (words, orphans(mark))
    return done


def check(done: subprocess.CompletedProcess[str]) -> None:
    said = done.stdout + done.stderr
    assert done.returncode in FINE, (done.returncode, said[-2000:])
    assert "Traceback" not in said, said[-4000:]
    assert not any((ord(char) < 32 and char not in "\n\t") or "\x7f" <= char <= "\x9f" for char in said)
    assert not any(line.startswith("::error") for line in said.splitlines())


def descendants(mark: str) -> list[psutil.Process]:
    """All living processes that carry the mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(_MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def orphans(mark: str, patience_s: float = 15.0) -> list[str]:
    """Those that are still there after a while, as text; they are ended."""
    end = time.monotonic() + patience_s
    while (left := descendants(mark)) and time.monotonic() < end:
        time.sleep(0.05)
    told = []
    for process in left:
        told.append(str(process))
        process.kill()
    return told


def begun(path: Path) -> dict[tuple[str, int, int], str | None]:
    """When each cell, round and visit that is stored was measured."""
    rows = RunStore.open(path).records() if RunStore.is_run(path) else []
    return {(row.cell_id, row.round, row.visit): row.started_at for row in rows}


def rows_of(path: Path) -> dict[tuple[str, int, int], str]:
    """What became of each cell, round and visit that is stored: `ok` and when, `invalid` of what may be done again."""
    if not RunStore.is_run(path):
        return {}
    rows = RunStore.open(path).judged_records()
    return {
        (row.cell_id, row.round, row.visit): "invalid" if row.verdict == "invalid" else f"{row.status} {row.started_at}"
        for row in rows
    }
