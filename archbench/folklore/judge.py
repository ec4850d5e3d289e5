"""From claims and figures to verdicts. Nothing here knows a claim: a verdict is what its expressions say today."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from msgspec import Struct

from archbench.folklore.claim import Claim, Claims, placeholders
from archbench.folklore.formula import Compared, Figures, Formula
from archbench.folklore.sources import PUBLISHED, MissingError, Situation, Sources, is_measured
from archbench.model.units import plain

Ruling = Literal["confirmed", "refuted", "depends", "not measurable"]
RULINGS: tuple[Ruling, ...] = get_args(Ruling)


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
    """A claim and its verdict."""

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


def judge(claims: Claims, sources: Sources) -> list[Judged]:
    """Every claim, in the order of the file."""
    return [judge_one(claim, sources) for claim in claims.claims]


def judge_one(claim: Claim, sources: Sources) -> Judged:
    """One claim's verdict."""
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
    try:
        situations = sources.situations(formula.terms, claim.where)
        return [_judgement(claim, aspect, formula, sources, situation) for situation in situations]
    except MissingError as missing:
        return [Judgement(aspect=aspect, missing=str(missing), command=missing.command)]


def _judgement(claim: Claim, aspect: str, formula: Formula, sources: Sources, situation: Situation) -> Judgement:
    figures = sources.figures(formula.terms, situation)
    holds, compared = formula.judged(figures, claim.tolerance)
    return Judgement(
        aspect=aspect,
        setting=situation.text,
        hardware_class=dict(situation.values).get("hardware_class"),
        holds=holds,
        compared=tuple(compared),
        figures=tuple(_named(figures)),
    )


def _named(figures: Figures) -> Iterable[Named]:
    for term, one in figures.items():
        value = one.value if math.isfinite(one.value) else None
        yield Named(term=term.text, value=value, low=one.low, high=one.high, origin=one.origin)


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
    for expression, unit in placeholders(text):
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
