"""Which statements of archbench run on a CUDA device alone, and which of them have run.

They are found by reading: all that is in the functions of a few files, the CUDA side of every branch on the kind of
device, and whatever names `torch.cuda`. With CUDA_LINES=FILE in the environment, `sitecustomize` has every process note
there each of them that it reaches, once: `archbench/device/cuda.py: Cuda.use: _cuda().set_device(device)`.
"""

from __future__ import annotations

import ast
import builtins
import importlib.machinery
import os
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

ROOT = Path(__file__).parents[2]
WHOLE = ("device/cuda.py", "device/nvml.py", "device/visible.py", "device/gpu_checks.py")
"""Files that are about nothing but CUDA devices."""
MEANS_CUDA = ("records_graphs", "own_clock")
"""Attributes that are true of CUDA devices alone."""
NONE_ON_CPU = ("allocator", "_allocator", "activity", "stopwatch", "own")
"""Names of what is None on the CPU."""


class Finder:
    """The CUDA statements of one file, in order; `mark` makes each say that it has been reached."""

    def __init__(self, path: Path, *, mark: bool = False) -> None:
        self._file = path.relative_to(ROOT).as_posix()
        self._whole = self._file.removeprefix("archbench/") in WHOLE
        self._mark = mark
        self.found: list[str] = []
        self.tree = ast.parse(path.read_text())
        self._body(self.tree.body, (), False)

    def _body(self, body: list[ast.stmt], scope: tuple[str, ...], cuda: bool) -> None:
        for statement in list(body):
            if self._statement(statement, scope, cuda, body):
                cuda = True  # a branch that left was the CPU's: the rest is CUDA's

    def _statement(self, statement: ast.stmt, scope: tuple[str, ...], cuda: bool, body: list[ast.stmt]) -> bool:
        """Look at a statement and into it; true if all that follows it in its block is for CUDA alone."""
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            inside = isinstance(statement, ast.FunctionDef) and self._whole
            self._body(statement.body, (*scope, statement.name), cuda or inside)
            return False
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            return False  # a docstring, or a stub's dots
        head = ast.unparse(statement).splitlines()[0]
        if (cuda or (scope and "torch.cuda" in head)) and not isinstance(statement, (ast.Import, ast.ImportFrom)):
            line = f"{self._file}: {'.'.join(scope)}: {head}"
            if line not in self.found:
                self.found.append(line)
            if self._mark:
                call = ast.parse(f"__cuda_line__({line!r})").body[0]
                body.insert(body.index(statement), ast.copy_location(call, statement))
                ast.fix_missing_locations(call)
        side = side_of(statement.test) if isinstance(statement, ast.If) else None
        for name in ("body", "orelse", "finalbody"):
            belongs = cuda or side == ("cuda" if name == "body" else "cpu")
            self._body(getattr(statement, name, []), scope, belongs)
        for part in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
            self._body(part.body, scope, cuda)
        leaves = isinstance(statement, ast.If) and isinstance(statement.body[-1], (ast.Return, ast.Raise, ast.Continue))
        return side == "cpu" and leaves


def side_of(test: ast.expr) -> str | None:
    """For which kind of device alone a condition holds; the other side of the branch is the other's."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return {"cuda": "cpu", "cpu": "cuda", None: None}[side_of(test.operand)]
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return next((side for part in test.values if (side := side_of(part)) == "cuda"), None)
    if isinstance(test, ast.Attribute) and test.attr in MEANS_CUDA:
        return "cuda"
    if not (isinstance(test, ast.Compare) and isinstance(test.comparators[0], ast.Constant)):
        return None
    word, same = test.comparators[0].value, isinstance(test.ops[0], (ast.Eq, ast.Is))
    name = ast.unparse(test.left).rpartition(".")[2]
    if word in ("cuda", "cpu"):
        return "cuda" if (word == "cuda") == same else "cpu"
    return ("cpu" if same else "cuda") if word is None and name in NONE_ON_CPU else None


def all_lines() -> Iterator[str]:
    """Every CUDA statement of the package."""
    for path in sorted((ROOT / "archbench").rglob("*.py")):
        yield from Finder(path).found


class Loader(importlib.machinery.SourceFileLoader):
    """Loads a module whose CUDA statements say that they have been reached."""

    def get_code(self, fullname: str) -> CodeType:
        path = Path(self.get_filename(fullname))
        return compile(Finder(path, mark=True).tree, str(path), "exec")


def note_to(file: str) -> None:
    """From here on what is reached is written to that file; whatever kills the process does not lose it."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
    seen: set[str] = set()

    def reached(line: str) -> None:
        if line not in seen:
            seen.add(line)
            os.write(descriptor, f"{line}\n".encode())

    builtins.__cuda_line__ = reached  # type: ignore[attr-defined]
