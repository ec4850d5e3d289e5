"""No process is left behind: however a run is ended, its host, its child and the locks go with it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from worker_fakes import is_running, make_task, make_worker, rows_of, wait_until

from archbench.model.messages import CellFinished, CellStarted, Task
from archbench.worker import group_tracker, run_tasks, sweep

PARENT = str(Path(__file__).with_name("measuring_parent.py"))


class Pids(NamedTuple):
    host: int
    child: int


def command(folder: Path, grace_s: float = 60.0, deadline_s: float = 600.0, last: str = "hang") -> list[str]:
    """A parent that measures two cells, of which the first ends at once."""
    return [sys.executable, PARENT, str(folder), str(grace_s), str(deadline_s), f"tell-pids:{folder / 'pids'}", last]


def start(arguments: list[str], folder: Path) -> tuple[subprocess.Popen[bytes], Pids]:
    """A parent in a session of its own, in the middle of its last cell."""
    parent = subprocess.Popen(
        arguments,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=hear_signals,
    )
    wait_until(lambda: (folder / "at-last-cell").exists() or parent.poll() is not None)
    assert parent.poll() is None, parent.communicate()
    return parent, pids_at_last_cell(folder)


def hear_signals() -> None:
    """As in a terminal: under `nohup`, or behind a shell's `&`, these tests inherit signals that are ignored."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def pids_at_last_cell(folder: Path) -> Pids:
    wait_until((folder / "at-last-cell").exists)
    return Pids(**json.loads((folder / "pids").read_text()))


def assert_all_gone(pids: Pids) -> None:
    wait_until(lambda: not is_running(pids.child) and not is_running(pids.host), seconds=3.0)


def test_ctrl_c_stops_parent_host_and_child(tmp_path: Path) -> None:
    parent, pids = start(command(tmp_path), tmp_path)
    began = time.monotonic()
    os.killpg(parent.pid, signal.SIGINT)
    out, err = parent.communicate(timeout=10)
    assert time.monotonic() - began < 2.0
    assert not is_running(pids.child)
    assert not is_running(pids.host)
    assert out == b"ok interrupted\n"
    assert err == b""  # no traceback of any of the three
    assert parent.returncode == 0


def test_ctrl_c_in_a_terminal(tmp_path: Path) -> None:
    """The real thing: the terminal's own interrupt character, to its whole foreground group."""
    pid, terminal = pty.fork()
    if pid == 0:
        hear_signals()
        os.execv(sys.executable, command(tmp_path))
    pids = pids_at_last_cell(tmp_path)
    os.write(terminal, b"\x03")
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    printed = os.read(terminal, 10_000)
    os.close(terminal)
    assert b"ok interrupted" in printed
    assert b"Traceback" not in printed
    assert_all_gone(pids)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_killed_parent_takes_host_and_child_with_it(tmp_path: Path, number: signal.Signals) -> None:
    parent, pids = start(command(tmp_path), tmp_path)
    parent.send_signal(number)
    _, err = parent.communicate(timeout=10)
    assert_all_gone(pids)
    assert err == b""


def test_child_dies_when_host_and_parent_are_killed_at_once(tmp_path: Path) -> None:
    parent, pids = start(command(tmp_path), tmp_path)
    os.kill(parent.pid, signal.SIGSTOP)  # it shall not be the parent who clears up
    os.kill(pids.host, signal.SIGKILL)
    wait_until(lambda: not is_running(pids.child), seconds=3.0)
    parent.kill()
    parent.communicate(timeout=10)


def test_suspended_parent_loses_nothing(tmp_path: Path) -> None:
    """Ctrl-Z, and `fg` after the deadline: the child has measured on, and what it said waits in the pipe."""
    parent, pids = start(command(tmp_path, grace_s=0.0, deadline_s=1.0, last="sleep:0.3"), tmp_path)
    parent.send_signal(signal.SIGSTOP)
    time.sleep(1.5)
    parent.send_signal(signal.SIGCONT)
    out, err = parent.communicate(timeout=10)
    assert (out, err) == (b"ok ok\n", b"")
    assert_all_gone(pids)


def test_hung_host_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "HOST_GRACE_S", 0.1)
    with make_worker() as worker:
        os.kill(worker.start().pid, signal.SIGSTOP)
        monkeypatch.setattr(group_tracker, "SILENCE_S", 0.1)
        rows = rows_of(list(run_tasks(worker, [make_task("ok", "ok")])))
    assert [row.status for row in rows] == ["timeout", "ok"]
    assert rows[0].error_phase == "start"
    assert "no word from the worker" in (rows[0].error_message or "")


def test_closing_the_iterator_ends_the_child(tmp_path: Path) -> None:
    told = tmp_path / "pids"
    with make_worker() as worker:
        events = run_tasks(worker, [make_task(f"tell-pids:{told}", "hang")])
        next(e for e in events if isinstance(e, CellStarted) and "batch_size=2" in e.cell_id)
        events.close()
        child = json.loads(told.read_text())["child"]
        wait_until(lambda: not is_running(child), seconds=3.0)
        # The worker itself is fit for more.
        assert [row.status for row in rows_of(list(run_tasks(worker, [make_task("ok")])))] == ["ok"]


def test_what_is_not_finished_when_the_time_is_up_gets_no_row_and_nothing_follows_it(tmp_path: Path) -> None:
    told, asked = tmp_path / "pids", []

    def tasks() -> Iterator[Task]:
        for task in (make_task(f"tell-pids:{told}", "hang"), make_task("ok", name="next")):
            asked.append(task.group.cells[0].network.name)
            yield task

    with make_worker() as worker:
        worker.start()
        begun = time.monotonic()
        rows = rows_of(list(run_tasks(worker, tasks(), until=begun + 3.0)))
        assert 3.0 <= time.monotonic() - begun < 5.0
        assert [(row.batch_size, row.status) for row in rows] == [(1, "ok")]
        assert asked == ["fake"]
        child = json.loads(told.read_text())["child"]
        wait_until(lambda: not is_running(child), seconds=3.0)  # killed, and on a busy machine dead a moment later


def test_a_worker_that_always_has_something_to_say_ends_in_time_too() -> None:
    with make_worker() as worker:
        worker.start()
        begun = time.monotonic()
        rows = rows_of(list(run_tasks(worker, [make_task(*["sleep:0.3"] * 20)], until=begun + 1.5)))
        assert 1.5 <= time.monotonic() - begun < 4.0, "all of them take 6 s"
        assert 1 <= len(rows) <= 5
        assert {row.status for row in rows} == {"ok"}


def test_leaving_the_context_ends_the_host_at_once() -> None:
    with make_worker() as worker:
        ready = worker.start()
        assert worker.start() is ready
        assert is_running(ready.pid)
        began = time.monotonic()
    assert time.monotonic() - began < 1.0
    assert not is_running(ready.pid)


def test_one_host_serves_all_groups_and_runs() -> None:
    with make_worker() as worker:
        ready = worker.start()
        for name in ("a", "b"):
            finished = [e for e in run_tasks(worker, [make_task("ok", name=name)]) if isinstance(e, CellFinished)]
            assert len(finished) == 1
        assert worker.start() is ready
