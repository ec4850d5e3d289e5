"""Which network: the shortlists of `archbench pick`, and the decision matrix of a suite, with why each other is out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice

from archbench.choose.cell_summary import settled_by
from archbench.choose.conditions import GoalMargin, LeftOut, Miss
from archbench.choose.matrix import Row, decision_matrix
from archbench.choose.pick import ACCURACIES, Choice, Goal, Picked, Ranking
from archbench.model.derived import column_label, judged_columns, without_unit
from archbench.model.units import GIGA, NULL, excess, percent, plain
from archbench.query.expression import show
from archbench.rendering import content
from archbench.rendering.content import Code, Columns, Section, Table, bullets, fold, report, section, table, tabled
from archbench.rendering.figures import called, difference, heading, number, quantity
from archbench.rendering.run_data import RunData

MOST_RANKINGS = 6
"""Rankings shown; more of them mean that the question is not narrow enough to read the answer."""
MOST_LEFT_OUT = 40
MARK = "?"
"""Behind the name of a network whose figures are suspect."""
_NEAREST = 2
_USUAL_SIZE = 224
"""Side of the images of ImageNet networks, in pixels, unless their names say otherwise."""
_INTRODUCTION = (
    "Each situation is judged by one column under conditions; a network stands with the setting that serves it best. "
    "The usual choice holds where one of its networks comes first or ties with the first; in part where it is "
    "behind by a quarter at most, or another of its networks falls short of the conditions."
)
_TINY = 0.1
"""Percentage points below which one decimal would round a miss away."""
_GAINS = ("top1", "macs", "latency_median_s", "throughput_img_s", "peak_allocated_bytes", "peak_reserved_bytes")
"""Figures of a network that are told as differences from the baseline, accuracy first."""


def picked_report(picked: Picked, top: int) -> content.Report:
    """The whole answer of `pick`: shortlists of `top` rows each, what is left out and why, notes."""
    conditions = "; ".join(picked.conditions)
    if not picked.found:
        title = f"No network satisfies {conditions}." if conditions else "No network to choose."
        if picked.unfit:
            title = f"No network{f' that satisfies {conditions}' if conditions else ''} has figures fit to rank: "
            title += f"{'; '.join(picked.unfit)}."
        out = (_left_out(one, "What each lacks, the nearest first:") for one in picked.rankings)
        return report(title, picked.warnings, out)
    goals = ", ".join(map(_asked_for, picked.goals))
    kind = f"{goals} first" if len(picked.goals) == 1 else f"Pareto front of {goals}"
    apart = ""
    if len(picked.rankings) > 1:
        differing = [one.column for one in picked.rankings[0].circumstances]
        apart = (
            f"They differ in {', '.join(differing)} and are ranked apart; fix it with --where, or rank them "
            f"together with {' '.join(f'--across {column}' for column in differing)}."
        )
    more = len(picked.rankings) - MOST_RANKINGS
    rest = Section(title=f"And {more} more rankings: narrow the question, or read them with --json.", blocks=())
    return report(
        f"Networks{f' that satisfy {conditions}' if conditions else ''}; {kind}.",
        picked.warnings,
        apart,
        picked.trust,
        (_ranking(one, picked, top) for one in picked.rankings[:MOST_RANKINGS]),
        rest if more > 0 else None,
    )


def _asked_for(goal: Goal) -> str:
    """`smallest latency_median`."""
    return f"{'largest' if goal.larger else 'smallest'} {without_unit(goal.column)}"


def _ranking(ranking: Ranking, picked: Picked, top: int) -> Section | None:
    choices, more = ranking.choices[:top], len(ranking.choices) - top
    found, shown = len({one.network for one in ranking.choices}), {one.network for one in choices}
    goal = picked.goals[0]
    better = f"{'larger' if goal.larger else 'smaller'} {without_unit(goal.column)}"
    outside = ((one.network, one.setting, why_left_out(one)) for one in ranking.outside if one.network in shown)
    notes = (*(one.text for one in ranking.footnotes), *ranking.accuracies, *_notes(choices))
    return section(
        f"{_common(ranking)}: {found} of {ranking.networks} networks",
        _shortlist(choices, picked),
        f"... and {more} more (--top)" if more > 0 else None,
        fold(f"Settings of these with a {better} that are left out:", table(("", "", ""), outside)),
        _left_out(ranking, "Left out, the nearest first:"),
        fold("Notes:", bullets(*notes)),
    )


def _shortlist(choices: Sequence[Choice], picked: Picked) -> Table:
    """How far each is behind stands beside the goal, before the columns that a narrow screen has no room for."""
    single = len(picked.goals) == 1
    varying = [name for name in picked.across if name in ("phase", "batch_size", "torch_version", "hardware_class")]

    def as_it_is(name: str, one: Choice) -> str:
        return str(getattr(one, name))

    def shown(column: str, one: Choice) -> str:
        return number(one.estimate(column))

    goal, *others = (one.column for one in choices[0].figures)
    columns: Columns[Choice] = {
        ">#": lambda one: str(one.rank) if single else "",
        "network": lambda one: f"{one.network} {MARK}" if _suspect(one) else one.network,
        "setting": lambda one: one.toggles.label,
        **{name: partial(as_it_is, name) for name in varying},
        f">{heading(goal)}": partial(shown, goal),
        **({"behind the first": lambda one: _far(goal, choices[0], one, "tie")} if single else {}),
        **{f">{heading(column)}": partial(shown, column) for column in others},
    }
    return tabled(choices, columns)


def _far(column: str, first: Choice, one: Choice, tie: str) -> str:
    """By how much a network loses to the first in a column, or that it does not; empty for the first."""
    if one.behind is None:
        return ""
    far = difference(one.behind, first.estimate(column), one.estimate(column))
    return f"{tie} ({far})" if one.behind.tie else far


def _left_out(ranking: Ranking, title: str) -> Iterator[content.Fold]:
    """A line for each network; those that have no cell of the kind asked for stand together behind the condition."""
    near = [(one.network, why_left_out(one)) for one in ranking.left_out if not one.elsewhere]
    elsewhere: dict[str, list[str]] = {}
    for one in ranking.left_out:
        if one.elsewhere:
            missed = "; ".join(miss.condition for miss in one.misses) or why_left_out(one)
            elsewhere.setdefault(missed, []).append(one.network)

    def cut(count: int) -> str | None:
        return f"... and {count - MOST_LEFT_OUT} more" if count > MOST_LEFT_OUT else None

    rest = cut(len(near))
    yield fold(title, table(("", ""), near[:MOST_LEFT_OUT]), rest and f"{rest} (--json has all)")
    lines = (
        (f"{condition}: {', '.join(filter(None, (*names[:MOST_LEFT_OUT], cut(len(names)))))}",)
        for condition, names in islice(elsewhere.items(), MOST_LEFT_OUT)
    )
    yield fold("Without a cell of the kind asked for:", table(("",), lines))


def _notes(choices: Sequence[Choice]) -> Iterator[str]:
    if any(map(_suspect, choices)):
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


def decisions(run: RunData) -> Section | None:
    """The matrix, then each situation with its figures; `None` for a suite without decisions."""
    rows = decision_matrix(run.suite, run.candidates)

    def judged_by(row: Row) -> str:
        """The figure that decided the row, and where it was read: `smallest latency, inference, batch 4, fp32`."""
        first = row.ranking.choices[0] if row.ranking.choices else None
        where = [] if first is None else [first.phase, f"batch {first.batch_size}", first.toggles.label]
        return ", ".join([f"{'largest' if row.goal.larger else 'smallest'} {called(row.goal.column)}", *where])

    columns: Columns[Row] = {
        "Situation": lambda row: row.decision.situation,
        "Judged by": judged_by,
        "Recommended": lambda row: (
            f"{_name(row.recommended)}, {row.recommended.toggles.label}" if row.recommended else NULL
        ),
        "Runner-up": lambda row: f"{_name(row.runner_up)}: {_behind(row, row.runner_up)}" if row.runner_up else NULL,
        "Usual choice": lambda row: ", ".join(row.decision.usual_choice) or NULL,
        "Holds here": lambda row: row.standing.holds if row.decision.usual_choice else NULL,
    }
    marks = f" `{MARK}` marks suspect figures." if any(_suspect(one) for row in rows for one in row.beside) else ""
    matrix = tabled(rows, columns, "The decision matrix")
    return section("Which network", matrix, map(_situation, rows), note=f"{_INTRODUCTION}{marks}")


def _behind(row: Row, one: Choice) -> str:
    """By how much a network loses in the row's goal, or that it does not."""
    if one.behind is None:
        return "not comparable"
    points = judged_columns()[row.goal.column].unit == "%"
    far = _far(row.goal.column, row.ranking.choices[0], one, "a tie")
    return far if one.behind.tie else f"{far} {'lower' if points else 'behind'}"


