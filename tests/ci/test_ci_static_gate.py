"""`archbench gate --static`: mistakes, and sides that have no archbench or an old one."""

from __future__ import annotations

import sys

import pytest

SUITE = "suite: tiny\narchitectures: [lenet5]\n"


@pytest.fixture
def gate(tmp_path, monkeypatch, capsys):
    from archbench.cli import main

    (tmp_path / "tiny.yaml").write_text(SUITE)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["gate", "tiny.yaml", "--static", "--device", "cpu", *map(str, arguments)])
        told = capsys.readouterr()
        assert told.out == ""
        (line,) = told.err.splitlines()
        return ended.value.code, line

    return run


def interpreter(place, script):
    place.write_text(f"#!/usr/bin/env bash\n{script}\n")
    place.chmod(0o755)
    return place


def test_options_about_times_are_refused(gate):
    assert gate("--base", sys.executable, "--aa") == (
        2,
        "archbench: --aa is about times, and --static takes none; leave it away",
    )
    code, line = gate("--base", sys.executable, "--head", sys.executable, "--max-time", "5m")
    assert (code, "--max-time is about times" in line) == (2, True)


@pytest.mark.parametrize(
    ("script", "code", "says"),
    [
        ("echo '/usr/bin/python: No module named archbench' >&2; exit 1", 3, "has no archbench; install it there"),
        ("echo '│ No such option: --static │' >&2; exit 2", 2, "older than --static"),
        ("echo 'archbench: resnet5O: unknown' >&2; exit 2", 2, "resnet5O: unknown"),
        ("exit 7", 3, "exit code 7"),
    ],
)
def test_a_side_that_cannot_is_named_with_what_it_said(gate, tmp_path, script, code, says):
    base = interpreter(tmp_path / "python-base", script)
    ended, line = gate("--base", base, "--head", sys.executable)
    assert ended == code
    assert line.startswith(f"archbench: --base {base}: ")
    assert says in line
