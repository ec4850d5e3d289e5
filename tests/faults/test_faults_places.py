"""Directories of results that are read-only, full, links, gone in the middle, or from the future."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from builders import make_record, make_run
from commands import QUICK, begun, check, orphans, run, start
from msgspec.structs import replace

from archbench.results import RunStore

WORDS = ("run", "lenet5", "--batch-size", "1,2", "--metrics", "static,latency", "--device", "cpu")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Two megabytes, where this user may mount one, which takes root."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", place], capture_output=True).returncode:
        pytest.skip("cannot mount a small disk here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_full_disk_ends_in_one_line_and_what_was_finished_stays(small_disk: Path, tmp_path: Path) -> None:
    assert run(*WORDS, "--out", small_disk / "run", "--only", "lenet5@batch_size=1", cwd=tmp_path).returncode in (0, 3)
    stored = begun(small_disk / "run")
    assert stored
    subprocess.run(["dd", "if=/dev/zero", f"of={small_disk / 'ballast'}", "bs=4k"], capture_output=True)
    done = run(*WORDS, "--out", small_disk / "run", cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr.rstrip().splitlines()[-1].startswith("archbench: cannot write ")
    assert begun(small_disk / "run") == stored
    (small_disk / "ballast").unlink()
    assert run(*WORDS, "--out", small_disk / "run", cwd=tmp_path).returncode in (0, 3)
    now = begun(small_disk / "run")
    assert len(now) > len(stored)
    assert stored.items() <= now.items()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("limit", [0, 100, 4000, 60_000])
def test_files_that_may_not_grow(limit: int, tmp_path: Path) -> None:
    """As under a quota: from the first file on, and in the middle."""
    out = tmp_path / "run"
    command = ["sh", "-c", f'ulimit -f {limit // 512}; exec "$@"', "sh"]
    words = [sys.executable, "-P", "-m", "archbench", *WORDS, "--out", str(out)]
    done = subprocess.run([*command, *words], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    check(done)
    before = begun(out)
    assert run(*WORDS, "--out", out, cwd=tmp_path).returncode in (0, 3)
    now = begun(out)
    assert before.items() <= now.items()
    assert len(now) >= 2


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("what", ["read-only", "file", "null", "fifo", "link to nothing", "link to itself", "link"])
def test_places_that_are_no_plain_directories(what: str, tmp_path: Path) -> None:
    out = tmp_path / "place" / "run"
    out.parent.mkdir()
    aside = tmp_path / "aside"
    match what:
        case "read-only":
            if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", out.parent], capture_output=True).returncode:
                pytest.skip("cannot mount a read-only disk here")
        case "file":
            out.write_text("mine")
        case "null":
            out = Path("/dev/null")
        case "fifo":
            os.mkfifo(out)
        case "link to nothing":
            out.symlink_to(aside)
        case "link to itself":
            out.symlink_to(out)
        case "link":
            aside.mkdir()
            out.symlink_to(aside)
    try:
        done = run(*WORDS, "--out", out, cwd=tmp_path)
    finally:
        if what == "read-only":
            subprocess.run(["umount", "-l", out.parent], check=True)
    if what == "link" or (what == "link to nothing" and done.returncode != 2):
        assert done.returncode in (0, 3)
        assert len(begun(out)) >= 2
        assert out.is_symlink()
    else:
        assert done.returncode in (2, 3)
        assert done.stderr.count("\n") == 1, done.stderr
    assert what != "file" or out.read_text() == "mine"
    assert what != "null" or not Path("/dev/null").is_file()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", ["cells", "."])
def test_a_directory_that_is_removed_in_the_middle(part: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ("run", "lenet5", "resnet20_cifar", "--batch-size", "1,2,4,8", "--device", "cpu", "--out", out)
    process = start(*words, cwd=tmp_path, mark=str(tmp_path))
    end = time.monotonic() + 120
    while not list(out.glob("cells/*.parquet")) and time.monotonic() < end and process.poll() is None:
        time.sleep(0.02)
    shutil.rmtree(out / part, ignore_errors=True)
    said, err = process.communicate(timeout=300)
    check(subprocess.CompletedProcess(words, process.returncode, said, err))
    assert not orphans(str(tmp_path))
    assert process.returncode in (0, 1, 2, 3)
    if process.returncode == 3:
        assert "archbench: " in err
    assert run(*words, cwd=tmp_path).returncode in (0, 3)
    assert len(begun(out)) >= 8


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_clock_that_went_back(tmp_path: Path) -> None:
    """By 400 days: what is stored is from the future."""
    suite = tmp_path / "clock.yaml"
    suite.write_text(json.dumps({"suite": "clock", "architectures": ["lenet5"], "rounds": 1, "protocol": QUICK,
                                 "axes": {"batch_size": [1, 2]}, "metrics": ["static", "latency"]}))  # fmt: skip
    words = ("run", suite, "--device", "cpu")
    assert run(*words, "--only", "@batch_size=1", cwd=tmp_path).returncode in (0, 3)
    (stored,) = (tmp_path / "results" / "clock").iterdir()
    (row,) = RunStore.open(stored).records()
    (stored / "results.parquet").unlink()
    later = (datetime.fromisoformat(str(row.started_at)) + timedelta(days=400)).isoformat()
    RunStore.open(stored).append(replace(row, started_at=later))
    future = time.time() + 400 * 86400
    for path in stored.rglob("*"):
        os.utime(path, (future, future))
    before = begun(stored)
    assert run(*words, cwd=tmp_path).returncode in (0, 3)
    assert [stored] == list((tmp_path / "results" / "clock").iterdir()), "the same run is continued"
    now = begun(stored)
    assert before.items() <= now.items()
    assert len(now) == 2
    for command in (("report", stored), ("pick", stored), ("compare", stored, stored)):
        assert run(*command, cwd=tmp_path).returncode in (0, 3)
    run("history", stored.parent, cwd=tmp_path)


def test_a_run_of_the_future_is_read(tmp_path: Path) -> None:
    stored = make_run(tmp_path, [make_record(started_at="2031-01-02T03:04:05.000+00:00")])
    import archbench

    assert archbench.load(stored)["started_at"].tolist() == ["2031-01-02T03:04:05.000+00:00"]
    assert archbench.report(stored)