def _situation(row: Row) -> Section | None:
    missing = ", ".join(one.name for one in row.usual if not one.measured)
    return section(
        row.decision.situation,
        _asked(row),
        _verdict(row) if row.decision.usual_choice else None,
        _table(row, row.beside, roles=True) if row.beside else None,
        ("Under every setting:", _table(row, row.every_setting, roles=False)) if row.every_setting else None,
        # Whose accuracies these are, a section of its own says.
        bullets(*_remarks(row), row.decision.note),
        f"Not measured under these conditions: {missing}. To have them judged, too:" if row.evidence else None,
        Code(row.evidence or ""),
        Code(row.loading or "", "python"),
    )


def _asked(row: Row) -> str:
    relative = row.decision.at_most_of_baseline.items()
    bounds = (f"{without_unit(name)} <= {factor:g} x {row.decision.baseline}'s" for name, factor in relative)
    conditions = "; ".join([*map(show, row.conditions), *bounds])
    why = ", of those at which most networks satisfy the conditions the largest" if row.other_batches else ""
    batch = "" if row.batch_size is None else f" Judged at batch {row.batch_size}{why}."
    return f"Asked for: {_asked_for(row.goal)}{f', where `{conditions}`' if conditions else ''}.{batch}"


def _verdict(row: Row) -> str:
    first, usual = row.recommended, ", ".join(row.decision.usual_choice)
    placed = [one.choice for one in row.usual if one.choice is not None]
    best = min(placed, key=lambda one: (one.rank, one.behind.ratio if one.behind else 1.0), default=None)
    short = "; ".join(
        f"{one.name} falls short ({why_left_out(one.left_out)})" if one.left_out else one.name
        for one in row.usual
        if one.measured and one.choice is None
    )
    match row.standing.reason:
        case "not measurable":
            said = row.decision.not_measurable
        case "none measured":
            said = f"of {usual} none was measured under these conditions."
        case "no rival":
            said = f"nothing else was measured under these conditions to hold {usual} against."
        case "none satisfies":
            said = f"{short}."
        case reason:
            assert best is not None
            assert first is not None
            if reason == "first":
                said = f"{best.network} comes first."
            elif reason == "tie":
                said = f"{best.network} and {first.network} tie{_settled(row, first, best)}."
            elif reason == "some fail":
                said = f"{best.network} comes first or ties with it, but {short}."
            else:
                said = f"{best.network} is {_behind(row, best)} ({first.network} comes first)."
    return f"{row.standing.holds.capitalize()}: {said}"


