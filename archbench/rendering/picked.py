"""The answer of `archbench pick`: shortlists, what is left out and why, notes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from archbench.choose.margins import settled_by
from archbench.choose.pick import Choice, Goal, Picked, Ranking
from archbench.model.derived import without_unit
from archbench.rendering.content import Block, Bullets, Fold, Paragraph, Report, Section, Table, table, tabled
from archbench.rendering.values import difference, heading, number, why_left_out

MOST_RANKINGS = 6
"""Rankings shown; more of them mean that the question is not narrow enough to read the answer."""
MOST_LEFT_OUT = 40
MARK = "?"
"""Behind the name of a network whose figures are suspect."""


def picked_report(picked: Picked, top: int) -> Report:
    """The whole answer; `top` rows of each shortlist."""
    conditions = "; ".join(picked.conditions)
    warnings = tuple(map(Paragraph, picked.warnings))
    if not picked.found:
        title = f"No network satisfies {conditions}." if conditions else "No network to choose."
        if picked.unfit:
            title = f"No network{f' that satisfies {conditions}' if conditions else ''} has figures fit to rank: "
            title += f"{'; '.join(picked.unfit)}."
        out = (block for one in picked.rankings for block in _left_out(one, "What each lacks, the nearest first:"))
        return Report(title=title, lead=(*warnings, *out), sections=())
    goals = ", ".join(map(goal_text, picked.goals))
    kind = f"{goals} first" if len(picked.goals) == 1 else f"Pareto front of {goals}"
    apart: tuple[Block, ...] = ()
    if len(picked.rankings) > 1:
        differing = [one.column for one in picked.rankings[0].circumstances]
        apart = (
            Paragraph(
                f"They differ in {', '.join(differing)} and are ranked apart; fix it with --where, or rank them "
                f"together with {' '.join(f'--across {column}' for column in differing)}."
            ),
        )
    more = len(picked.rankings) - MOST_RANKINGS
    rest = Section(title=f"And {more} more rankings: narrow the question, or read them with --json.", blocks=())
    return Report(
        title=f"Networks{f' that satisfy {conditions}' if conditions else ''}; {kind}.",
        lead=(*warnings, *apart, *map(Paragraph, picked.trust)),
        sections=(*(_ranking(one, picked, top) for one in picked.rankings[:MOST_RANKINGS]), *([rest] * (more > 0))),
    )


def goal_text(goal: Goal) -> str:
    """`smallest latency_median`."""
    return f"{'largest' if goal.larger else 'smallest'} {without_unit(goal.column)}"


def _ranking(ranking: Ranking, picked: Picked, top: int) -> Section:
    choices = ranking.choices[:top]
    found = len({one.network for one in ranking.choices})
    more = len(ranking.choices) - top
    notes = (*(one.text for one in ranking.footnotes), *ranking.accuracies, *_notes(choices))
    return Section(
        title=f"{_common(ranking)}: {found} of {ranking.networks} networks",
        blocks=(
            _table(choices, picked),
            *([Paragraph(f"... and {more} more (--top)")] if more > 0 else []),
            *_left_out(ranking, "Left out, the nearest first:"),
            *([Fold(summary="Notes:", blocks=(Bullets(notes),))] if notes else []),
        ),
    )


def _table(choices: Sequence[Choice], picked: Picked) -> Table:
    """How far each is behind stands beside the goal, before the columns that a narrow screen has no room for."""
    single = len(picked.goals) == 1
    varying = [name for name in picked.across if name in ("phase", "batch_size", "torch_version", "hardware_class")]
    goal, *others = choices[0].figures
    columns: dict[str, Callable[[Choice], str]] = {
        ">#": lambda one: str(one.rank) if single else "",
        "network": lambda one: f"{one.network} {MARK}" if one.verdict == "suspect" else one.network,
        "setting": lambda one: one.toggles.label,
        **{name: partial(_plain, name) for name in varying},
        f">{heading(goal.column)}": lambda one: number(one.figures[0]),
        **({"behind the first": lambda one: _behind(one, choices[0])} if single else {}),
        **{f">{heading(one.column)}": partial(_figure, place) for place, one in enumerate(others, 1)},
    }
    return tabled(choices, columns)


def _plain(name: str, one: Choice) -> str:
    return str(getattr(one, name))


def _figure(place: int, one: Choice) -> str:
    return number(one.figures[place])


def _behind(one: Choice, first: Choice) -> str:
    if one.behind is None:
        return ""
    goal = first.figures[0].column
    far = difference(one.behind, first.estimate(goal), one.estimate(goal))
    return f"tie ({far})" if one.behind.tie else far


def _left_out(ranking: Ranking, title: str) -> Iterator[Block]:
    """A line for each network; those that have no cell of the kind asked for stand together behind the condition."""
    near = [(one.network, why_left_out(one)) for one in ranking.left_out if not one.elsewhere]
    elsewhere: dict[str, list[str]] = {}
    for one in ranking.left_out:
        if one.elsewhere:
            missed = "; ".join(miss.condition for miss in one.misses) or why_left_out(one)
            elsewhere.setdefault(missed, []).append(one.network)
    if near:
        more = f"... and {len(near) - MOST_LEFT_OUT} more (--json has all)"
        rest = [Paragraph(more)] if len(near) > MOST_LEFT_OUT else []
        yield Fold(summary=title, blocks=(table(("", ""), near[:MOST_LEFT_OUT]), *rest))
    if elsewhere:
        lines = []
        for condition, names in list(elsewhere.items())[:MOST_LEFT_OUT]:
            rest_of = f", ... and {len(names) - MOST_LEFT_OUT} more" if len(names) > MOST_LEFT_OUT else ""
            lines.append([f"{condition}: {', '.join(names[:MOST_LEFT_OUT])}{rest_of}"])
        yield Fold(summary="Without a cell of the kind asked for:", blocks=(table(("",), lines),))


def _notes(choices: Sequence[Choice]) -> Iterator[str]:
    if any(one.verdict == "suspect" for one in choices):
        yield f"`{MARK}` marks suspect figures: usable with care, the report says why."
    ties = [one for one in choices[1:] if one.behind is not None and one.behind.tie]
    if ties:
        yield f"Too close to call with {choices[0].network}: {', '.join(one.network for one in ties)}."
        command = settled_by(choices[0].figures[0].column, choices[0].cell_id, ties[0].cell_id)
        if command is not None:
            yield f"`{command}` settles it."


def _common(ranking: Ranking) -> str:
    """What all choices have in common, as far as it tells rankings apart."""
    first = ranking.choices[0]
    shown = {"phase": first.phase, "batch_size": f"batch {first.batch_size}", "precision": first.precision}
    words = [text for name, text in shown.items() if len({getattr(one, name) for one in ranking.choices}) == 1]
    words += [f"{one.column} {one.value}" for one in ranking.circumstances if one.column not in shown]
    text = ", ".join(words)
    return text[:1].upper() + text[1:] or "All together"
