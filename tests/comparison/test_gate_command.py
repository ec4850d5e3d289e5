"""`archbench gate` and `archbench duel` from outside: bad input in one line, and real networks with a real delay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

import pytest
from pyarrow.parquet import read_metadata
from test_sides import git

from archbench.cli import main
from archbench.cli.console import warnings_in_one_line
from archbench.comparison.sides import find_project
from archbench.gating import _sides, gate
from archbench.model.messages import MESSAGE_VERSION
from archbench.model.protocol import PROTOCOL_VERSION

SUITE = """\
suite: tiny
architectures: ["nets:convolution", "nets:pooled"]
axes: {batch_size: [2]}
protocol: {warmup_cap_s: 0.2, warmup_first_cell_s: 0.05, turns: 5, turn_s: 0.02}
"""
NETS = """\
import time

from torch import nn


class Delayed(nn.Module):
    def __init__(self, inner, share):
        super().__init__()
        self.inner, self.share = inner, share

    def forward(self, image):
        start = time.perf_counter()
        output = self.inner(image)
        end = time.perf_counter() + self.share * (time.perf_counter() - start)
        while time.perf_counter() < end:
            pass
        return output


def convolution():
    body = nn.Sequential(nn.Conv2d(3, 8, 5, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    return Delayed(body, DELAY)


def pooled():
    return nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(3, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


DELAY = 0.0
"""


def archbench(*words, cwd, **env):
    return subprocess.run(
        [sys.executable, "-m", "archbench", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "TMPDIR": str(cwd), **env},
        check=False,
    )


@pytest.fixture
def project(tmp_path):
    """Two commits: `fast`, and `slow`, in which one of two networks takes half as much again."""
    git("init", "-q", "-b", "main", cwd=tmp_path)
    (tmp_path / "tiny.yaml").write_text(SUITE)
    (tmp_path / "lenet.yaml").write_text("suite: lenet\narchitectures: [lenet5]\n")
    (tmp_path / "nets.py").write_text(NETS)
    git("add", ".", cwd=tmp_path)
    git("commit", "-qm", "fast", cwd=tmp_path)
    git("tag", "fast", cwd=tmp_path)
    (tmp_path / "nets.py").write_text(NETS.replace("DELAY = 0.0", "DELAY = 0.5"))
    git("commit", "-qam", "slow", cwd=tmp_path)
    git("tag", "slow", cwd=tmp_path)
    return tmp_path


@pytest.fixture
def run(project, monkeypatch, capsys):
    """Run a command in this process, in the project; give its exit code and what it wrote."""

    def run(*words):
        monkeypatch.chdir(project)
        monkeypatch.setattr(tempfile, "tempdir", str(project))  # where locks lie: of this test alone
        with pytest.raises(SystemExit) as end:
            main(words)
        wrote = capsys.readouterr()
        return end.value.code, wrote.out, wrote.err

    return run


def script(folder, name, text):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def greeting(message_version, protocol_version):
    return json.dumps(
        {
            "type": "ready",
            "message_version": message_version,
            "protocol_version": protocol_version,
            "archbench_version": "0.0.9",
        }
    )


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["lenet.yaml", "--base", "fast"], 2, "--head is missing"),
        (["lenet.yaml", "--base", "fast", "--head", "slow", "--aa"], 2, "leave --head away"),
        (["lenet.yaml", "--base", "fast", "--head", "no-such"], 2, "--head no-such: no such interpreter"),
        (["lenet.yaml", "--base", "/nowhere/python", "--head", "slow"], 2, "--base /nowhere/python: no such"),
        (["lenet.yaml", "--base", sys.executable, "--head", "slow"], 2, "give two interpreters, or two revisions"),
        (["lenet.yaml", "--base", "fast", "--head", "slow", "--max-time", "soon"], 2, "--max-time 'soon'"),
        (["lenet.yaml", "--base", "fast", "--head", "slow", "--max-time", "0s"], 2, "--max-time '0s'"),
        (["lenet.yaml", "--base", "fast", "--head", "slow", "--format", "jnuit"], 2, "junit"),
        (["lenet.yaml", "--base", "fast", "--head", "slow", "--only", "vgg*"], 2, "matches no cell"),
        (["tiny.yaml", "--base", "fast", "--head", "slow"], 2, "--allow-code"),
        (["missing.yaml", "--base", "fast", "--head", "slow"], 2, "missing.yaml"),
    ],
)
def test_bad_input_is_one_line(run, words, code, says):
    found, out, err = run("gate", *words)
    assert found == code
    assert says in err
    assert err.count("\n") == 1
    assert out == ""


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (f'exec {sys.executable} -S "$@"', "has no archbench; install this version there"),
        (f"echo '{greeting(MESSAGE_VERSION + 1, PROTOCOL_VERSION)}'; read line", "install the same version there"),
        (f"echo '{greeting(MESSAGE_VERSION, PROTOCOL_VERSION + 1)}'; read line", "install the same version there"),
        ("echo hello; read line", "no archbench worker"),
    ],
)
def test_an_interpreter_that_cannot_measure_is_unfit(run, project, program, says):
    python = script(project, "python-of-old", program)
    code, _, err = run("gate", "lenet.yaml", "--base", python, "--head", sys.executable, "--force")
    assert code == 3
    assert says in err.splitlines()[-1]
    assert "python-of-old" in err.splitlines()[-1]
    assert "Traceback" not in err


def test_uncommitted_changes_are_told_when_neither_side_has_them(project, capsys):
    (project / "nets.py").write_text(NETS)
    found = find_project(project)
    with warnings_in_one_line():
        _sides("fast", "slow", found)
    told = capsys.readouterr().err
    assert "nets.py changed since the last commit, and neither side has these changes" in told
    assert "--head . measures the tree as it is" in told
    assert told.count("\n") == 1
    with warnings_in_one_line():
        _sides("fast", ".", found)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_a_delay_between_two_revisions_is_found_and_the_other_network_is_not_blamed(project, monkeypatch):
    words = ["tiny.yaml", "--base", "fast", "--head", "slow", "--allow-code", "--force"]
    done = archbench("gate", *words, "--json", "--out", "g", cwd=project)
    assert done.returncode == 1, done.stderr
    result = json.loads((project / "g" / "comparison.json").read_text())
    verdicts = {cell["architecture"]: cell["verdict"] for cell in result["cells"]}
    assert verdicts["nets:convolution"] == "slower"
    assert verdicts["nets:pooled"] in ("same", "undecided", "faster")
    (slow,) = [cell for cell in result["cells"] if cell["verdict"] == "slower"]
    assert slow["ratio"] == pytest.approx(1.5, abs=0.5)
    assert slow["base"]["params"] == slow["head"]["params"] > 0
    assert json.loads(done.stdout)
    assert git("worktree", "list", cwd=project).count("\n") == 0
    played = read_metadata(project / "g" / "pairs.parquet").num_rows
    assert played >= 6
    assert not list((project / "g" / "pairs").iterdir())
    # The same command again measures nothing, and says the same.
    again = archbench("gate", *words, "--format", "junit", "--out", "g", cwd=project)
    assert again.returncode == 1
    assert "nets:convolution" in again.stdout
    # So does the function, which leaves the report as the command does.
    (project / "g" / "report.md").unlink()
    monkeypatch.chdir(project)
    found = gate("tiny.yaml", base="fast", head="slow", out="g", allow_code=True, force=True, progress=False)
    assert (found.place, found.exit_code()) == ("g", 1)
    assert "nets:convolution" in (project / "g" / "report.md").read_text()
    assert read_metadata(project / "g" / "pairs.parquet").num_rows == played


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["lenet5"], "needs two cells or more"),
        (["lenet5", "lenet5@batch_size=1"], "named twice"),
        (["lenet5", "lenet6@batch_size=2"], "unknown architecture 'lenet6'"),
        (["lenet5", "lenet5@batch=2"], "did you mean batch_size?"),
        (["lenet5", "lenet5@precision=tf32"], "TF32"),
        (["lenet5", "lenet5@batch_size=2", "--pairs", "2"], "--pairs 2 is out of range"),
        (["lenet5", "lenet5@batch_size=2", "--turns", "0"], "--turns 0 is out of range"),
        (["lenet5", "lenet5@batch_size=2", "--max-time", "-1m"], "--max-time"),
    ],
)
def test_bad_duels_are_one_line(run, words, says):
    code, out, err = run("duel", *words)
    assert code == 2
    assert says in err
    assert err.count("\n") == 1
    assert out == ""


@pytest.mark.slow
def test_a_duel_has_a_ratio_with_its_interval(tmp_path):
    words = ["lenet5@batch_size=4", "lenet5@batch_size=64", "--pairs", "3", "--turns", "4", "--force"]
    done = archbench("duel", *words, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    duel = json.loads(done.stdout)
    (rival,) = duel["rivals"]
    assert rival["verdict"] == "slower"
    assert 1 < rival["ci_low"] < rival["ratio"] < rival["ci_high"]
    assert len(duel["log_ratios"][0]) == duel["pairs"] == 3
    assert duel["duration_s"] > 0
