"""Processes that die in every way: each cell still gets one row, which says what happened, and the rest goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worker_fakes import FACTS, is_running, make_task, make_worker, measure, rows_of, wait_until

from archbench.model.errors import UnfitError
from archbench.model.messages import CellFinished, CellStarted, Event, PhaseStarted
from archbench.worker import run_tasks, sweep

DEATHS = [
    ("raise", "crashed", "RuntimeError: the sky fell down"),
    ("system-exit", "crashed", "SystemExit: 0"),
    ("exit:0", "crashed", "exited with code 0: my last words"),
    ("exit:7", "crashed", "exited with code 7: my last words"),
    ("segfault", "crashed", "killed by SIGSEGV: in string_at ("),
    ("abort", "crashed", "killed by SIGABRT: in misbehave ("),
    ("signal:SIGKILL", "crashed", "killed by SIGKILL"),
    ("signal:SIGTERM", "crashed", "killed by SIGTERM"),
    ("exhaust-memory", "oom", "MemoryError"),
    ("half-line", "crashed", "killed by SIGKILL"),
]


def test_all_well_is_told_in_order_and_by_one_process_a_group() -> None:
    first, second = make_task("ok", "ok"), make_task("ok", name="other")
    with make_worker() as worker:
        events = list(run_tasks(worker, [first, second]))
    assert [type(event) for event in events] == [CellStarted, PhaseStarted, CellFinished] * 3
    rows = rows_of(events)
    assert [row.cell_id for row in rows] == [cell.cell_id for task in (first, second) for cell in task.group.cells]
    assert all(row.status == "ok" for row in rows)
    own_pid, same_group, other_group = (row.params for row in rows)
    assert own_pid == same_group != other_group


@pytest.mark.parametrize(("act", "status", "message"), DEATHS, ids=[act for act, _, _ in DEATHS])
def test_death_in_a_cell_costs_that_cell_alone(act: str, status: str, message: str) -> None:
    rows = measure(make_task("ok", act, "ok"), make_task("ok", name="next"))
    # After an OOM the larger batch is not tried; nothing else is given up.
    assert [row.status for row in rows] == ["ok", status, "skipped" if status == "oom" else "ok", "ok"]
    died = rows[1]
    assert message in (died.error_message or "")
    assert died.error_phase == "latency"
    assert died.top1 == FACTS.top1
    assert died.duration_s is not None
    assert died.started_at is not None


def test_row_too_many_breaks_the_attempt_off() -> None:
    """At the expense of the cell that was next: a worker that says such a thing cannot be trusted with it."""
    rows = measure(make_task("twice", "ok", "ok"))
    assert [row.status for row in rows] == ["ok", "crashed", "ok"]
    assert "not asked to measure" in (rows[1].error_message or "")


def test_hang_is_ended_at_its_deadline() -> None:
    rows = measure(make_task("ok", "hang", "ok", deadline_s=0.5))
    assert [row.status for row in rows] == ["ok", "timeout", "ok"]
    assert rows[1].error_phase == "latency"
    assert 0.4 < (rows[1].duration_s or 0) < 5


def test_deadline_is_named() -> None:
    (row,) = measure(make_task("hang", deadline_s=0.25))
    assert row.error_message == "killed: not finished within 0.25 s"


def test_oom_row_skips_larger_batches_and_names_the_batch() -> None:
    rows = measure(make_task("ok", "oom", "ok", "ok"), make_task("ok", name="next"))
    assert [row.status for row in rows] == ["ok", "oom", "skipped", "skipped", "ok"]
    assert rows[2].error_message == "not tried: batch size 2 of this group already ran out of memory"
    assert rows[2].started_at is None


@pytest.fixture
def small_control_group() -> Iterator[Path]:
    """A control group of 300 MB, version 2 or 1: where this user may make one, which takes root."""
    own = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    root = Path("/sys/fs/cgroup")
    two, one = root / own.get("", "/").lstrip("/"), root / "memory" / own.get("memory", "/").lstrip("/")
    limits = [(two / "memory.max"), (one / "memory.limit_in_bytes")]
    limit = next((limit for limit in limits if limit.exists()), None)
    if limit is None:
        pytest.skip("no control group with a memory limit here")
    group = limit.parent / f"archbench-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit.name).write_text("300M")
    except OSError as error:
        pytest.skip(f"cannot make a control group with a memory limit: {error}")
    yield group
    wait_until(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


def test_real_out_of_memory_killer_takes_the_child_and_is_named(small_control_group: Path, tmp_path: Path) -> None:
    parent = Path(__file__).with_name("measuring_parent.py")
    confine = f'echo $$ > "{small_control_group}/cgroup.procs"; exec "$@"'
    acts = ["ok", "fill-memory", "ok"]
    measuring = [sys.executable, str(parent), str(tmp_path), "60", "60", *acts]
    done = subprocess.run(["sh", "-c", confine, "sh", *measuring], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("ok oom skipped\n", "")


def test_error_row_is_followed_by_a_fresh_process() -> None:
    rows = measure(make_task("error", "ok"))
    assert [row.status for row in rows] == ["error", "ok"]
    assert rows[0].params != rows[1].params


def test_cells_passed_over_in_silence_get_a_row() -> None:
    rows = measure(make_task("leave", "ok"))
    assert [row.status for row in rows] == ["crashed", "ok"]
    assert rows[0].error_message == "the worker ended the group without a word about this cell"


def test_death_between_two_cells_costs_no_row() -> None:
    rows = measure(make_task("late-death"))
    assert [row.status for row in rows] == ["ok"]


def test_what_a_network_prints_or_reads_is_no_message(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    rows = measure(make_task("print", "read", "ok"), log=log)
    assert [row.status for row in rows] == ["ok"] * 3
    assert log.read_bytes().count(b"no json") == 10_000
    assert b'{"type":"ready"}' in log.read_bytes()


def test_scribbling_child_is_ended_and_its_host_lives_on() -> None:
    rows = measure(make_task("scribble", "ok"), make_task("ok", name="next"))
    assert [row.status for row in rows] == ["crashed", "ok", "ok"]
    assert "no message" in (rows[0].error_message or "")


def test_messages_of_megabytes() -> None:
    with make_worker() as worker:
        finished = [e for e in run_tasks(worker, [make_task("huge", "ok")]) if isinstance(e, CellFinished)]
    assert [len(e.samples) for e in finished] == [20_000, 0]


def test_host_killed_is_replaced() -> None:
    rows = measure(make_task("ok", "kill-host", "ok"), make_task("ok", name="next"))
    assert [row.status for row in rows] == ["ok", "crashed", "ok", "ok"]
    assert rows[1].error_message == "worker killed by SIGKILL"
    assert rows[1].error_phase == "latency"


def test_host_that_keeps_dying_ends_the_run() -> None:
    seen: list[Event] = []
    with make_worker() as worker, pytest.raises(UnfitError, match=r"died 3 times in a row.*killed by SIGKILL"):
        seen.extend(run_tasks(worker, [make_task(*["kill-host"] * 5)]))
    assert [row.status for row in rows_of(seen)] == ["crashed"] * sweep.HOST_DEATHS_IN_A_ROW


@pytest.mark.parametrize("ending", ["ok", "hang", "signal:SIGKILL"])
def test_offspring_dies_with_its_child(tmp_path: Path, ending: str) -> None:
    pids = tmp_path / "pids"
    measure(make_task(f"offspring:{pids}", ending, deadline_s=0.5))
    told = [int(pid) for pid in pids.read_text().split()]
    assert len(told) == 2
    wait_until(lambda: not any(map(is_running, told)))


def test_offspring_is_gone_before_the_next_group_begins(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with make_worker() as worker:
        events = run_tasks(worker, [make_task(f"offspring:{pids}"), make_task("ok", name="next")])
        next(e for e in events if isinstance(e, CellStarted) and e.cell_id.startswith("next"))
        assert [is_running(int(pid)) for pid in pids.read_text().split()] == [False, False]


def test_offspring_dies_with_a_killed_host(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    measure(make_task(f"offspring:{pids}", "kill-host"))
    same_session, own_session = map(int, pids.read_text().split())
    wait_until(lambda: not is_running(same_session))
    os.kill(own_session, signal.SIGKILL)  # beyond the reach of a dead host


HARMLESS = ["ok", "print", "twice", "late-death"]
OTHERS = ["error", "oom", "leave", "kill-host", "scribble"]
ACTS: st.SearchStrategy[str] = st.sampled_from([*HARMLESS, *OTHERS, *(act for act, _, _ in DEATHS)])


@pytest.mark.slow
@given(groups=st.lists(st.lists(ACTS, min_size=1, max_size=4), min_size=1, max_size=3))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
def test_every_cell_gets_exactly_one_row_whatever_dies(
    monkeypatch: pytest.MonkeyPatch, groups: list[list[str]]
) -> None:
    monkeypatch.setattr(sweep, "HOST_DEATHS_IN_A_ROW", 100)
    tasks = [make_task(*acts, name=f"n{i}", round=i) for i, acts in enumerate(groups)]
    rows = measure(*tasks)  # asserts it
    for row in rows:
        act = groups[row.round][row.batch_size.bit_length() - 1]
        possible = {"error": "error", "oom": "oom", "exhaust-memory": "oom"}.get(
            act, "ok" if act in HARMLESS else "crashed"
        )
        assert row.status in (possible, "crashed", "skipped")
