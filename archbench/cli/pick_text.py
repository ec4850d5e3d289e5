"""What `archbench pick` prints for people: shortlists, what is left out and why, footnotes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from archbench.choose.cell_summary import toggles_label
from archbench.choose.margins import settled_by
from archbench.choose.pick import Choice, Goal, Picked, Ranking
from archbench.cli.catalog_text import table
from archbench.model.derived import without_unit
from archbench.rendering.values import difference, heading, number, why_left_out

MOST_RANKINGS = 6
"""Rankings printed; more of them mean that the question is not narrow enough to read the answer."""
MOST_LEFT_OUT = 40
_MARK = "?"


def lines(picked: Picked, top: int) -> Iterator[str]:
    """The whole answer; `top` rows of each shortlist."""
    goals = ", ".join(_goal(goal) for goal in picked.goals)
    if not picked.found:
        yield f"No network satisfies {'; '.join(picked.conditions)}." if picked.conditions else "No network to choose."
        yield from picked.warnings
        for ranking in picked.rankings:
            yield from _left_out(ranking, "What each lacks, the nearest first:")
        return
    asked = f" that satisfy {'; '.join(picked.conditions)}" if picked.conditions else ""
    kind = f"{goals} first" if len(picked.goals) == 1 else f"Pareto front of {goals}"
    yield f"Networks{asked}; {kind}."
    yield from picked.warnings
    if len(picked.rankings) > 1:
        differing = [one.column for one in picked.rankings[0].circumstances]
        yield (
            f"They differ in {', '.join(differing)} and are ranked apart; fix it with --where, or rank them together "
            f"with {' '.join(f'--across {column}' for column in differing)}."
        )
    for ranking in picked.rankings[:MOST_RANKINGS]:
        yield ""
        yield from _ranking(ranking, picked, top)
    if len(picked.rankings) > MOST_RANKINGS:
        yield ""
        more = len(picked.rankings) - MOST_RANKINGS
        yield f"And {more} more rankings: narrow the question, or read them with --json."


def _ranking(ranking: Ranking, picked: Picked, top: int) -> Iterator[str]:
    choices = ranking.choices[:top]
    found = len({one.network for one in ranking.choices})
    yield f"{_common(ranking)}: {found} of {ranking.networks} networks"
    yield ""
    yield from table(*_table(choices, picked))
    if len(ranking.choices) > top:
        yield f"... and {len(ranking.choices) - top} more (--top)"
    yield ""
    yield from _left_out(ranking, "Left out, the nearest first:")
    notes = [*(one.text for one in ranking.footnotes), *ranking.accuracies, *_notes(choices)]
    if notes:
        yield "Notes:"
        yield from (f"  - {note}" for note in notes)


def _table(choices: tuple[Choice, ...], picked: Picked) -> tuple[list[str], list[str], list[list[str]]]:
    """Headings, which of them are numbers, and rows."""
    figures = [one.column for one in choices[0].figures]
    numeric = ["#", *(heading(column) for column in figures)]
    varying = [name for name in picked.across if name in ("phase", "batch_size", "torch_version", "hardware_class")]
    single = len(picked.goals) == 1
    headings = ["#", "network", "setting", *varying, *numeric[1:], *(["behind the first"] if single else [])]
    rows = []
    for one in choices:
        row = [
            str(one.rank) if single else "",
            f"{one.network} {_MARK}" if one.verdict == "suspect" else one.network,
            toggles_label(one.precision, one.memory_format, one.compile_mode),
            *(str(getattr(one, name)) for name in varying),
            *(number(figure) for figure in one.figures),
        ]
        rows.append([*row, _behind(one, choices[0])] if single else row)
    return headings, numeric, rows


def _behind(one: Choice, first: Choice) -> str:
    if one.behind is None:
        return ""
    goal = first.figures[0].column
    far = difference(one.behind, first.estimate(goal), one.estimate(goal))
    return f"tie ({far})" if one.behind.tie else far


def _left_out(ranking: Ranking, title: str) -> Iterator[str]:
    """One line a network; those that have no cell of the kind asked for stand together behind the condition."""
    near = [one for one in ranking.left_out if not one.elsewhere]
    elsewhere: dict[str, list[str]] = {}
    for one in ranking.left_out:
        if one.elsewhere:
            missed = "; ".join(miss.condition for miss in one.misses) or why_left_out(one)
            elsewhere.setdefault(missed, []).append(one.network)
    if near:
        yield title
        width = max(len(one.network) for one in near[:MOST_LEFT_OUT])
        yield from (f"  {one.network.ljust(width)}  {why_left_out(one)}" for one in near[:MOST_LEFT_OUT])
        if len(near) > MOST_LEFT_OUT:
            yield f"  ... and {len(near) - MOST_LEFT_OUT} more (--json has all)"
        yield ""
    if elsewhere:
        yield "Without a cell of the kind asked for:"
        for condition, names in list(elsewhere.items())[:MOST_LEFT_OUT]:
            more = f", ... and {len(names) - MOST_LEFT_OUT} more" if len(names) > MOST_LEFT_OUT else ""
            yield from _wrapped(f"{condition}: {', '.join(names[:MOST_LEFT_OUT])}{more}")
        yield ""


def _wrapped(text: str) -> list[str]:
    """Indented lines of a long enumeration."""
    return textwrap.wrap(text, 110, initial_indent="  ", subsequent_indent="    ", break_long_words=False)


def _notes(choices: tuple[Choice, ...]) -> Iterator[str]:
    if any(one.verdict == "suspect" for one in choices):
        yield f"`{_MARK}` marks suspect figures: usable with care, the report says why."
    ties = [one for one in choices[1:] if one.behind is not None and one.behind.tie]
    if ties:
        named = ", ".join(one.network for one in ties)
        yield f"Too close to call with {choices[0].network}: {named}."
        command = settled_by(choices[0].figures[0].column, choices[0].cell_id, ties[0].cell_id)
        if command is not None:
            yield f"`{command}` settles it."


def _common(ranking: Ranking) -> str:
    """What all choices have in common, as far as it tells rankings apart."""
    words = []
    first = ranking.choices[0]
    for name, text in (
        ("phase", first.phase),
        ("batch_size", f"batch {first.batch_size}"),
        ("precision", first.precision),
    ):
        if len({getattr(one, name) for one in ranking.choices}) == 1:
            words.append(text)
    words += [
        f"{one.column} {one.value}"
        for one in ranking.circumstances
        if one.column not in ("phase", "batch_size", "precision")
    ]
    text = ", ".join(words)
    return text[:1].upper() + text[1:] or "All together"


def _goal(goal: Goal) -> str:
    return f"{'largest' if goal.larger else 'smallest'} {without_unit(goal.column)}"
