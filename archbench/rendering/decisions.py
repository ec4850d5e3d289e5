"""The decision matrix: which network in which situation, and whether the usual choice holds on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from archbench.choose.margins import settled_by
from archbench.choose.matrix import Row, UsualChoice, decision_matrix
from archbench.choose.pick import ACCURACIES, Choice
from archbench.model.derived import judged_columns, without_unit
from archbench.model.units import GIGA, NULL, excess
from archbench.query.expression import show
from archbench.rendering.content import Block, Bullets, Code, Paragraph, Section, Table, table, tabled
from archbench.rendering.picked import MARK, goal_text
from archbench.rendering.run_data import RunData
from archbench.rendering.values import called, difference, heading, number, quantity, why_left_out

_NEAREST = 2
_USUAL_SIZE = 224
"""Side of the images of ImageNet networks, in pixels, unless their names say otherwise."""
_INTRODUCTION = (
    "Each situation is judged by one column under conditions; a network stands with the setting that serves it best. "
    "The usual choice holds where one of its networks comes first or ties with the first; in part where it is "
    "behind by a quarter at most, or another of its networks falls short of the conditions."
)
_GAINS = ("top1", "macs", "latency_median_s", "throughput_img_s", "peak_allocated_bytes", "peak_reserved_bytes")
"""Figures of a network that are told as differences from the baseline, accuracy first."""


def decisions(run: RunData) -> Section | None:
    """The matrix, then each situation with its figures; `None` for a suite without decisions."""
    rows = decision_matrix(run.suite, run.candidates)
    if not rows:
        return None
    marks = [f"`{MARK}` marks suspect figures."] if any(_suspect(one) for row in rows for one in row.beside) else []
    introduction = Paragraph(" ".join([_INTRODUCTION, *marks]))
    return Section(title="Which network", blocks=(introduction, _matrix(rows), *(_situation(row) for row in rows)))


def _matrix(rows: Iterable[Row]) -> Table:
    columns: dict[str, Callable[[Row], str]] = {
        "Situation": lambda row: row.decision.situation,
        "Judged by": _judged_by,
        "Recommended": lambda row: (
            f"{_name(row.recommended)}, {_setting(row.recommended)}" if row.recommended else NULL
        ),
        "Runner-up": lambda row: f"{_name(row.runner_up)}: {_behind(row, row.runner_up)}" if row.runner_up else NULL,
        "Usual choice": lambda row: ", ".join(row.decision.usual_choice) or NULL,
        "Holds here": lambda row: row.standing.holds if row.decision.usual_choice else NULL,
    }
    return tabled(rows, columns, "The decision matrix")


def _judged_by(row: Row) -> str:
    """The figure that decided the row, and where it was read: `smallest latency, inference, batch 4, fp32`."""
    first = row.ranking.choices[0] if row.ranking.choices else None
    where = [] if first is None else [first.phase, f"batch {first.batch_size}", _setting(first)]
    return ", ".join([f"{'largest' if row.goal.larger else 'smallest'} {called(row.goal.column)}", *where])


def _behind(row: Row, one: Choice) -> str:
    """By how much a network loses in the row's goal, or that it does not."""
    first = row.ranking.choices[0]
    if one.behind is None:
        return "not comparable"
    column = row.goal.column
    far = difference(one.behind, first.estimate(column), one.estimate(column))
    points = judged_columns()[column].unit == "%"
    return f"a tie ({far})" if one.behind.tie else f"{far} {'lower' if points else 'behind'}"


def _situation(row: Row) -> Section:
    blocks: list[Block] = [Paragraph(_asked(row))]
    if row.decision.usual_choice:
        blocks.append(Paragraph(_verdict(row)))
    if row.beside:
        blocks.append(_table(row, row.beside, roles=True))
    if row.every_setting:
        blocks += [Paragraph("Under every setting:"), _table(row, row.every_setting, roles=False)]
    # Whose accuracies these are, a section of its own says.
    notes = [*_tie(row), *_gains(row), *_batches(row), *_near(row), *_differences(row)]
    if row.decision.note:
        notes.append(row.decision.note)
    if notes:
        blocks.append(Bullets(tuple(notes)))
    if row.evidence is not None:
        missing = ", ".join(one.name for one in row.usual if not one.measured)
        blocks += [
            Paragraph(f"Not measured under these conditions: {missing}. To have them judged, too:"),
            Code(row.evidence),
        ]
    if row.loading is not None:
        blocks.append(Code(row.loading, "python"))
    return Section(title=row.decision.situation, blocks=tuple(blocks))


def _asked(row: Row) -> str:
    conditions = "; ".join(
        [
            *(show(condition) for condition in row.conditions),
            *(f"{without_unit(name)} <= {factor:g} x {row.decision.baseline}'s" for name, factor in _relative(row)),
        ]
    )
    batch = "" if row.batch_size is None else f" Judged at batch {row.batch_size}{_why_this_batch(row)}."
    return f"Asked for: {goal_text(row.goal)}{f', where `{conditions}`' if conditions else ''}.{batch}"


def _relative(row: Row) -> Iterable[tuple[str, float]]:
    return row.decision.at_most_of_baseline.items()


def _why_this_batch(row: Row) -> str:
    return ", of those at which most networks satisfy the conditions the largest" if row.other_batches else ""


