"""The GPU session's script, with an interpreter that only pretends: what it runs, and what it makes of the outcomes."""

from __future__ import annotations

import inspect
import re
import subprocess
import tarfile

import pytest
from workflow_steps import ROOT

SESSION = ROOT / "tests" / "gpu" / "session.sh"
PRETENDS = """#!/usr/bin/env bash
# The check for a GPU and the card's name
if [[ $1 == -c ]]; then [[ $2 == *is_available* ]] && exit {gpu}; echo "a card, torch 2"; exit 0; fi
echo "$*" >> "$LOG"
case "$*" in
  *doctor*) echo "two findings"; exit 3 ;;
  *imagenet*) echo "stopped | by time"; exit 130 ;;
  *bare_loop*) echo "within 2 %: all"; exit {bare} ;;
  *gate*)
    while [[ $# -gt 0 && $1 != --out ]]; do shift; done
    mkdir -p "$2"
    touch "$2/report.md"
    echo "No regression" ;;
  *) echo "fine" ;;
esac
"""


def session(tmp_path, *, gpu=0, bare=0):
    python = tmp_path / "python"
    python.write_text(PRETENDS.format(gpu=gpu, bare=bare))
    python.chmod(0o755)
    done = subprocess.run(
        ["bash", str(SESSION), str(tmp_path / "out"), "100"],
        env={"PATH": "/usr/bin:/bin", "PYTHON": str(python), "LOG": str(tmp_path / "log")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done, tmp_path / "out"


def test_a_machine_without_a_gpu_is_told(tmp_path):
    done, out = session(tmp_path, gpu=1)
    assert done.returncode == 3
    assert "sees no CUDA device" in done.stderr
    assert not out.exists()


def test_all_steps_run_and_the_summary_has_them(tmp_path):
    done, out = session(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = (out / "summary.md").read_text()
    assert "a card, torch 2" in summary
    for line in (r"doctor \| passed \(3\)", r"tests \| passed", r"gate \| passed", r"imagenet \| passed \(130\)"):
        assert re.search(rf"^\| {line} \| \d+ \| .+ \|$", summary, re.MULTILINE), line
    assert "| stopped / by time |" in summary  # a bar in the last line does not break the table
    with tarfile.open(out / "runs.tar.gz") as runs:
        assert "./gate/report.md" in runs.getnames()


def test_the_steps_together_have_the_time_of_the_session(tmp_path):
    done, _ = session(tmp_path)
    limits = re.findall(r"^== \w+ \(at most (\d+) s\)$", done.stdout, re.MULTILINE)
    assert len(limits) == 6
    assert sum(map(int, limits)) <= 100


def test_a_step_that_fails_fails_the_session_and_the_others_run(tmp_path):
    done, out = session(tmp_path, bare=1)
    assert done.returncode == 1
    summary = (out / "summary.md").read_text()
    assert "| bare_loop | failed (1) |" in summary
    assert "| imagenet | passed (130) |" in summary


@pytest.mark.parametrize("command", ["run", "gate"])
def test_the_options_that_it_gives_exist(command):
    import importlib

    text = SESSION.read_text().replace("\\\n", " ")
    known = inspect.signature(importlib.import_module(f"archbench.cli.{command}_command").command).parameters
    lines = [line for line in text.splitlines() if f"-m archbench {command} " in line]
    assert lines
    for line in lines:
        for option in re.findall(r"--([a-z-]+)", line.partition("-m archbench")[2]):
            assert option.replace("-", "_") in known, f"{command} has no --{option}"