def _table(row: Row, choices: tuple[Choice, ...], *, roles: bool) -> Table:
    columns = [one.column for one in choices[0].figures]
    columns = [name for name in columns if any(one.estimate(name).value is not None for one in choices)]
    lead = ("Network", "Role", "Best under") if roles else ("Network", "Under")
    rows = []
    for one in choices:
        words = (_name(one), *([_role(row, one)] if roles else []), one.toggles.label)
        rows.append((*words, *(number(one.estimate(name)) for name in columns)))
    return table((*lead, *(f">{heading(name)}" for name in columns)), rows)


def _role(row: Row, one: Choice) -> str:
    """What brings a network into the table; a usual one has its rank with it."""
    roles = []
    ranks = {choice.cell_id: place for place, choice in enumerate(row.ranking.choices, 1)}
    place = ranks.get(one.cell_id)
    if place in (1, 2):
        roles.append(("recommended" if row.recommended else "first") if place == 1 else "runner-up")
    if one.architecture in row.decision.usual_choice:
        roles.append("usual" if place in (1, 2) else f"usual, place {place}" if place else "usual, falls short")
    if row.baseline is not None and one.network == row.baseline.network:
        roles.append("baseline")
    return ", ".join(roles)


def _remarks(row: Row) -> Iterator[str]:
    """A tie, what is gained over the baseline, and who came nearest to the conditions without satisfying them."""
    first, second = row.recommended, row.runner_up
    if first and second and second.behind and second.behind.tie and second.behind.ratio != 1:
        told = f"{excess(second.behind.within)} apart they would be told apart"
        yield f"{first.network} and {second.network} tie ({told}){_settled(row, first, second)}."
    base = row.baseline
    for one in row.beside:
        if base is not None and one.network != base.network:
            changes = list(filter(None, (_change(column, base, one) for column in _GAINS)))
            if changes:
                yield f"{one.network} against {base.network}: {', '.join(changes)}{_per_gmac(base, one)}."
    if row.other_batches:
        named = ", ".join(f"{_name(one)} at batch {one.batch_size}" for one in row.other_batches)
        yield f"First at other batch sizes: {named}."
    for better in row.ranking.outside[:_NEAREST]:
        more = f"{'larger' if row.goal.larger else 'smaller'} {without_unit(row.goal.column)}"
        yield f"{better.network} has a {more} under {better.setting}: {why_left_out(better)}."
    usual = {one.name for one in row.usual}
    out = [left for left in row.ranking.left_out if not left.elsewhere and left.network not in usual]
    if out:
        named = "; ".join(f"{left.network} ({why_left_out(left)})" for left in out[:_NEAREST])
        more = f"; and {len(out) - _NEAREST} more" if len(out) > _NEAREST else ""
        yield f"Left out: {named}{more}."
    # Image sizes stand with the networks' names.
    yield from (one.text for one in row.ranking.footnotes if one.column != "input_size")


