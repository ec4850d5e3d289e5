"""Claims as data, and their verdicts: `claims.yaml` in the package, or a file of the user's in the same form.

Nothing here knows a claim: a verdict is what its expressions say today.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal, get_args

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from archbench.folklore.formula import Compared, Formula
from archbench.folklore.sources import PUBLISHED, MissingError, Situation, Sources, check_term, is_measured
from archbench.model.errors import UsageError
from archbench.model.units import plain
from archbench.query.expression import Expression
from archbench.query.parsing import parse
from archbench.suite.document import Document, ValuePath, read_document

OWN = Path(__file__).with_name("claims.yaml")
Kind = Literal["arithmetic", "counted", "measured", "trained", "published"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Ruling = Literal["confirmed", "refuted", "depends", "not measurable"]
RULINGS: tuple[Ruling, ...] = get_args(Ruling)


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
    """A file of claims as its YAML has it, which `docs/claims.md` explains."""

    sources: dict[str, Source]
    """By the beginning of a claim's id, up to the dot."""
    facts: dict[str, Fact] = {}
    claims: list[Entry]


class Claim(Entry, frozen=True, kw_only=True):
    """An entry whose expressions have been read, with the source that it is from."""

    source: Source
    aspects: dict[str, Formula]
    """By what each looks at, empty for the only one; none where nothing here can judge the claim."""
    conditions: tuple[Expression, ...]
    """What stands under `where`."""


class Claims(Struct, frozen=True, kw_only=True):
    """All claims of a file, with the facts that they refer to."""

    claims: tuple[Claim, ...]
    facts: dict[str, Fact]


class Named(Struct, frozen=True, kw_only=True):
    """One figure that decided."""

    term: str
    value: float | None
    """`None` where it is not finite: a training that diverged."""
    low: float | None
    high: float | None
    origin: str


class Judgement(Struct, frozen=True, kw_only=True):
    """What one expression says under one setting."""

    aspect: str
    """`by MACs`; empty for a claim's only one."""
    setting: str = ""
    hardware_class: str | None = None
    holds: bool | None = None
    """`None`: the figures are missing, or their intervals leave it open."""
    compared: tuple[Compared, ...] = ()
    figures: tuple[Named, ...] = ()
    missing: str | None = None
    command: str | None = None
    """What would bring what is missing."""


class Judged(Struct, frozen=True, kw_only=True):
    """A claim with its verdict, as `archbench.claims` gives it."""

    id: str
    statement: str
    kind: str
    source: str
    url: str | None
    """Of the source."""
    verdict: Ruling
    why: str
    """What decides it, in one sentence: figures, what it depends on, or what is missing."""
    right: str | None
    """What is right where the source is not, with today's figures."""
    tolerance: float
    because: str | None
    judgements: tuple[Judgement, ...]

    @property
    def commands(self) -> list[str]:
        """What would bring what is missing."""
        return list(dict.fromkeys(one.command for one in self.judgements if one.command))


def read_claims(path: Path = OWN) -> Claims:
    """Read a file of claims. Raises `UsageError` with file, line and column for the first mistake."""
    document = read_document(path)
    try:
        file = msgspec.convert(document.value, File)
    except msgspec.ValidationError as error:
        # As in `Expected int - at `$.claims[3].kind``.
        what, _, at = str(error).partition(" - at `$")
        steps = (name or int(number) for name, number in re.findall(r"\.(\w+)|\[(\d+)\]", at))
        raise document.error(tuple(steps), what) from None
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

    def known(text: str, *, compares: bool) -> Formula:
        formula = Formula(text)
        if compares and not formula.compares:
            raise UsageError(f"{text!r} is a number; compare it with one, as in ... >= 100")
        for term in formula.terms:
            check_term(term, file.facts)
        return formula

    one = isinstance(entry.holds, str)
    written = {"": entry.holds} if isinstance(entry.holds, str) else entry.holds or {}
    aspects: dict[str, Formula] = {}
    place = path
    try:
        for name, text in written.items():
            place = (*path, "holds") if one else (*path, "holds", name)
            aspects[name] = known(text, compares=True)
        place = (*path, "where")
        conditions = tuple(parse(text) for text in entry.where)
        place = (*path, "right")
        for expression, _ in _placeholders(entry.right or ""):
            known(expression, compares=False)
    except UsageError as error:
        raise document.error(place, str(error)) from None
    return Claim(**asdict(entry), source=source, aspects=aspects, conditions=conditions)


def _placeholders(text: str) -> list[tuple[str, str]]:
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


def judge(claims: Claims, sources: Sources) -> list[Judged]:
    """Every claim, in the order of the file."""
    return [judge_one(claim, sources) for claim in claims.claims]


def judge_one(claim: Claim, sources: Sources) -> Judged:
    """One claim judged by what the sources have; a figure that is missing is said in `why`, and no error."""
    found = [one for name, formula in claim.aspects.items() for one in _judgements(claim, name, formula, sources)]
    verdict, why = (_ruled(found)) if claim.not_measurable is None else ("not measurable", claim.not_measurable)
    return Judged(
        id=claim.id,
        statement=claim.says,
        kind=claim.kind,
        source=claim.source.title,
        url=claim.source.url,
        verdict=verdict,  # type: ignore[arg-type]
        why=why,
        right=None if claim.right is None else _filled(claim.right, sources),
        tolerance=claim.tolerance,
        because=claim.because,
        judgements=tuple(found),
    )


