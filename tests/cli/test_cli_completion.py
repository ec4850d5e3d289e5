"""Tab completion of the command line, asked for as bash asks for it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from archbench.cli import COMMANDS, app


def completed(*words: str) -> list[str]:
    """What bash is offered for the last of these words."""
    asked = {"COMP_WORDS": shlex.join(["archbench", *words]), "COMP_CWORD": str(len(words))}
    done = CliRunner().invoke(app, [], env={**asked, "_ARCHBENCH_COMPLETE": "complete_bash"}, prog_name="archbench")
    assert done.exit_code == 0
    return done.stdout.split("\n")[:-1]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_every_command_completes(command: str) -> None:
    options = {
        name
        for parameter in get_command(app).commands[command].params  # type: ignore[attr-defined]
        for name in parameter.opts
        if name.startswith("--")
    }
    assert options <= set(completed(command, "--"))


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("pick", "--where", "ye"), ["year"]),
        (("pick", "--where", "top1 >= 76 and dep"), ["top1 >= 76 and depth"]),
        (("pick", "--minimize", "latency_p9"), ["latency_p90_s", "latency_p95_s", "latency_p99_s"]),
        (("pick", "--across", "thr"), ["threads"]),
        (("list", "--where", "params < 10M and ye"), ["params < 10M and year"]),
        (("list", "--sort", "dep"), ["depth"]),
        (("show", "convnext_t"), ["convnext_tiny"]),
        (("run", "alexnet_"), ["alexnet_2012"]),
        (("run", "resnet50", "--device", "c"), ["cpu", "cuda"]),
        (("run", "--retry-"), ["--retry-failed", "--retry-suspect"]),
    ],
)
def test_words_complete(words: tuple[str, ...], offered: list[str]) -> None:
    found = completed(*words)
    assert set(offered) <= set(found)
    assert all(one.startswith(words[-1]) for one in found)


def test_suite_files_complete_beside_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "small.yaml").write_text("")
    (tmp_path / "suites" / "notes.txt").write_text("")
    assert completed("run", "sui") == ["suites/"]
    assert completed("run", "suites/") == ["suites/small.yaml"]
