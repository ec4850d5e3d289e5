"""What nobody means to type, and what lies in a folder by accident: one line, exit 2, and no code run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from builders import make_record, make_run
from hypothesis import example, given, settings
from hypothesis import strategies as st

from archbench.cli import main

NESTED = "[" * 100_000


def archbench(*words: str | bytes, cwd: Path, **env: str) -> subprocess.CompletedProcess[bytes]:
    command: Sequence[str | bytes] = [sys.executable, "-P", "-m", "archbench", *words]
    return subprocess.run(command, cwd=cwd, env={**os.environ, **env}, capture_output=True, timeout=120)


def ended(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code, and all that the command said."""
    with pytest.raises(SystemExit) as caught:
        main(words)
    said = capsys.readouterr()
    return int(caught.value.code or 0), said.out + said.err


COMMANDS: tuple[tuple[str, ...], ...] = (
    ("run", "{}", "--only", "x"),
    ("plan", "{}"),
    ("plan", "resnet18", "--batch-size", "{}"),
    ("plan", "resnet18", "--precision", "{}"),
    ("plan", "resnet18", "--only", "{}"),
    ("show", "{}"),
    ("show", "resnet18", "--option", "{}"),
    ("show", "resnet18", "--option", "norm={}"),
    ("show", "resnet18", "--head", "{}"),
    ("duel", "{}", "resnet18"),
    ("duel", "nonet[a={}]", "resnet18@batch_size=1"),
    ("pick", "{}"),
    ("pick", "RUN", "--where", "{}"),
    ("pick", "RUN", "--where", "{} > 3"),
    ("pick", "RUN", "--where", "family == {}"),
    ("pick", "RUN", "--minimize", "{}"),
    ("pick", "RUN", "--across", "{}"),
    ("report", "{}"),
    ("report", "RUN", "--format", "{}"),
    ("compare", "{}", "RUN"),
    ("compare", "RUN", "RUN", "--allow-different", "{}"),
    ("history", "{}"),
    ("list", "--where", "{}"),
    ("{}",),
    ("show", "resnet18", "--{}"),
)
HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07",
    "a\n::error::forged",
    "\r\x9b31m",
    "\ud800",
    "x\udcff",
    "\N{RIGHT-TO-LEFT OVERRIDE}gnp",
    NESTED,
    "{" * 5000,
    "(" * 5000,
    "not " * 2000,
    "9" * 400,
    "1e999",
    "nan",
    "'",
    "",
    "=",
    "%s%n{0}",
    "../../../../etc/passwd",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("words"), [make_record()])


def check_word(words: Sequence[str], run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = ended([str(run) if word == "RUN" else word for word in words], capsys)
    assert code in (0, 1, 2, 3), said
    assert "Traceback" not in said
    assert not any((ord(char) < 32 and char not in "\n\t") or "\x7f" <= char <= "\x9f" for char in said)
    assert not any(line.startswith("::error") for line in said.splitlines())
    said.encode()  # no half characters


@pytest.mark.parametrize("word", HOSTILE, ids=lambda word: ascii(word[:8]))
def test_hostile_words_end_in_a_line(
    word: str, run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        check_word([part.replace("{}", word) for part in command], run, capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(1500)
@given(number=st.integers(0, len(COMMANDS) - 1), word=st.text(max_size=60))
@example(number=10, word=NESTED)
@settings(max_examples=300, deadline=None)
def test_any_word_ends_in_a_line(number: int, word: str, run: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("any"))
        done = archbench(
            *(
                str(run) if part == "RUN" else part.replace("{}", word.replace("\0", "")).encode(errors="replace")
                for part in COMMANDS[number]
            ),
            cwd=Path.cwd(),
        )
    assert done.returncode in (0, 1, 2, 3)
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    "env", [{"PYTHONIOENCODING": "ascii"}, {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0"}], ids=str
)
def test_a_terminal_of_few_characters(run: Path, env: dict[str, str], tmp_path: Path) -> None:
    copy = make_run(tmp_path, [make_record(variant="réseau_中文_🦊", architecture="réseau_中文_🦊", cell_id="中文")])
    for words in (("pick", str(copy)), ("show", "réseau")):
        done = archbench(*words, cwd=tmp_path, **env)
        assert done.returncode in (0, 2), done.stderr
        assert b"Traceback" not in done.stderr


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    done = archbench("report", b"\xff\xfe", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"is not text in UTF-8" in done.stderr


_INTRUDERS = ("random.py", "statistics.py", "json.py", "typing.py", "numpy.py", "torch/__init__.py", "rich/__init__.py")


@pytest.fixture
def intruded(tmp_path: Path) -> Path:
    """What comes to be where one of the intruders in the current directory is imported."""
    path = tmp_path / "intruded"
    for name in _INTRUDERS:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"open({str(path)!r}, 'a').write(__file__)\nraise SystemExit('intruder')\n")
    return path


def test_files_of_the_current_directory_are_not_imported(tmp_path: Path, intruded: Path) -> None:
    """By the parent, the host, its children and the profiler; `python -m archbench` without `-P` included."""
    script = str(Path(sys.executable).with_name("archbench"))
    command = [script, "run", "lenet5", "--static", "--device", "cpu", "--out", "out"]
    # A directory of its own for the device's lock: tests that run beside this one need not wait for each other.
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert not intruded.exists()


def test_a_users_own_network_is_found_where_the_command_runs(tmp_path: Path, intruded: Path) -> None:
    """It may be called as a module of the standard library is, beside which it never comes first; nor do intruders
    where `show` builds a network and predicts its memory."""
    (tmp_path / "mynet.py").write_text("from torch import nn\ndef make():\n    return nn.Conv2d(3, 4, 3)\n")
    script = str(Path(sys.executable).with_name("archbench"))
    command = [script, "show", "mynet:make", "--batch-size", "2", "--allow-code", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert b'"params": 112' in done.stdout
    assert not intruded.exists()
    refused = subprocess.run(command[:3], cwd=tmp_path, capture_output=True, timeout=300, check=False)
    assert refused.returncode == 2
