"""A second run is refused by name; a dead one holds nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from archbench.model.errors import UnfitError
from archbench.worker import device_lock, run_lock

HOLD = """
import sys
from pathlib import Path
from archbench.worker import device_lock, run_lock
with run_lock(Path(sys.argv[1])), device_lock(sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""

UUID = "GPU-5c6f1a7e-0000"


@pytest.fixture(autouse=True)
def own_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests must not be refused by, nor refuse, a real run of this user."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), UUID], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def locks(folder: Path) -> dict[str, Callable[[], AbstractContextManager[None]]]:
    return {"--out": lambda: run_lock(folder), UUID: lambda: device_lock(UUID)}


def test_second_run_is_told_who_holds_it_and_what_to_do(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    for word, lock in locks(tmp_path).items():
        for _ in range(2):  # being refused must not wipe out the holder's name
            with pytest.raises(UnfitError, match=rf"pid {holder.pid}\b.*wait for it") as refusal, lock():
                pass
            assert word in str(refusal.value)


def test_lock_goes_with_its_killed_process(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    holder.kill()
    holder.wait()
    for lock in locks(tmp_path).values():
        with lock():
            pass


def test_lock_is_released_and_can_be_taken_again(tmp_path: Path) -> None:
    for lock in locks(tmp_path).values():
        for _ in range(2):
            with lock(), pytest.raises(UnfitError, match=rf"pid {os.getpid()}\b"), lock():
                pass


def test_devices_are_locked_one_by_one() -> None:
    with device_lock("cpu"), device_lock("GPU-1"), device_lock("GPU-2"):
        pass


def test_device_locks_lie_in_a_directory_of_this_user_alone(tmp_path: Path) -> None:
    with device_lock("MIG-GPU-1/2/3"):
        (folder,) = tmp_path.glob("archbench-*")
        assert folder.stat().st_mode & 0o077 == 0
        assert {file.name for file in folder.iterdir()} == {"MIG-GPU-1_2_3.lock", "MIG-GPU-1_2_3.lock.holder"}


def test_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnfitError, match=r"cannot lock .*file/run.*: Not a directory"), run_lock(tmp_path / "file/run"):
        pass


def test_a_place_for_locks_that_is_a_file_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / f"archbench-{os.getuid()}").touch()
    with pytest.raises(UnfitError, match=r"no place for a lock: .*set TMPDIR"), device_lock(UUID):
        pass