def _judgements(claim: Claim, aspect: str, formula: Formula, sources: Sources) -> list[Judgement]:
    """One for each setting under which all that it asks for was measured."""
    found = []
    try:
        for situation in sources.situations(formula.terms, claim.conditions):
            figures = sources.figures(formula.terms, situation)
            holds, compared = formula.judged(figures, claim.tolerance)
            finite = {term: one.value if math.isfinite(one.value) else None for term, one in figures.items()}
            named = (
                Named(term=term.text, value=finite[term], low=one.low, high=one.high, origin=one.origin)
                for term, one in figures.items()
            )
            found.append(
                Judgement(
                    aspect=aspect,
                    setting=situation.text,
                    hardware_class=dict(situation.values).get("hardware_class"),
                    holds=holds,
                    compared=tuple(compared),
                    figures=tuple(named),
                )
            )
    except MissingError as missing:
        return [Judgement(aspect=aspect, missing=str(missing), command=missing.command)]
    return found


def _ruled(found: Sequence[Judgement]) -> tuple[Ruling, str]:
    """The verdict and its reason. What one aspect leaves open keeps the whole from being settled."""
    by_aspect: dict[str, list[Judgement]] = {}
    for one in found:
        by_aspect.setdefault(one.aspect, []).append(one)
    truths = {one.holds for one in found} - {None}
    told = "; ".join(_told(aspect, each) for aspect, each in by_aspect.items())
    if truths == {True, False}:
        return "depends", told
    if not truths or any(all(one.holds is None for one in each) for each in by_aspect.values()):
        return "not measurable", told
    return ("confirmed" if truths == {True} else "refuted"), told


def _told(aspect: str, found: Sequence[Judgement]) -> str:
    """`by MACs yes: macs(resnet152) / macs(vgg16) = 0.744 (< 1)`."""
    lead = f"{aspect} " if aspect else ""
    if found[0].missing is not None:
        return f"{lead}not known: {found[0].missing}"
    truths = [one.holds for one in found]
    answers = {True: "yes", False: "no", None: "open, since the intervals hold the bound,"}
    if len(found) == 1:
        return f"{lead}{answers[truths[0]].strip(',')}: {figures_of(found[0])}"
    if len(set(truths)) == 1:
        return (
            f"{lead}{answers[truths[0]]} under all {len(found)} settings: {figures_of(found[0])} ({found[0].setting})"
        )
    counts = ((truths.count(truth), word) for truth, word in ((True, "yes"), (False, "no"), (None, "open")))
    split = ", ".join(f"{word} under {count}" for count, word in counts if count)
    examples = "; ".join(
        f"{word} at {one.setting}: {figures_of(one)}"
        for word, truth in (("yes", True), ("no", False))
        if (one := next((each for each in found if each.holds is truth), None)) is not None
    )
    return f"{lead}{split} of {len(found)} settings{_divider(found)}; {examples}"


def _divider(found: Sequence[Judgement]) -> str:
    """The part of the setting that alone tells yes from no, where one does."""
    if {True, False} - {one.holds for one in found}:
        return ""
    parts = [one.setting.split(", ") for one in found]
    for place in range(min(map(len, parts), default=0)):
        by_value: dict[str, set[bool | None]] = {}
        for words, one in zip(parts, found, strict=True):
            by_value.setdefault(words[place], set()).add(one.holds)
        if len(by_value) > 1 and all(len(truths) == 1 for truths in by_value.values()):
            yes = [value for value, truths in by_value.items() if truths == {True}]
            return f", yes with {' and '.join(yes)} alone"
    return ""


def figures_of(one: Judgement) -> str:
    """The comparisons that decided: those that fail where it does not hold, all where it does."""
    shown = [each for each in one.compared if one.holds or not each.holds] or list(one.compared)
    return ", ".join(map(_comparison, shown))


def _comparison(one: Compared) -> str:
    interval = "" if one.low is None or one.high is None else f" [{short(one.low)}, {short(one.high)}]"
    bound = one.bound_text if _is_number(one.bound_text) else f"{one.bound_text} = {short(one.bound)}"
    return f"{one.text} = {short(one.value)}{interval} ({one.relation} {bound})"


def short(value: float) -> str:
    """A figure of any size in a few characters: `4.09 G`, `25.6 M`, `0.744`; what diverged as that."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "without bound"
    for size, unit in ((1e9, " G"), (1e6, " M")):
        if size <= abs(value) < 1e12:
            return f"{plain(value / size)}{unit}"
    return f"{value:,.0f}" if value == round(value) and abs(value) < 1e6 else plain(value)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _filled(text: str, sources: Sources) -> str:
    """`text` with today's figures in the place of its expressions, and where the published ones of them are from."""
    published: dict[str, None] = {}
    for expression, unit in _placeholders(text):
        formula = Formula(expression)
        try:
            figures = sources.figures(formula.terms, Situation())
            published |= {one.origin: None for term, one in figures.items() if term.function in PUBLISHED}
            value = formula.value(figures)
            size = {"G": 1e9, "M": 1e6, "%": 0.01, "": 1.0}[unit]
            shown = f"{plain(value / size)}{f' {unit}' if unit else ''}" if unit else short(value)
        except MissingError as missing:
            shown = f"(not known: {missing})"
        text = text.replace("{" + expression + (f":{unit}" if unit else "") + "}", shown, 1)
    return f"{text} From: {'; '.join(published)}." if published else text


def measured_alone(claim: Claim) -> bool:
    """Whether some of it is judged by stored rows: what belongs into a run's own report."""
    return any(is_measured(term) for formula in claim.aspects.values() for term in formula.terms)
