"""The GPU session, with an interpreter that only pretends: what it runs, and what is left of it whatever happens."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
from typer.main import get_command
from workflow_steps import ROOT

import archbench
from archbench.cli import app

GPU = ROOT / "tests" / "gpu"
FILES = {"summary.md", "session.log", "session.tar.gz"}
STORED = next((ROOT / "results" / "imagenet_backbones").iterdir())
PRETENDS = """#!/usr/bin/env bash
# The check for a GPU and the card's name, then a step each
if [[ $1 == -c ]]; then [[ -n $NO_GPU ]] && exit 1; echo "a card, torch 2"; exit 0; fi
echo "$*" >> "$LOG"
after() { while [[ $# -gt 0 && $1 != "$word" ]]; do shift; done; echo "$2"; }
case "$*" in
  *"$SLOW"*) echo $$ > "$LOG.slow"; echo "slow begins"; sleep 1000 ;;
  *"$KILLED"*) kill -9 $$ ;;
  *"$FAILS"*) echo "it went | wrong"; exit 1 ;;
  *pip*) exec "$REAL" "$@" ;;
  *doctor*) "$REAL" -c 'import carried; print(carried.WHAT)' || echo "two findings"; exit 3 ;;
  *facts*) echo '{"spinning": 1.98e9}' > "$2"; echo "facts" ;;
  *"archbench run"*) word=--out; cp -rn "$STORED" "$(after "$@")"; echo "stopped by time"; exit 130 ;;
  *gate*) word=--out; mkdir -p "$(after "$@")"; echo "No regression" ;;
  *) echo "fine" ;;
esac
"""


@pytest.fixture(scope="module")
def session():
    spec = importlib.util.spec_from_file_location("gpu_session", GPU / "session.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_session"] = module
    spec.loader.exec_module(module)
    return module


def start(tmp_path, seconds=600, wheels="none", **script):
    """Start a session of that many seconds, 80 of them slack."""
    python = tmp_path / "python"
    python.write_text(PRETENDS)
    python.chmod(0o755)
    unused = dict.fromkeys(("SLOW", "KILLED", "FAILS"), "(no step)")
    environment = {
        "PATH": os.environ["PATH"],
        "LOG": str(tmp_path / "log"),
        "REAL": sys.executable,
        "TMPDIR": str(tmp_path),
        "STORED": str(STORED),
        **unused,
        **script,
    }
    words = [GPU / "session.py", tmp_path / "out", seconds, "--python", python, "--wheels", tmp_path / wheels]
    return subprocess.Popen(
        [sys.executable, *map(str, words)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(running):
    words, _ = running.communicate(timeout=90)
    return running.returncode, words


def files(tmp_path):
    return {path.name for path in (tmp_path / "out").iterdir()}


def packed(tmp_path):
    with tarfile.open(tmp_path / "out" / "session.tar.gz") as archive:
        return set(archive.getnames())


def results(tmp_path):
    """Each step's result by its name, from the summary."""
    lines = re.findall(r"^\| (\w+) \| ([^|]+) \|", (tmp_path / "out" / "summary.md").read_text(), re.MULTILINE)
    return dict(lines)


def until(there):
    for _ in range(600):
        if there():
            return
        time.sleep(0.05)
    raise AssertionError("it never came to pass")


def test_a_machine_without_a_gpu_is_told(tmp_path):
    code, words = finish(start(tmp_path, NO_GPU="1"))
    assert code == 3
    assert "sees no CUDA device" in words
    assert not (tmp_path / "out").exists()


