"""Every command in the README and the docs is one that works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import archbench.pytest_plugin.suites  # the pytest inside forgets what it imports

pytest_plugins = ["pytester"]
ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LIGHT = ("list", "show", "fits", "plan", "schema", "--help", "--install-completion")


def commands():
    for page in PAGES:
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            for line in block.splitlines():
                if line.strip():
                    yield pytest.param(line.strip(), id=f"{page.name}: {line.strip()[:60]}")


def words_of(line):
    return shlex.split(line.partition(" > ")[0], comments=True)


@pytest.mark.parametrize("line", list(commands()))
def test_a_command_of_the_docs(line, command, monkeypatch, request):
    words = words_of(line)
    if words[0] == "pytest":
        pytester = request.getfixturevalue("pytester")
        monkeypatch.chdir(ROOT)
        collect(pytester, words[1:])
        return
    if words[0] != "archbench":
        # The two lines for a fresh clone: continuous integration does what they do; here their parts are looked at.
        assert words[:3] == ["python3", "-m", "venv"]
        assert re.search(r"pip install -e (\.|'\.\[(test|plots)\]')", line)
        for suite in re.findall(r"suites/\S+", line):
            assert (ROOT / suite).is_file()
        return
    if words[1] == "run":
        plan(words[2:])
    elif words[1] in ("gate", "duel"):
        gate_or_duel(words[1], words[2:])
    elif words[1] in LIGHT or words[1] == "doctor":
        monkeypatch.chdir(ROOT)
        done = command(*words[1:])
        assert done.returncode in ((0, 3) if words[1] == "doctor" else (0,)), done.stderr
        assert done.stdout
    else:
        assert words[1] in known_commands(), f"{line}: no such command"


def collect(pytester, words):
    """What pytest would run: the plugin's own tests do run such suites."""
    plugins = [word for name in ("cacheprovider", "hypothesispytest", "anyio") for word in ("-p", f"no:{name}")]
    done = pytester.runpytest_inprocess(*words, "--collect-only", "-q", *plugins)
    assert done.ret == 0, done.stdout.str() + done.stderr.str()
    assert "@batch_size=" in done.stdout.str()


def plan(words):
    """What `run` would do before it measures: the suite or the names are understood, and there is something to do."""
    from archbench.model.axes import TOGGLES

    axes = ("batch_size", "phase", *TOGGLES, "input_size")
    given, names = {}, []
    rest = iter(words)
    for word in rest:
        if word.startswith("--"):
            given[word.removeprefix("--").replace("-", "_")] = next(rest)
        else:
            names.append(str(ROOT / word) if word.startswith("suites/") else word)
    assert archbench.plan(names, **{k: v for k, v in given.items() if k in axes}, device="cpu").cells
    assert set(given) <= {*axes, "device", "only", "rounds", "out", "metrics", "images", "budget"}


def gate_or_duel(command, words):
    """What they would do before they measure: options, suite, sides and cells are understood."""
    from typer.core import TyperGroup
    from typer.main import get_command

    from archbench.cli import app
    from archbench.comparison.sides import Project, read_side
    from archbench.query.quantity import seconds_of
    from archbench.suite import load_suite
    from archbench.suite.cells import parse_cell
    from archbench.suite.plan import make_plan

    group = get_command(app)
    assert isinstance(group, TyperGroup)
    options = group.commands[command].make_context(command, words).params
    if options["max_time"]:
        assert seconds_of(options["max_time"], "--max-time")
    if command == "duel":
        assert len({parse_cell(text, "cpu").cell_id for text in options["cells"]}) >= 2
        return
    suite = ROOT / options["what"]
    if suite.exists():  # else it stands for the reader's own
        assert make_plan(load_suite(suite), "cpu").cells
    for word in {options["base"], options["head"]} - {None, "python", "HEAD^"}:  # which depend on where one stands
        read_side(word, "--base", Project(root=ROOT, prefix=""))


def known_commands():
    from archbench.cli import COMMANDS

    return COMMANDS


def test_the_readme_lists_every_suite():
    from archbench.suite import load_suite

    text = (ROOT / "README.md").read_text()
    for path in (ROOT / "suites").glob("*.yaml"):
        assert f"`{path.stem}`" in text, f"the README does not name {path.name}"
        assert load_suite(path).suite == path.stem