def _verdict(row: Row) -> str:
    first = row.recommended
    placed = [one.choice for one in row.usual if one.choice is not None]
    best = min(placed, key=lambda one: (one.rank, one.behind.ratio if one.behind else 1.0), default=None)
    word = row.standing.holds.capitalize()
    usual = ", ".join(row.decision.usual_choice)
    match row.standing.reason:
        case "not measurable":
            return f"{word}: {row.decision.not_measurable}"
        case "none measured":
            return f"{word}: of {usual} none was measured under these conditions."
        case "no rival":
            return f"{word}: nothing else was measured under these conditions to hold {usual} against."
        case "none satisfies":
            return f"{word}: {'; '.join(_falls_short(one) for one in row.usual if one.measured)}."
    assert best is not None
    assert first is not None
    if row.standing.reason == "first":
        return f"{word}: {best.network} comes first."
    if row.standing.reason == "tie":
        return f"{word}: {best.network} and {first.network} tie{_settled(row, first, best)}."
    if row.standing.reason == "some fail":
        short = "; ".join(_falls_short(one) for one in row.usual if one.measured and one.choice is None)
        return f"{word}: {best.network} comes first or ties with it, but {short}."
    return f"{word}: {best.network} is {_behind(row, best)} ({first.network} comes first)."


def _falls_short(one: UsualChoice) -> str:
    return f"{one.name} falls short ({why_left_out(one.left_out)})" if one.left_out else one.name


def _table(row: Row, choices: tuple[Choice, ...], *, roles: bool) -> Table:
    columns = [one.column for one in choices[0].figures]
    columns = [name for name in columns if any(one.estimate(name).value is not None for one in choices)]
    lead = ("Network", "Role", "Best under") if roles else ("Network", "Under")
    rows = []
    for one in choices:
        words = (_name(one), _role(row, one), _setting(one)) if roles else (_name(one), _setting(one))
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


def _tie(row: Row) -> Iterable[str]:
    """That the first two cannot be told apart, and what would do it."""
    first, second = row.recommended, row.runner_up
    if first and second and second.behind and second.behind.tie and second.behind.ratio != 1:
        told = f"{excess(second.behind.within)} apart they would be told apart"
        yield f"{first.network} and {second.network} tie ({told}){_settled(row, first, second)}."


def _settled(row: Row, first: Choice, other: Choice) -> str:
    """The duel that would tell them apart, where one can."""
    command = settled_by(row.goal.column, first.cell_id, other.cell_id)
    return "" if command is None else f"; `{command}` settles it"


def _gains(row: Row) -> Iterable[str]:
    """What each network gains over the baseline, and for how much."""
    if row.baseline is None:
        return
    for one in row.beside:
        if one.network == row.baseline.network:
            continue
        changes = [text for column in _GAINS if (text := _change(column, row.baseline, one)) is not None]
        if changes:
            yield f"{one.network} against {row.baseline.network}: {', '.join(changes)}{_per_gmac(row.baseline, one)}."


def _change(column: str, base: Choice, one: Choice) -> str | None:
    before, after = base.estimate(column).value, one.estimate(column).value
    if before is None or after is None or (column in ACCURACIES and not _one_dataset(base, one)):
        return None
    sign = "-" if after < before else "+"
    unit = " points" if judged_columns()[column].unit == "%" else ""
    text = quantity(column, abs(after - before))
    return f"{without_unit(column)} {sign}{text.removesuffix(' %') + unit if unit else text}"


def _per_gmac(base: Choice, one: Choice) -> str:
    top1, macs = ((one.estimate(name).value or 0.0) - (base.estimate(name).value or 0.0) for name in ("top1", "macs"))
    known = all(each.estimate(name).value is not None for each in (base, one) for name in ("top1", "macs"))
    known = known and _one_dataset(base, one)
    return f" ({top1 / (macs / GIGA.size):.2f} points a GMAC)" if known and top1 > 0 and macs > 0 else ""


def _one_dataset(base: Choice, one: Choice) -> bool:
    """Whether accuracies of both are of one scale."""
    return base.accuracy_dataset == one.accuracy_dataset


def _batches(row: Row) -> Iterable[str]:
    if row.other_batches:
        named = ", ".join(f"{_name(one)} at batch {one.batch_size}" for one in row.other_batches)
        yield f"First at other batch sizes: {named}."


def _near(row: Row) -> Iterable[str]:
    """Who came nearest to the conditions without satisfying them."""
    usual = {one.name for one in row.usual}
    out = [one for one in row.ranking.left_out if not one.elsewhere and one.network not in usual]
    if out:
        named = "; ".join(f"{one.network} ({why_left_out(one)})" for one in out[:_NEAREST])
        more = f"; and {len(out) - _NEAREST} more" if len(out) > _NEAREST else ""
        yield f"Left out: {named}{more}."


def _differences(row: Row) -> Iterable[str]:
    """What is ranked together and differs; image sizes stand with the networks' names."""
    return (one.text for one in row.ranking.footnotes if one.column != "input_size")


def _name(one: Choice) -> str:
    odd = one.input_size not in (None, _USUAL_SIZE) and "input_size=" not in one.network
    return " ".join([one.network, *([f"({one.input_size} px)"] if odd else []), *([MARK] if _suspect(one) else [])])


def _suspect(one: Choice) -> bool:
    return one.verdict == "suspect"


def _setting(one: Choice) -> str:
    return one.toggles.label