def _settled(row: Row, first: Choice, other: Choice) -> str:
    command = settled_by(row.goal.column, first.cell_id, other.cell_id)
    return "" if command is None else f"; `{command}` settles it"


def _change(column: str, base: Choice, one: Choice) -> str | None:
    before, after = base.estimate(column).value, one.estimate(column).value
    if before is None or after is None or (column in ACCURACIES and base.accuracy_dataset != one.accuracy_dataset):
        return None
    text = f"{without_unit(column)} {'-' if after < before else '+'}{quantity(column, abs(after - before))}"
    return f"{text.removesuffix(' %')} points" if judged_columns()[column].unit == "%" else text


def _per_gmac(base: Choice, one: Choice) -> str:
    values = [(base.estimate(name).value, one.estimate(name).value) for name in ("top1", "macs")]
    top1, macs = ((after or 0.0) - (before or 0.0) for before, after in values)
    known = all(None not in both for both in values) and base.accuracy_dataset == one.accuracy_dataset
    return f" ({top1 / (macs / GIGA.size):.2f} points a GMAC)" if known and top1 > 0 and macs > 0 else ""


def _name(one: Choice) -> str:
    odd = one.input_size not in (None, _USUAL_SIZE) and "input_size=" not in one.network
    return " ".join([one.network, *([f"({one.input_size} px)"] if odd else []), *([MARK] if _suspect(one) else [])])


def _suspect(one: Choice) -> bool:
    return one.verdict == "suspect"


def why_left_out(one: LeftOut) -> str:
    """In one line: what the network lacks, each condition with its own figure and by how much it misses."""
    parts = [one.failure] if one.failure else []
    parts += map(_missed, one.misses)
    if one.beaten is not None:
        compared = ", ".join(f"{column_label(each.better.column)} {_lost(each)}" for each in one.beaten.comparisons)
        parts.append(f"{one.beaten.by} is nowhere worse: {compared}")
    return "; ".join(parts)


def _missed(miss: Miss) -> str:
    column, value = miss.actual[0]
    if value is None:
        return f"{miss.condition}: not known{f' ({miss.unmeasured})' if miss.unmeasured else ''}"
    if miss.bound is None or not isinstance(value, float):
        shown = ", ".join(f"{column_label(name)} is {_plain(name, there)}" for name, there in miss.actual)
        return f"{miss.condition}: {shown}"
    far = ""
    if judged_columns()[column].unit == "%":
        off = abs(value - miss.bound)
        far = f" ({f'{off:.1f}' if off >= _TINY else plain(off, 2)} points off)"
    elif miss.excess is not None:
        far = f" ({percent(miss.excess) if miss.excess < 1 else f'{plain(1 + miss.excess)}x'} off)"
    return f"{miss.condition}: {quantity(column, value)}{far}"


def _plain(column: str, value: float | str | bool | None) -> str:
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return str(value).lower()
    return quantity(column, value) if isinstance(value, float) else value


def _lost(of: GoalMargin) -> str:
    if of.margin is None:
        return NULL
    if of.margin.ratio == 1:
        return "equal"
    return f"{difference(of.margin, of.better, of.worse)}{' (a tie)' if of.margin.tie else ''}"
