"""Starting a worker: what it must say before it is given work, and what is said where it cannot be started."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from worker_fakes import MISBEHAVING_WORKER, make_environment, make_worker

from archbench import __version__
from archbench.model.errors import UnfitError
from archbench.model.messages import MESSAGE_VERSION
from archbench.model.protocol import PROTOCOL_VERSION
from archbench.worker import WorkerClient

OTHER = '{{"type":"ready","message_version":{},"protocol_version":{},"archbench_version":"9.8.7","unheard":"of"}}'


@pytest.fixture
def scripted(tmp_path: Path) -> str:
    return str(tmp_path / "worker.py")


def started_by(script: str, text: str) -> None:
    Path(script).write_text(text)
    with make_worker(arguments=(script,)) as worker:
        worker.start()


def test_greeting_describes_the_worker_on_its_device() -> None:
    with make_worker(device="cuda:1") as worker:
        ready = worker.start()
    assert ready.environment == make_environment("cuda:1")
    assert (ready.archbench_version, ready.message_version) == (__version__, MESSAGE_VERSION)


@pytest.mark.parametrize("versions", [(MESSAGE_VERSION + 1, PROTOCOL_VERSION), (MESSAGE_VERSION, PROTOCOL_VERSION + 1)])
def test_other_versions_are_refused_and_both_are_named(scripted: str, versions: tuple[int, int]) -> None:
    with pytest.raises(UnfitError) as refusal:
        started_by(scripted, f"print('''{OTHER.format(*versions)}''', flush=True); input()")
    message = str(refusal.value)
    assert f"9.8.7 (messages {versions[0]}, protocol {versions[1]})" in message
    assert f"this is archbench {__version__} (messages {MESSAGE_VERSION}, protocol {PROTOCOL_VERSION})" in message
    assert sys.executable in message


def test_worker_that_cannot_import_is_quoted(scripted: str) -> None:
    with pytest.raises(UnfitError, match=r"does not start.*ModuleNotFoundError: No module named 'torchless'"):
        started_by(scripted, "import torchless")


@pytest.mark.parametrize("greeting", ["hello", '{"type":"ready"}', "[]"])
def test_anything_else_that_talks_is_no_worker(scripted: str, greeting: str) -> None:
    with pytest.raises(UnfitError, match="no archbench worker"):
        started_by(scripted, f"print('''{greeting}''', flush=True); input()")


@pytest.mark.parametrize(("python", "word"), [("/nowhere/python", "No such file"), ("/", "Permission denied")])
def test_interpreter_that_does_not_exist_is_named(python: str, word: str) -> None:
    with pytest.raises(UnfitError, match=f"cannot start {python}: {word}"), WorkerClient(python) as worker:
        worker.start()


def children() -> set[psutil.Process]:
    """Of this process, which other tests, too, have given some."""
    return set(psutil.Process().children())


def test_a_worker_that_is_launched_gets_ready_while_nobody_waits(scripted: str, tmp_path: Path) -> None:
    there = tmp_path / "there"
    Path(scripted).write_text(
        f"import pathlib, runpy, time\npathlib.Path({str(there)!r}).touch()\ntime.sleep(0.5)\n"
        f"runpy.run_path({MISBEHAVING_WORKER!r}, run_name='__main__')\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(MISBEHAVING_WORKER).parent)}
    with make_worker(arguments=(scripted,), env=env) as worker:
        before = children()
        begun = time.monotonic()
        worker.launch()
        worker.launch()  # no second one
        assert time.monotonic() - begun < 0.3
        while not there.exists() and time.monotonic() - begun < 10:
            time.sleep(0.01)
        (process,) = children() - before
        assert worker.start().environment == make_environment()
        assert worker.start().pid == process.pid
    assert not process.is_running()


def test_one_that_is_sent_away_before_it_is_ready_goes_at_once(scripted: str) -> None:
    Path(scripted).write_text("import time; time.sleep(60)")
    worker = make_worker(arguments=(scripted,))
    before = children()
    worker.launch()
    (process,) = children() - before
    begun = time.monotonic()
    worker.close()
    assert time.monotonic() - begun < 1.0
    assert not process.is_running()


def test_worker_killed_while_it_starts_is_started_again(scripted: str, tmp_path: Path) -> None:
    """Out of memory, or somebody's `kill`, beside a gate of an hour: no reason to give up."""
    killed = tmp_path / "killed"
    Path(scripted).write_text(
        "import os, pathlib, runpy\n"
        f"killed = pathlib.Path({str(killed)!r})\n"
        "if not killed.exists():\n"
        "    killed.touch()\n"
        "    os.kill(os.getpid(), 9)\n"
        f"runpy.run_path({MISBEHAVING_WORKER!r}, run_name='__main__')\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(MISBEHAVING_WORKER).parent)}
    with make_worker(arguments=(scripted,), env=env) as worker:
        assert worker.start().environment == make_environment()
    assert killed.exists()


def test_worker_that_is_killed_every_time_is_given_up(scripted: str) -> None:
    with pytest.raises(UnfitError, match=r"killed while it starts: worker killed by SIGKILL"):
        started_by(scripted, "import os; os.kill(os.getpid(), 9)")


@pytest.mark.cold
def test_nothing_is_imported_from_where_the_user_is(tmp_path: Path) -> None:
    """Not by the interpreter, not by torch: what lies there is no library, and running it takes --allow-code."""
    for name in ("random", "statistics", "torch/__init__", "numpy/__init__", "archbench/__init__"):
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close(); raise ImportError('not this one')")
    with WorkerClient(cwd=tmp_path) as worker:
        assert worker.start().environment.torch_version is not None
    assert not (tmp_path / "imported").exists()


def test_parent_side_imports_no_torch() -> None:
    check = "import sys, archbench.worker; sys.exit(bool({'torch', 'numpy', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