def test_the_shell_script_starts_it(tmp_path):
    done = subprocess.run(
        ["bash", GPU / "session.sh", tmp_path / "out", "3"],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "80 of them are kept as slack" in done.stderr


def test_the_expected_seconds_make_up_a_session(session):
    assert sum(step.expected_s for step in session.STEPS) == 600 - session.SLACK_S


def test_all_steps_run_and_what_comes_back_is_a_run(tmp_path, session):
    code, words = finish(start(tmp_path))
    assert code == 0, words
    assert files(tmp_path) == FILES
    expected = {step.name for step in session.STEPS} - {"install"}  # there were no wheels
    found = results(tmp_path)
    assert {name for name in found if name not in ("Step", "---")} >= expected
    assert found["doctor"] == "passed (3)"
    assert found["eager"] == "passed (130)"
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert "a card, torch 2" in summary
    assert "- spinning: 1980000000.0" in summary
    assert "== facts" in (tmp_path / "out" / "session.log").read_text()
    shutil.unpack_archive(tmp_path / "out" / "session.tar.gz", tmp_path / "back")
    assert len(archbench.load(tmp_path / "back" / "reference")) == len(archbench.load(STORED))
    assert "resnet50" in str(archbench.report(tmp_path / "back" / "reference"))
    left = [path.name for path in tmp_path.iterdir() if path.name.startswith("gpu-session-")]
    assert left == []


def test_a_step_that_fails_fails_the_session_and_the_others_run(tmp_path):
    code, _ = finish(start(tmp_path, FAILS="bare_loop"))
    assert code == 1
    assert results(tmp_path)["bare_loop"] == "failed (1)"
    assert results(tmp_path)["gate"] == "passed"
    assert "| it went / wrong |" in (tmp_path / "out" / "summary.md").read_text()  # a bar does not break the table


def test_a_step_that_is_killed_costs_no_more_than_itself(tmp_path):
    code, _ = finish(start(tmp_path, KILLED="facts"))
    assert code == 1
    assert results(tmp_path)["facts"] == "failed (-9)"
    assert results(tmp_path)["gate"] == "passed"


def test_slow_steps_are_cut_at_their_share_and_the_session_ends_in_time(tmp_path):
    begun = time.monotonic()
    code, words = finish(start(tmp_path, seconds=120, SLOW="facts"))
    assert time.monotonic() - begun < 40
    assert code == 0, words
    assert results(tmp_path)["facts"] == "cut short"
    assert results(tmp_path)["gate"] == "passed"
    assert "facts.txt" in packed(tmp_path)


def test_a_session_that_is_told_to_end_packs_what_it_has(tmp_path):
    running = start(tmp_path, seconds=600, SLOW="archbench run")
    until((tmp_path / "log.slow").exists)
    running.send_signal(signal.SIGTERM)
    code, _ = finish(running)
    assert code == 1
    assert files(tmp_path) == FILES
    assert "| (ended) | SIGTERM |" in (tmp_path / "out" / "summary.md").read_text()
    assert {"facts.json", "facts.txt", "eager.txt"} <= packed(tmp_path)


def test_a_session_that_is_killed_leaves_all_but_its_last_step(tmp_path):
    running = start(tmp_path, seconds=600, SLOW="archbench run")
    until((tmp_path / "log.slow").exists)
    running.kill()
    running.wait()
    os.killpg(int((tmp_path / "log.slow").read_text()), signal.SIGKILL)  # the step that it left behind
    assert files(tmp_path) == FILES
    assert {"facts.json", "doctor.txt"} <= packed(tmp_path)
    assert results(tmp_path)["facts"] == "passed"


def test_wheels_are_installed_where_the_steps_find_them(tmp_path):
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / "carried-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carried.py", "WHAT = 'all the way'\n")
        about = "carried-1.0.dist-info"
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: carried\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    finish(start(tmp_path, seconds=600, wheels="wheels"))
    assert results(tmp_path)["install"] == "passed"
    assert "| all the way |" in (tmp_path / "out" / "summary.md").read_text()


def test_an_archive_that_is_too_large_goes_without_its_largest_files(tmp_path, session, monkeypatch):
    monkeypatch.setattr(session, "MOST_BYTES", 20_000)
    made = session.Session(tmp_path / "out", 600, sys.executable, tmp_path)
    (made._work / "small.txt").write_text("kept")
    (made._work / "large.bin").write_bytes(os.urandom(30_000))
    made.pack()
    made.clear()
    assert packed(tmp_path) == {"small.txt"}
    assert "for its size: large.bin" in (tmp_path / "out" / "summary.md").read_text()


def test_the_options_and_files_that_it_gives_exist(session):
    for step in session.STEPS:
        words = step.command.split()
        for word in words:
            if word.startswith(("suites/", "tests/", "benchmarks/")):
                assert (ROOT / word).exists(), word
        if "archbench" in words:
            name = words[words.index("archbench") + 1]
            known = {parameter.name for parameter in get_command(app).commands[name].params}  # type: ignore[attr-defined]
            for option in re.findall(r"--([a-z-]+)", step.command):
                assert option.replace("-", "_") in known, f"{name} has no --{option}"


def test_the_facts_are_json(tmp_path):
    """Without a card each fact is its own absence; nothing is raised."""
    done = subprocess.run(
        [sys.executable, GPU / "facts.py", tmp_path / "facts.json", "0"], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads((tmp_path / "facts.json").read_text()).values()) == {"no time left"}


def test_it_stands_alone():
    """On a bare machine nothing of archbench can be imported before the wheels are there."""
    for name in ("session", "facts", "parallel_compile"):
        assert not re.search(r"^\s*(from|import) archbench", Path(GPU / f"{name}.py").read_text(), re.MULTILINE), name
