"""The CPU's probe, on this machine and on ones described by files."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from archbench.device import between, open_probe
from archbench.device.cpu import CpuProbe

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def machine(root: Path, stat: str, schedstat: str | None) -> CpuProbe:
    (root / "self/task/12").mkdir(parents=True)
    (root / "stat").write_text(stat)
    if schedstat is not None:
        (root / "self/task/12/schedstat").write_text(schedstat)
    return CpuProbe(root)


def test_ticks_of_our_cores_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {1})
    monkeypatch.setattr("os.sysconf", lambda _: 100)
    stat = "cpu 9 9 9 9 9 9 9 9 9 9\ncpu0 900 0 0 0 0 0 0 900 0 0\ncpu1 100 20 30 4000 500 6 7 80 9 10\nintr 5"
    reading = machine(tmp_path, stat, "3000000000 250000000 17").read()
    assert reading.cpu is not None
    assert reading.cpu.cores == 1
    assert reading.cpu.busy_s == pytest.approx((100 + 20 + 30 + 6 + 7) / 100)  # idle and waiting for a disk are not
    assert reading.cpu.stolen_s == pytest.approx(0.8)
    assert reading.cpu.waited_s == ((12, 0.25),)


@pytest.mark.parametrize("schedstat", [None, "0 0 0", "nonsense"])
def test_a_kernel_without_run_queue_times(tmp_path: Path, schedstat: str | None) -> None:
    reading = machine(tmp_path, "intr 5", schedstat).read()
    assert reading.cpu is not None
    assert (reading.cpu.waited_s, reading.cpu.busy_s, reading.cpu.stolen_s) == (None, None, None)


def test_no_proc_at_all(tmp_path: Path) -> None:
    reading = CpuProbe(tmp_path / "nothing").read()
    assert reading.cpu is not None
    assert (reading.cpu.waited_s, reading.cpu.busy_s) == (None, None)


def test_own_time_is_all_threads() -> None:
    def work() -> None:
        end = time.thread_time() + 0.1
        while time.thread_time() < end:
            pass

    probe = open_probe("cpu")
    before = probe.read()
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = probe.read()
    assert before.cpu is not None
    assert after.cpu is not None
    assert after.cpu.own_s - before.cpu.own_s >= 0.2
    health = between(before, after)
    assert health.contention is not None
    assert 0.0 <= health.contention < 1.0


def test_a_reading_is_cheap() -> None:
    """Two readings a block of 100 ms or more: below 1 % in all. In a process of its own: each thread costs a file."""
    code = (
        "import time\n"
        "from archbench.device import open_probe\n"
        "probe = open_probe('cpu')\n"
        "def reading():\n"
        "    start = time.perf_counter()\n"
        "    probe.read()\n"
        "    return time.perf_counter() - start\n"
        "print(min(reading() for _ in range(200)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert float(done.stdout) < 0.5e-3
