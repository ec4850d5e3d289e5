"""What survives when the process, the disk or a file does not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from builders import make_environment, make_record, make_run, make_samples, make_suite

from archbench.model.errors import UnfitError, UsageError
from archbench.rendering.report import write_reports
from archbench.results import RunStore, load_frame, read_table

HERE = Path(__file__).parent
TESTS = HERE.parent


def empty_run(root: Path) -> Path:
    return make_run(root, [], merge=False)


def appender(run: Path, *arguments: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    return subprocess.Popen(
        [sys.executable, str(HERE / "appender.py"), str(run), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def check_kills(root: Path, trials: int, seed: int) -> None:
    rng = random.Random(seed)
    for trial in range(trials):
        run = empty_run(root / str(trial))
        process = appender(run)
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(rng.uniform(0, 0.4))
        os.kill(process.pid, signal.SIGKILL)
        returned = [int(line) for line in (first + process.communicate()[0]).split()]

        store = RunStore.open(run)
        stored = sorted(row.round for row in store.records())
        assert returned == list(range(len(returned)))
        assert returned
        # Every append that returned is there; the one under way may or may not have made it.
        assert stored in (returned, [*returned, len(returned)])
        assert {key[1] for key in store.finished()} == set(stored)
        per_row = store.samples().group_by("round").aggregate([("block", "count")]).to_pylist()
        assert {row["round"]: row["block_count"] for row in per_row} == dict.fromkeys(stored, 40)
        assert len(load_frame(run)) == len(stored)

        store.merge()
        assert sorted(row.round for row in store.records()) == stored
        assert not list(run.glob("cells/*"))
        assert not list(run.rglob("*.tmp"))


def test_kill_9_loses_no_appended_row(tmp_path: Path) -> None:
    check_kills(tmp_path, trials=3, seed=1)


@pytest.mark.slow
def test_kill_9_at_many_moments(tmp_path: Path) -> None:
    check_kills(tmp_path, trials=30, seed=2)


def test_full_disk_is_one_clear_error_and_loses_nothing(tmp_path: Path) -> None:
    run = empty_run(tmp_path)
    RunStore.open(run).append(make_record(round=1_000_000))
    # Six rows fit under the limit each; the merged file after the seventh does not.
    size = max(path.stat().st_size for path in run.glob("cells/*"))
    out, err = appender(run, str(size + 2048)).communicate(timeout=60)
    assert "UnfitError: cannot write" in err.splitlines()[-1]
    assert "File too large" in err.splitlines()[-1]
    assert "run the same command again" in err.splitlines()[-1]
    stored = {row.round for row in RunStore.open(run).records()}
    assert stored == {1_000_000, *(int(line) for line in out.split())}
    assert not list(run.rglob("*.tmp"))


def test_a_row_that_does_not_fit_leaves_the_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RunStore.open(empty_run(tmp_path))
    store.append(make_record(latency_median_s=1.0))

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UnfitError, match="No space left on device; what was stored before is kept"):
            store.append(make_record(latency_median_s=2.0))
    assert [row.latency_median_s for row in store.records()] == [1.0]


def test_death_between_merging_and_emptying_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [make_record(round=number) for number in range(4)]
    run = make_run(tmp_path, rows, merge=False)
    store = RunStore.open(run)

    class Killed(BaseException):
        pass

    def die(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".parquet":
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", die)
        with pytest.raises(Killed):
            store.merge()
    assert (run / "samples.parquet").exists()
    for _ in range(2):
        assert store.records() == rows
        assert store.samples().num_rows == 4 * len(make_samples(rows[0]))
        store.merge()
    assert not list(run.glob("*/*.parquet"))


@pytest.mark.parametrize("keep", [0, 3, 100, -100, -1])
def test_a_cut_cell_file_is_named_and_counts_as_unfinished(
    tmp_path: Path, keep: int, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [make_record(round=number) for number in range(3)]
    run = make_run(tmp_path, rows, merge=False)
    victim = next(run.glob("cells/*-r1-*"))
    victim.write_bytes(victim.read_bytes()[:keep])
    store = RunStore.open(run)

    assert {key[1] for key in store.finished()} == {0, 2}
    assert victim.name in caplog.text
    assert list(load_frame(run)["round"]) == [0, 2]
    store.merge()
    assert victim.with_name(f"{victim.name}.damaged").exists()
    store.append(rows[1])
    assert store.records() == rows


def test_a_cut_merged_file_is_set_aside_before_it_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(tmp_path, [make_record(round=number) for number in range(3)])
    merged = run / "results.parquet"
    merged.write_bytes(merged.read_bytes()[:2000])
    store = RunStore.open(run)
    assert store.finished() == set()
    assert "results.parquet is damaged" in caplog.text
    with pytest.raises(UsageError, match=r"results\.parquet: is not a parquet file, or a damaged one"):
        read_table(merged)
    with pytest.raises(UsageError, match="holds no finished cell yet"):
        read_table(run)
    store.append(make_record(round=7))
    store.merge()
    assert [row.round for row in store.records()] == [7]
    assert (run / "results.parquet.damaged").stat().st_size == 2000


def test_a_run_killed_while_it_was_created_can_be_created_again(tmp_path: Path) -> None:
    run = empty_run(tmp_path)
    (run / "environment.json").unlink()
    (run / "run.lock").touch()
    with pytest.raises(UsageError, match=r"is not a run; it has no environment\.json"):
        RunStore.open(run)
    store = RunStore.create(run, make_suite(), make_environment(), "suite: example\n")
    assert store.finished() == set()


def test_a_report_removes_what_a_killed_writer_left_and_nothing_of_a_living_one(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [make_record()])
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (run / "plots").mkdir()
    dead = [folder / f".report.md.{ended.pid}.tmp" for folder in (run, run / "plots")]
    living = run / f".report.md.{os.getppid()}.tmp"
    for file in (*dead, living):
        file.write_bytes(b"half")
    write_reports(run)
    assert living.exists()
    assert not any(file.exists() for file in dead)
