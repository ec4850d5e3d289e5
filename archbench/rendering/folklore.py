"""Claims beside what is measured: a report of all, and the section of a run's own report."""

from __future__ import annotations

from collections.abc import Sequence

from archbench.folklore.claim import KINDS, read_claims
from archbench.folklore.judge import RULINGS, Judged, Judgement, figures_of, judge_one, measured_alone
from archbench.folklore.sources import Sources
from archbench.model.units import NULL, counted
from archbench.rendering.content import (
    Bullets,
    Code,
    Columns,
    Fold,
    Report,
    Section,
    Table,
    body,
    listed,
    section,
    sections,
    table,
)
from archbench.rendering.run_data import RunData

_MOST_CLAIMS = 500


def folklore_report(found: Sequence[Judged]) -> Report:
    """Verdicts by kind, every claim, what is right where a source is not, and what would judge the rest."""
    mended = [one for one in found if one.right is not None and one.verdict in ("refuted", "depends")]
    pairs = [(one, each) for one in found for each in one.judgements if _by_cells(each)]
    inside = body(listed(pairs, _JUDGEMENTS, noun="judgements"))
    commands = dict.fromkeys(command for one in found for command in one.commands)
    sources = {one.id.partition(".")[0]: f"{one.source}{f', {one.url}' if one.url else ''}" for one in found}
    return Report(
        title=f"{counted(len(found), 'claim')}, checked",
        lead=body(
            "Each claim is judged by an expression over counts, stored runs, trainings and published figures; "
            "`depends` where the answer changes with what one looks at or with the setting.",
            _counts(found),
        ),
        sections=sections(
            _section("Claims", found, _CLAIMS),
            _section("Where a source is wrong, or half right", mended, _MENDED),
            section(
                "Setting by setting",
                Fold(summary=f"{len(pairs):,} judgements by stored cells", blocks=inside) if inside else None,
            ),
            section(
                "Not judged yet",
                Code("\n".join(commands)) if commands else None,
                note="What would judge the rest (`--measure 10m` runs it within that time):",
            ),
            section("Sources", Bullets(tuple(f"{name}: {text}" for name, text in sources.items()))),
        ),
    )


def folklore(run: RunData) -> Section | None:
    """What this run alone says of claims about time and memory; `None` where it has the figures of none."""
    claims = read_claims()
    sources = Sources(claims.facts, [run.candidates], builds=False)
    found = (judge_one(one, sources) for one in claims.claims if measured_alone(one))
    measured = [one for one in found if any(_by_cells(each) for each in one.judgements)]
    return section(
        "Folklore",
        listed(measured, _CLAIMS, noun="claims", caption="Folklore"),
        note="What tutorials and papers say, as this run has it; `archbench claims` judges the others, too.",
    )


def _by_cells(one: Judgement) -> bool:
    return one.hardware_class is not None


def _counts(found: Sequence[Judged]) -> Table:
    rows = []
    for kind in (*KINDS, "all"):
        of = [one for one in found if kind in (one.kind, "all")]
        if of:
            rows.append((kind, *(str(sum(one.verdict == ruling for one in of)) for ruling in RULINGS)))
    return table(("Kind", *(f">{ruling.capitalize()}" for ruling in RULINGS)), rows, "Verdicts by kind")


_CLAIMS: Columns[Judged] = {
    "Id": lambda one: one.id,
    "Claim": lambda one: one.statement,
    "Kind": lambda one: one.kind,
    "Verdict": lambda one: one.verdict,
    "What decides it": lambda one: one.why,
}
_MENDED: Columns[Judged] = {
    "Id": lambda one: one.id,
    "Claim": lambda one: one.statement,
    "Source": lambda one: one.source,
    "Verdict": lambda one: one.verdict,
    "What is right": lambda one: one.right or NULL,
}
_JUDGEMENTS: Columns[tuple[Judged, Judgement]] = {
    "Id": lambda pair: pair[0].id,
    "By": lambda pair: pair[1].aspect or NULL,
    "Setting": lambda pair: pair[1].setting,
    "Machine": lambda pair: pair[1].hardware_class or NULL,
    "Holds": lambda pair: {True: "yes", False: "no", None: "open"}[pair[1].holds],
    "Figures": lambda pair: figures_of(pair[1]),
}


def _section(title: str, found: Sequence[Judged], columns: Columns[Judged]) -> Section | None:
    blocks = listed(found, columns, noun="claims", caption=title, most=_MOST_CLAIMS, elsewhere="which `--json` has")
    return section(title, blocks)
