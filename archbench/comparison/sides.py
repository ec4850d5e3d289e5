"""What `--base` and `--head` mean: a Python interpreter, a git revision of the project here, or its working tree."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from msgspec import Struct

from archbench.model.errors import UnfitError, UsageError

TREES = "trees"
"""Folder of a gate in which revisions are checked out while it runs."""
_SOURCE_FOLDERS = ("src", "")
"""Where projects keep their packages, below the folder that they are run from."""

Kind = Literal["interpreter", "revision", "worktree"]


class SideSpec(Struct, frozen=True, kw_only=True):
    """One side as the user named it, and what that turned out to be."""

    label: str
    """As given."""
    kind: Kind
    identity: str
    """An interpreter's path, a revision's commit, a hash of the working tree: equal for the same code."""
    described: str
    """For people: `/opt/a/bin/python`, `main (1a2b3c4d5e)`, `the working tree (1a2b3c4d5e, changed)`."""


class Project(Struct, frozen=True, kw_only=True):
    """The git repository of a directory."""

    root: Path
    prefix: str
    """The directory below the root, as git writes it: empty, or with a slash at its end."""


class SideRun(Struct, frozen=True, kw_only=True):
    """What a side's processes are started with."""

    python: str
    env: dict[str, str] | None
    """`None`: that of this process."""
    cwd: Path | None = None
    tree: Path | None = None
    """The checkout that its code comes from; `None` for an interpreter."""


def read_side(word: str, option: str, project: Project | None) -> SideSpec:
    """What a word means. `option` names it in messages.

    `.` and `worktree`: the project as it lies here, uncommitted changes included. A path to a file is an interpreter;
    otherwise a revision of the project goes before a command of that name.
    Raises `UsageError` for what is neither.
    """
    if word in (".", "worktree"):
        if project is None:
            raise UsageError(f"{option} {word}: this directory is in no git repository; go to the project under test")
        return _working_tree(word, project)
    path = Path(word).expanduser()
    if word and path.is_dir() and (os.sep in word or not (project and _commit(word, project))):
        raise UsageError(f"{option} {word}: is a directory; name an interpreter, such as {path / 'bin' / 'python'}")
    if path.is_file():
        return _interpreter(word, path, option)
    commit = _commit(word, project) if project else None
    if commit is not None:
        return SideSpec(label=word, kind="revision", identity=commit, described=f"{word} ({commit[:10]})")
    found = shutil.which(word)
    if found is not None and "python" in Path(found).name:
        return _interpreter(word, Path(found), option)
    here = f"revision of {project.root}" if project else "git repository is here for a revision"
    raise UsageError(f"{option} {word}: no such interpreter, and no such {here}; give a path to python, or a commit")


def find_project(directory: Path) -> Project | None:
    """The git repository that a directory belongs to; `None` where there is none, or no git."""
    root = _git(directory, "rev-parse", "--show-toplevel")
    if root is None:
        return None
    return Project(root=Path(root), prefix=_git(directory, "rev-parse", "--show-prefix") or "")


def uncommitted(project: Project) -> tuple[str, ...]:
    """Files that git follows and that differ from the commit, as git names them."""
    text = _git(project.root, "status", "--porcelain", "--untracked-files=no") or ""
    return tuple(line[3:] if line[2:3] == " " else line[2:] for line in text.splitlines())


def content_at(project: Project, side: SideSpec, path: str) -> str:
    """The text of a file (its path from the root) at a side's commit; empty where it is none, or lacks the file."""
    return (_git(project.root, "show", f"{side.identity}:{path}") or "") if side.kind == "revision" else ""


@contextmanager
def opened(spec: SideSpec, project: Project | None, folder: Path) -> Iterator[SideRun]:
    """Make a side's code available: a revision is checked out below `folder`, and gone again afterwards.

    Raises `UnfitError` where git cannot check it out.
    """
    if spec.kind == "interpreter":
        yield SideRun(python=spec.identity, env=dict(os.environ))
        return
    assert project is not None
    if spec.kind == "worktree":
        yield _run_in(project.root, project)
        return
    tree = (folder / TREES / spec.identity[:12]).absolute()
    if tree.exists():
        _git(project.root, "worktree", "remove", "--force", str(tree))
        shutil.rmtree(tree, ignore_errors=True)
    # Forced: git may still know the place, of a gate that was killed and whose directory is gone.
    done = _ran(project.root, "worktree", "add", "--detach", "--force", str(tree), spec.identity)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["git said nothing"])[-1]
        raise UnfitError(f"cannot check out {spec.described}: {last}")
    try:
        yield _run_in(tree, project)
    finally:
        _git(project.root, "worktree", "remove", "--force", str(tree))


def _run_in(tree: Path, project: Project) -> SideRun:
    """The interpreter as it is, but the tree's packages go before all that it would import otherwise."""
    below = tree / project.prefix
    places = dict.fromkeys(place / source for place in (below, tree) for source in _SOURCE_FOLDERS)
    first = [str(place) for place in places if place.is_dir()]
    path = os.pathsep.join([*first, *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTHONPATH": path}
    return SideRun(python=sys.executable, env=env, cwd=below if below.is_dir() else tree, tree=tree)


def _interpreter(word: str, path: Path, option: str) -> SideSpec:
    if not os.access(path, os.X_OK):
        raise UsageError(f"{option} {word}: is not executable, so it is no interpreter")
    place = str(path.absolute())  # not resolved: a virtual environment's python is a link to another one
    return SideSpec(label=word, kind="interpreter", identity=place, described=place)


def _working_tree(word: str, project: Project) -> SideSpec:
    commit = _commit("HEAD", project)
    digest = hashlib.sha256((commit or "").encode())
    difference = _git(project.root, "diff", "HEAD", "--binary") or ""
    others = (_git(project.root, "ls-files", "-z", "--others", "--exclude-standard") or "").split("\0")
    code = [name for name in others if name.endswith(".py")]  # results of ours lie there too, and are no code
    digest.update(difference.encode(errors="surrogateescape"))
    for name in code:
        digest.update(os.fsencode(name) + b"\0" + _content(project.root / name))
    state = f"{commit[:10] if commit else 'no commit yet'}{', changed' if difference or code else ''}"
    described = f"the working tree ({state})"
    return SideSpec(label=word, kind="worktree", identity=digest.hexdigest(), described=described)


def _content(path: Path) -> bytes:
    """A file's bytes; where it is a link to nowhere (an editor's lock is one) or gone by now, where that leads."""
    try:
        return path.read_bytes()
    except OSError:
        return os.fsencode(os.readlink(path)) if path.is_symlink() else b""


def _commit(word: str, project: Project) -> str | None:
    if word.startswith("-"):
        return None
    return _git(project.root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{word}^{{commit}}")


def _git(directory: Path, *arguments: str) -> str | None:
    """What git answers, without the newline at its end; `None` where it refuses or is not installed."""
    try:
        done = _ran(directory, *arguments)
    except FileNotFoundError:
        return None
    return done.stdout.rstrip("\n") if done.returncode == 0 else None


def _ran(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = ["git", "-C", str(directory), *arguments]
    # A difference holds files of any encoding.
    return subprocess.run(words, capture_output=True, text=True, errors="surrogateescape", check=False)
