"""A hundred kills at random, and one at each change of a file: nothing finished is lost, no process left over."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest
from builders import make_record, make_rows, make_run, make_suite
from commands import FINE, QUICK, descendants, orphans, rows_of, run, start

from archbench.comparison.gate import DuelSpec, GateSpec
from archbench.comparison.interleave import PairStore
from archbench.model.comparison import ProcessPair
from archbench.results import RunStore

KILLS = int(os.environ.get("ARCHBENCH_KILLS", "100"))
HERE = Path(__file__).parent
Victim = Callable[[list[psutil.Process], psutil.Process], list[psutil.Process]]


def _hosts(them: list[psutil.Process], parent: psutil.Process) -> list[psutil.Process]:
    return [one for one in them if one.ppid() == parent.pid]


VICTIMS: dict[str, tuple[Victim, signal.Signals]] = {
    "parent": (lambda them, parent: [parent], signal.SIGKILL),
    "parent, asked": (lambda them, parent: [parent], signal.SIGTERM),
    "parent, Ctrl-C": (lambda them, parent: [parent], signal.SIGINT),
    "host": (_hosts, signal.SIGKILL),
    "child": (lambda them, parent: [one for one in them if one != parent and one not in _hosts(them, parent)],
              signal.SIGKILL),
    "group": (lambda them, parent: [parent, *them], signal.SIGKILL),
}  # fmt: skip


def suite_of(folder: Path) -> Path:
    path = folder / "suite.yaml"
    content = {
        "suite": "killed",
        "architectures": ["lenet5", "resnet20_cifar"],
        "axes": {"batch_size": [1, 2, 4]},
        "metrics": ["static", "latency"],
        "rounds": 2,
        "protocol": QUICK,
    }
    path.write_text(json.dumps(content))
    return path


def kill_once(words: Sequence[object], folder: Path, rng: random.Random, longest_s: float) -> tuple[int, str, float]:
    """Run a command, kill a part of it at some moment, and give its exit code, what was killed, how long it took."""
    mark = f"{folder}-{time.monotonic_ns()}"
    began = time.monotonic()
    process = start(*words, cwd=folder, mark=mark)
    name = rng.choice(sorted(VICTIMS))
    choose, number = VICTIMS[name]
    try:
        process.wait(rng.uniform(0.0, longest_s))
        name = "nobody"
    except subprocess.TimeoutExpired:
        try:
            parent = psutil.Process(process.pid)
            for victim in choose([one for one in descendants(mark) if one != parent], parent):
                victim.send_signal(number)
        except psutil.NoSuchProcess:
            pass
    _, err = process.communicate(timeout=300)
    code = process.returncode
    if code != -signal.SIGKILL or name not in ("parent", "group"):
        # Before it has said what a signal means, Python itself ends by it.
        assert code in FINE or -code in (signal.SIGTERM, signal.SIGINT), (name, code, err)
        assert "Traceback" not in err or (code < 0 and "KeyboardInterrupt" in err), (name, err)
    assert not orphans(mark), (name, orphans(mark))
    return code, name, time.monotonic() - began


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_runs_killed_at_random_lose_nothing(tmp_path: Path) -> None:
    rng = random.Random(17)
    suite_of(tmp_path)
    longest, killed, directories = 12.0, 0, 0
    while killed < KILLS * 6 // 10:
        out = tmp_path / f"run{directories}"
        directories += 1
        before: dict[tuple[str, int, int], str] = {}
        while True:
            words = ("run", "suite.yaml", "--device", "cpu", "--out", out, "--retry-failed")
            code, name, took = kill_once(words, tmp_path, rng, longest)
            killed += name != "nobody"
            now = rows_of(out)
            # A cell whose process was killed may be measured again; what was measured stays.
            # Beside rows that came later one may turn out invalid, and is measured again then.
            lost = {k for k, told in before.items() if told.startswith("ok ") and now.get(k) not in (told, "invalid")}
            assert not lost, (name, lost)
            before = now
            if name == "nobody" and code == 0:
                longest = max(4.0, took)
                break
        assert len(now) == 12
        assert all(told.startswith(("ok ", "invalid")) for told in now.values())
        assert not list(out.rglob("*.tmp"))
        assert not list(out.rglob("*.damaged*"))


Pairs = dict[tuple[str, str, str, int], ProcessPair]


def pairs_below(place: Path, kind: type[GateSpec] | type[DuelSpec]) -> Pairs:
    """Every pair that is stored there, whether it is folded in or not; there and nowhere else."""
    found: Pairs = {}
    for marker in place.rglob(kind.MARKER):
        for one in PairStore(marker.parent, kind).stored():
            found[str(marker.parent), one.cell_id, one.stage, one.number] = one.pair
    return found


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_duels_killed_at_random_lose_no_pair(tmp_path: Path) -> None:
    rng = random.Random(18)
    words = ("duel", "lenet5", "resnet20_cifar", "--device", "cpu", "--pairs", "3", "--turns", "4", "--max-time", "60s")
    killed = 0
    kept: Pairs = {}
    while killed < KILLS // 5:
        code, name, _ = kill_once(words, tmp_path, rng, 20.0)
        killed += name != "nobody"
        now = pairs_below(tmp_path / "results", DuelSpec)
        assert all(now.get(key) == pair for key, pair in kept.items()), name
        kept = now
        if name == "nobody" and code == 0:
            kept = {}
            for path in sorted((tmp_path / "results").rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
    assert run(*words, cwd=tmp_path).returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_gates_killed_at_random_lose_no_pair(tmp_path: Path) -> None:
    rng = random.Random(19)
    suite_of(tmp_path)
    words = ("gate", "suite.yaml", "--base", sys.executable, "--head", sys.executable, "--device", "cpu",
             "--out", "gate", "--max-time", "30s")  # fmt: skip
    killed = 0
    kept: Pairs = {}
    while killed < KILLS // 5:
        _, name, _ = kill_once(words, tmp_path, rng, 25.0)
        killed += name != "nobody"
        now = pairs_below(tmp_path / "gate", GateSpec)
        assert all(now.get(key) == pair for key, pair in kept.items()), name
        kept = now
        if name == "nobody":
            for path in sorted((tmp_path / "gate").rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            kept = {}


def interrupted(words: Sequence[object], number: int, cwd: Path) -> int:
    """Run a command that is killed right before its `number`th change of a file; its exit code."""
    command = [sys.executable, str(HERE / "kill_at.py"), str(number), *map(str, words)]
    path = os.pathsep.join([str(HERE), str(HERE.parent), str(HERE.parent.parent)])
    done = subprocess.run(command, cwd=cwd, env={**os.environ, "PYTHONPATH": path}, capture_output=True, timeout=300)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    return done.returncode


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_change_of_a_file_in_merging_may_be_the_last(tmp_path: Path) -> None:
    rows = [make_record(round=number) for number in range(3)]
    for number in range(1, 200):
        run_ = make_run(tmp_path / str(number), rows, merge=False)
        code = interrupted(("merge", run_), number, tmp_path)
        store = RunStore.open(run_)
        assert store.records() == rows
        assert store.samples().num_rows == 3 * 12
        store.merge()
        assert store.records() == rows
        assert not list(run_.rglob("*.tmp"))
        if code == 0:
            break
    assert 10 < number < 199


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_change_of_a_file_in_rendering_may_be_the_last(tmp_path: Path) -> None:
    rows = list(make_rows(make_suite(rounds=1), networks=["resnet18", "resnet50"]))
    run_ = make_run(tmp_path, rows)
    before = {path: path.read_bytes() for path in run_.rglob("*") if path.is_file()}
    for number in range(1, 400):
        code = interrupted(("render", run_), number, tmp_path)
        assert all(path.read_bytes() == content for path, content in before.items())
        report = run_ / "report.md"
        assert not report.exists() or report.read_text().rstrip().endswith(whole_ending(run_))
        if code == 0:
            break
    assert 5 < number < 399


def whole_ending(run_: Path) -> str:
    """The last line of the report, rendered anew."""
    import archbench

    return str(archbench.report(run_)).rstrip().splitlines()[-1]
