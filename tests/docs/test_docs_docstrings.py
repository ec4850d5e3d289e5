"""What a docstring says of a parameter is said of one that the signature has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from archbench import options

PACKAGE = Path(__file__).parents[2] / "archbench"
SUBJECT = re.compile(
    r"(?:^|[.;] |- |, )(`[a-z_]\w*`(?:, `[a-z_]\w*`)*):? (?:is|are|gives?|takes?|tells|bears|makes|builds)\b"
)
LISTED = re.compile(r"^\s*(?:- )?((?:`[a-z_]\w*`(?:, )?)+): ", re.MULTILINE)
"""Where a sentence or a line begins with a name in backticks, it explains that name: a parameter, mostly."""
Owner = ast.FunctionDef | ast.ClassDef


def explained(docstring: str) -> Iterator[str]:
    """Names that sentences or lines of a docstring are about."""
    flat = re.sub(r"\s*\n\s*", " ", docstring)
    for names in (*SUBJECT.findall(flat), *LISTED.findall(docstring)):
        yield from re.findall(r"\w+", names)


def known(owner: Owner) -> set[str]:
    """Parameters of a function, of a class's methods too; fields, and words that are values of theirs.

    Those of a function that takes the options of a class are that class's fields.
    """
    found = {node.name for node in ast.walk(owner) if isinstance(node, Owner)}
    for node in ast.walk(owner):
        for field in ("arg", "attr", "id"):
            found.add(getattr(node, field, "") or "")
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "keywords":
            found |= {one.name for one in fields(getattr(options, node.args[0].id))}  # type: ignore[attr-defined]
    return found


def unknown(source: str, elsewhere: frozenset[str] = frozenset()) -> list[tuple[str, str]]:
    """Owner and name of what is explained and does not exist, in its module or as a function `elsewhere`."""
    tree = ast.parse(source)
    owners = [node for node in ast.walk(tree) if isinstance(node, Owner)]
    found = [(owner, name) for owner in owners for name in explained(ast.get_docstring(owner) or "")]
    module = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    there = module | elsewhere | {owner.name for owner in owners}
    return [(owner.name, name) for owner, name in found if name not in known(owner) | there]


def functions(source: str) -> Iterator[str]:
    """Names of a module's own functions and classes."""
    return (node.name for node in ast.parse(source).body if isinstance(node, Owner))


def test_every_name_that_a_docstring_explains_exists() -> None:
    sources = {path: path.read_text() for path in PACKAGE.rglob("*.py")}
    elsewhere = frozenset(name for source in sources.values() for name in functions(source))
    found = {path: wrong for path, source in sources.items() if (wrong := unknown(source, elsewhere))}
    assert found == {}


def test_a_parameter_that_went_is_found() -> None:
    source = """
def report(run, *, style):
    '''Render it. `formats` are `md` or `html`; `style` is one of ours.

    - `run`, `gone`: a run's folder.
    '''
"""
    assert unknown(source) == [("report", "formats"), ("report", "gone")]
