"""Fresh processes: each has what was there when they were set aside, and nothing that came later."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from worker_fakes import is_running

from archbench.analyze.fresh import FreshProcessError, FreshProcesses, TooLongError
from archbench.model.errors import UsageError

STATE: list[str] = []


def where() -> tuple[int, int, list[str]]:
    STATE.append("been here")
    return os.getpid(), os.getppid(), STATE


def fail(*, word: str) -> None:
    raise ValueError(f"{word}\nand more")


def train(asked_by: int) -> int:
    """As a backward pass where autograd has threads, which no fork has."""
    if os.getppid() != asked_by:
        raise RuntimeError("Unable to handle autograd's threading in combination with fork-based multiprocessing.")
    return os.getpid()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def fresh():
    return FreshProcesses()


def test_each_call_has_a_process_of_its_own_in_which_nothing_ran(fresh):
    STATE[:] = ["ran in the measuring process"]
    first, aside, state = fresh.call(None, where)
    second, again, later = fresh.call(None, where)
    assert len({first, second, aside, os.getpid()}) == 4
    assert aside == again
    assert state == later == ["been here"]


@pytest.mark.cold
def test_what_torch_refuses_a_fork_is_done_by_an_interpreter_of_its_own(fresh):
    """As in a notebook that has trained on a GPU."""
    assert fresh.call(None, train, os.getpid()) != os.getpid()


def test_what_a_fresh_process_raises_is_one_line(fresh):
    with pytest.raises(FreshProcessError, match=r"^ValueError: told and more$"):
        fresh.call(None, fail, word="told")


def test_a_fresh_process_that_dies_costs_one_call(fresh):
    with pytest.raises(FreshProcessError, match="ended with -9"):
        fresh.call(None, die)
    assert fresh.call(None, os.getppid) not in (0, 1)


def test_without_the_one_set_aside_there_are_none():
    gone = FreshProcesses()
    os.kill(gone.call(None, os.getppid), signal.SIGKILL)
    with pytest.raises(FreshProcessError, match="has died"):
        gone.call(None, os.getpid)


def test_a_fresh_process_that_takes_too_long_is_ended(fresh):
    before = time.monotonic()
    with pytest.raises(TooLongError, match=r"^not done within 0.3 s$"):
        fresh.call(0.3, time.sleep, 600)
    assert time.monotonic() - before < 30
    assert fresh.call(60.0, os.getppid) not in (0, 1)


def leave_another() -> int:
    """One that keeps the pipe open that its parent answered by."""
    if (child := os.fork()) == 0:
        time.sleep(600)
        os._exit(0)
    return child


def test_what_a_fresh_process_forks_ends_with_it(fresh):
    before = time.monotonic()
    child = fresh.call(None, leave_another)
    assert time.monotonic() - before < 30
    end = time.monotonic() + 10
    while is_running(child) and time.monotonic() < end:
        time.sleep(0.01)
    assert not is_running(child)


def fail_for_memory() -> None:
    raise MemoryError


def test_out_of_memory_is_told_apart(fresh):
    with pytest.raises(MemoryError):
        fresh.call(None, fail_for_memory)


def test_one_that_is_not_answered_dies_with_the_one_set_aside(tmp_path):
    gone = FreshProcesses()
    aside = gone.call(None, os.getppid)
    told = tmp_path / "pid"

    def wait() -> None:
        with pytest.raises(FreshProcessError, match=r"ended with|has died"):
            gone.call(None, sleep_long, told)

    waiting = threading.Thread(target=wait)
    waiting.start()
    end = time.monotonic() + 30
    while not (told.exists() and told.read_text()) and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(aside, signal.SIGKILL)
    waiting.join(30)
    while is_running(int(told.read_text())) and time.monotonic() < end:
        time.sleep(0.01)
    assert not is_running(int(told.read_text()))


def sleep_long(told: Path) -> None:
    told.write_text(str(os.getpid()))
    time.sleep(600)


def refuse() -> None:
    raise UsageError("no such network")


def test_a_users_error_comes_as_it_is(fresh):
    with pytest.raises(UsageError, match=r"^no such network$"):
        fresh.call(None, refuse)
