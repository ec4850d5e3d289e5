"""Claims as data: `claims.yaml` in the package, or a file of the user's in the same form, one entry a claim."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal, get_args

import msgspec
from msgspec import Struct

from archbench.folklore.formula import Formula
from archbench.folklore.sources import check_term
from archbench.model.errors import UsageError
from archbench.query.expression import Expression
from archbench.query.parsing import parse
from archbench.suite.document import Document, ValuePath, read_document

OWN = Path(__file__).with_name("claims.yaml")
Kind = Literal["arithmetic", "counted", "measured", "trained", "published"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Source(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A text that makes claims."""

    title: str
    url: str | None = None


class Fact(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A figure as somebody published it, which no table of the catalogue has."""

    value: float
    source: str


class Entry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One claim as it stands in the file."""

    id: str
    says: str
    """The statement in own words."""
    kind: Kind
    holds: str | dict[str, str] | None = None
    """The expression that is true where the claim is; several by what they look at (`by MACs`, `by latency`)."""
    where: list[str] = []
    """Conditions on the stored cells that may judge it, as of `pick`."""
    tolerance: float = 0.0
    """How far from equal `==` may be, as a share."""
    because: str | None = None
    """Why so far."""
    right: str | None = None
    """What is right where the source is not; `{expression}` stands for its value now, `{expression:G}` in units of 1e9.
    """
    not_measurable: str | None = None
    """Why nothing here can judge it."""


class File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole file."""

    sources: dict[str, Source]
    """By the beginning of a claim's id, up to the dot."""
    facts: dict[str, Fact] = {}
    claims: list[Entry]


class Claim(Struct, frozen=True, kw_only=True):
    """One claim, read."""

    id: str
    says: str
    source: Source
    kind: Kind
    aspects: dict[str, Formula]
    """By what each looks at, empty for the only one; none where nothing here can judge the claim."""
    where: tuple[Expression, ...]
    tolerance: float
    because: str | None
    right: str | None
    not_measurable: str | None


class Claims(Struct, frozen=True, kw_only=True):
    """All claims of a file, with the facts that they refer to."""

    claims: tuple[Claim, ...]
    facts: dict[str, Fact]


def read_claims(path: Path = OWN) -> Claims:
    """Read a file of claims. Raises `UsageError` with file, line and column for the first mistake."""
    document = read_document(path)
    try:
        file = msgspec.convert(document.value, File)
    except msgspec.ValidationError as error:
        raise document.error(*_place(str(error))) from None
    seen: set[str] = set()
    found = []
    for number, entry in enumerate(file.claims):
        if entry.id in seen:
            raise document.error(("claims", number, "id"), f"a second claim {entry.id!r}; give it an id of its own")
        seen.add(entry.id)
        found.append(_claim(entry, file, document, ("claims", number)))
    return Claims(claims=tuple(found), facts=file.facts)


@cache
def own_claims() -> Claims:
    """Those that archbench comes with: a report a run reads them, and a process makes many."""
    return read_claims(OWN)


def _claim(entry: Entry, file: File, document: Document, path: ValuePath) -> Claim:
    source = file.sources.get(entry.id.partition(".")[0])
    if source is None:
        raise document.error((*path, "id"), f"{entry.id!r} belongs to none of the sources {', '.join(file.sources)}")
    if (entry.holds is None) == (entry.not_measurable is None):
        raise document.error(path, "give either holds (an expression) or not_measurable (a reason)")
    if bool(entry.tolerance) != bool(entry.because):
        raise document.error(path, "a tolerance needs its reason (because), and a reason its tolerance")
    one = isinstance(entry.holds, str)
    written = {"": entry.holds} if isinstance(entry.holds, str) else entry.holds or {}
    aspects = {}
    for name, text in written.items():
        where = (*path, "holds") if one else (*path, "holds", name)
        try:
            aspects[name] = _formula(text, file)
        except UsageError as error:
            raise document.error(where, str(error)) from None
    try:
        conditions = tuple(parse(text) for text in entry.where)
    except UsageError as error:
        raise document.error((*path, "where"), str(error)) from None
    try:
        for expression, _ in placeholders(entry.right or ""):
            _terms_known(Formula(expression), file)
    except UsageError as error:
        raise document.error((*path, "right"), str(error)) from None
    return Claim(
        id=entry.id, says=entry.says, source=source, kind=entry.kind, aspects=aspects, where=conditions,
        tolerance=entry.tolerance, because=entry.because, right=entry.right, not_measurable=entry.not_measurable,
    )  # fmt: skip


def _formula(text: str, file: File) -> Formula:
    formula = Formula(text)
    if not formula.compares:
        raise UsageError(f"{text!r} is a number; compare it with one, as in ... >= 100")
    _terms_known(formula, file)
    return formula


def _terms_known(formula: Formula, file: File) -> None:
    for term in formula.terms:
        check_term(term, file.facts)


def placeholders(text: str) -> list[tuple[str, str]]:
    """The expressions in braces, each with what stands behind its colon (`G`, `M`, or nothing)."""
    found = []
    for piece in text.split("{")[1:]:
        inside, closed, _ = piece.partition("}")
        if not closed:
            raise UsageError(f"the brace before {piece[:20]!r} is never closed")
        expression, _, unit = inside.partition(":")
        if unit not in ("", "G", "M", "%"):
            raise UsageError(f"{{{inside}}}: {unit!r} is no unit; write G, M, % or nothing")
        found.append((expression, unit))
    return found


def _place(message: str) -> tuple[ValuePath, str]:
    """msgspec's `... - at `$.claims[3].kind`` as a path in the document and the rest of the message."""
    what, _, at = message.partition(" - at `$")
    steps: list[str | int] = []
    for step in at.rstrip("`").replace("[", ".[").split("."):
        if step.startswith("[") and step[1:-1].isdigit():
            steps.append(int(step[1:-1]))
        elif step and not step.startswith("["):
            steps.append(step)
    return tuple(steps), what
