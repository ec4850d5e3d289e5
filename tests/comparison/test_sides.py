"""What --base and --head mean: interpreters, revisions, the working tree; and what is said of anything else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from archbench.comparison.sides import find_project, opened, read_side, uncommitted
from archbench.model.errors import UnfitError, UsageError


def git(*arguments, cwd):
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=cwd, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """Two commits of nets.py, `first` and `main`."""
    root = tmp_path / "project"
    root.mkdir()
    git("init", "-q", "-b", "main", cwd=root)
    (root / "nets.py").write_text("SPEED = 1\n")
    git("add", ".", cwd=root)
    git("commit", "-qm", "one", cwd=root)
    git("tag", "first", cwd=root)
    (root / "nets.py").write_text("SPEED = 2\n")
    git("commit", "-qam", "two", cwd=root)
    return root


def side(word, repository, option="--base"):
    return read_side(word, option, find_project(repository))


def test_a_revision_is_its_commit(repository):
    found = side("first", repository)
    assert (found.kind, found.identity) == ("revision", git("rev-parse", "first", cwd=repository))
    assert found.described == f"first ({found.identity[:10]})"
    assert side(found.identity[:8], repository).identity == found.identity


def test_the_working_tree_is_known_by_its_content(repository):
    clean = side(".", repository)
    assert clean.kind == "worktree"
    assert "changed" not in clean.described
    assert side("worktree", repository).identity == clean.identity
    (repository / "nets.py").write_text("SPEED = 3\n")
    edited = side(".", repository)
    assert "changed" in edited.described
    assert edited.identity != clean.identity
    (repository / "more.py").write_text("")
    assert side(".", repository).identity != edited.identity
    before = side(".", repository).identity
    (repository / "results").mkdir()
    (repository / "results" / "gate.json").write_text("{}")
    assert side(".", repository).identity == before


def test_the_working_tree_may_hold_anything(repository):
    (repository / "nets.py").write_bytes("# Latin-1: \xe9\n".encode("latin-1"))
    before = side(".", repository).identity
    (repository / ".#f.py").symlink_to("somebody@host.4711")  # as Emacs marks a file with unsaved edits
    (repository / "netz\u00e9.py").write_text("SPEED = 1\n")
    between = side(".", repository).identity
    (repository / "netz\u00e9.py").write_text("SPEED = 2\n")
    assert len({before, between, side(".", repository).identity}) == 3


def test_worktrees_of_the_project_that_are_out_of_reach_are_left_registered(repository, tmp_path):
    away = tmp_path / "away"
    git("worktree", "add", "-q", "--detach", str(away), cwd=repository)
    away.rename(tmp_path / "unmounted")
    spec = side("first", repository)
    for _ in range(2):  # the second time git still knows the place of the first
        with opened(spec, find_project(repository), tmp_path / "g") as run:
            assert (run.tree / "nets.py").read_text() == "SPEED = 1\n"
    assert str(away) in git("worktree", "list", cwd=repository)


def test_changes_that_neither_side_has_are_told(repository):
    project = find_project(repository)
    assert project is not None
    assert uncommitted(project) == ()
    (repository / "nets.py").write_text("SPEED = 3\n")
    assert uncommitted(project) == ("nets.py",)


def test_an_interpreter_is_its_path_links_and_all(tmp_path):
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    found = read_side(str(link), "--base", None)
    assert (found.kind, found.identity) == ("interpreter", str(link))


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("no-such-branch", "no such interpreter, and no such revision"),
        ("/nowhere/bin/python", "no such interpreter"),
        ("--upload-pack=x", "no such interpreter"),
        ("", "no such interpreter"),
        ("/", "is a directory; name an interpreter"),
    ],
)
def test_anything_else_is_refused_in_one_line(repository, word, says):
    with pytest.raises(UsageError) as refusal:
        side(word, repository, "--head")
    assert says in str(refusal.value)
    assert str(refusal.value).startswith("--head")
    assert "\n" not in str(refusal.value)


def test_a_file_that_cannot_be_run_is_no_interpreter(tmp_path):
    (tmp_path / "python").write_text("")
    with pytest.raises(UsageError, match="not executable"):
        read_side(str(tmp_path / "python"), "--base", None)


def test_without_a_repository_there_are_no_revisions(tmp_path):
    assert find_project(tmp_path) is None
    for word in (".", "main"):
        with pytest.raises(UsageError, match="git repository"):
            read_side(word, "--base", None)


def imported(run):
    program = "import nets; print(nets.SPEED, nets.__file__)"
    done = subprocess.run([run.python, "-c", program], cwd=run.cwd, env=run.env, capture_output=True, text=True)
    return done.stdout.split()


@pytest.mark.parametrize("source", ["", "src"])
def test_each_side_imports_its_own_code(repository, tmp_path, source, monkeypatch):
    if source:
        (repository / "src").mkdir()
        git("mv", "nets.py", "src/nets.py", cwd=repository)
        git("commit", "-qm", "three", cwd=repository)
    monkeypatch.setenv("PYTHONPATH", str(repository))  # the project as installed for development
    project = find_project(repository)
    (repository / source / "nets.py").write_text("SPEED = 99\n")
    with opened(side("first", repository), project, tmp_path / "gate") as base:
        with opened(side("main", repository), project, tmp_path / "gate") as head:
            assert [imported(one)[0] for one in (base, head)] == ["1", "2"]
            assert imported(head)[1].startswith(str(head.tree))
        assert not head.tree.exists()
    with opened(side(".", repository), project, tmp_path / "gate") as here:
        assert imported(here)[0] == "99"
    assert git("worktree", "list", cwd=repository).count("\n") == 0, "nothing is left behind"
    assert os.environ["PYTHONPATH"] == str(repository)


def test_a_checkout_that_a_killed_gate_left_behind_is_made_anew(repository, tmp_path):
    project, spec = find_project(repository), side("first", repository)
    left = tmp_path / "gate" / "trees" / spec.identity[:12]
    git("worktree", "add", "--detach", str(left), spec.identity, cwd=repository)
    (left / "nets.py").write_text("SPEED = 77\n")
    with opened(spec, project, tmp_path / "gate") as run:
        assert imported(run)[0] == "1"


def test_what_git_refuses_is_told(repository, tmp_path):
    (tmp_path / "gate").write_text("a file where a folder should be")
    with (
        pytest.raises(UnfitError, match="cannot check out first"),
        opened(side("first", repository), find_project(repository), tmp_path / "gate"),
    ):
        pass
