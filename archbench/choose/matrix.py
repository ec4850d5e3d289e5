"""The decision matrix: what a suite asks of a run, answered row by row, and whether the usual choice holds here.

And how many of these answers a cell could still change: what a run with little time measures next. A cell that may
satisfy a decision's conditions, as far as these are known without measuring it, is worth measuring where its network
has no place in that ranking yet, or one that is not clearly behind the first. A cell that has been measured is worth
another visit where it is the first of a ranking that is not clear, or ties with it.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from archbench.catalog import facts
from archbench.catalog.card import loading_line
from archbench.choose.candidates import Candidates
from archbench.choose.conditions import LeftOut, evaluate
from archbench.choose.pick import Choice, Goal, Question, Ranking, asked, cells_of, every_cell, pick
from archbench.model.axes import TOGGLES
from archbench.model.cell import Cell, Network
from archbench.model.derived import judged_columns
from archbench.model.environment import Environment
from archbench.model.record import RunContext, empty_record
from archbench.model.suite import Decision, Suite
from archbench.query.expression import Compare, Expression, conjuncts
from archbench.query.parsing import column_named, parse
from archbench.query.quantity import stored_value

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

_FEW = 5
"""Networks in a ranking up to which all of them are shown."""
_FREE = ("precision",)
"""Locked for `pick`, free here: the setting is part of the answer unless `where` fixes it."""

Holds = Literal["holds", "holds in part", "does not hold", "cannot be judged"]
Reason = Literal[
    "first", "tie", "some fail", "close", "behind", "none satisfies", "not measurable", "none measured", "no rival",
]  # fmt: skip
IN_PART_WITHIN = 1.25
"""A usual network that is behind the best by no more than a quarter still does the job: the choice holds in part.
Neighbouring depths of one family (ResNet-50 and 101) differ by more, and so do the networks that tutorials choose from.
"""


class UsualChoice(Struct, frozen=True, kw_only=True):
    """One network that people usually take."""

    name: str
    choice: Choice | None = None
    """Its place in the ranking."""
    left_out: LeftOut | None = None
    """Why it has none, though it was measured; neither is set where it was not measured under these circumstances."""

    @property
    def measured(self) -> bool:
        """Whether there is anything to judge it by."""
        return self.choice is not None or (self.left_out is not None and not self.left_out.elsewhere)


class Standing(Struct, frozen=True, kw_only=True):
    """What has become of the usual choice."""

    holds: Holds
    reason: Reason


class Row(Struct, frozen=True, kw_only=True):
    """One situation and its answer."""

    decision: Decision
    goal: Goal
    conditions: tuple[Expression, ...]
    """Those of the decision, bounds included, but for those that follow from the baseline."""
    standing: Standing
    ranking: Ranking
    """The one judged by: that of most networks; of equal ones that of the largest batch."""
    batch_size: int | None
    """That of the ranking; `None` where nothing satisfies the conditions."""
    usual: tuple[UsualChoice, ...]
    beside: tuple[Choice, ...]
    """The recommended network, the runner-up, the usual ones and the baseline, each with its figures; all networks
    where there are few."""
    every_setting: tuple[Choice, ...]
    """The usual networks under every setting, where the decision asks for that."""
    baseline: Choice | None
    other_batches: tuple[Choice, ...]
    """Who comes first at other batch sizes than the one judged at."""
    evidence: str | None
    """The command that measures what is missing."""
    loading: str | None
    """The line of Python that loads the recommended network, or the usual one where none can be recommended."""

    @property
    def recommended(self) -> Choice | None:
        """The first of the ranking; none where no measurement can tell."""
        return self.ranking.choices[0] if self.ranking.choices and not self.decision.not_measurable else None

    @property
    def runner_up(self) -> Choice | None:
        """The next network; its `behind` says by how much it loses, or that it ties."""
        return self.ranking.choices[1] if self.recommended and len(self.ranking.choices) > 1 else None


def decision_matrix(suite: Suite, candidates: Candidates) -> tuple[Row, ...]:
    """Answer every decision of a suite from a run of it (or any other cells). Pure: the same in, the same out."""
    networks = {network.label: network for network in suite.architectures}
    return tuple(_row(decision, candidates, networks) for decision in suite.decisions)


def _row(decision: Decision, candidates: Candidates, networks: dict[str, Network]) -> Row:
    asked = question = _question(decision)
    rankings = pick(candidates, question).rankings
    ranking = _judged_at(rankings)
    others = tuple(one.choices[0] for one in rankings if one is not ranking and one.choices)
    baseline = _baseline(decision, candidates, question, ranking)
    if decision.at_most_of_baseline:
        question, ranking = _bounded_by(decision, candidates, question, ranking, baseline)
        others = ()
    usual = usual_choices(ranking, decision.usual_choice)
    judged = standing(ranking, usual)
    if decision.not_measurable:
        judged = Standing(holds="cannot be judged", reason="not measurable")
    first = ranking.choices[0] if ranking.choices else None
    return Row(
        decision=decision,
        goal=question.goals[0],
        conditions=asked.conditions,
        standing=judged,
        ranking=ranking,
        batch_size=first.batch_size if first is not None else None,
        usual=usual,
        beside=_beside(candidates, question, ranking, usual, baseline),
        every_setting=every_cell(candidates, _fixed(question, ranking)) if decision.every_setting else (),
        baseline=baseline,
        other_batches=others,
        evidence=_evidence(decision, question, ranking, usual),
        loading=_loading(decision, first, networks),
    )


def _loading(decision: Decision, first: Choice | None, networks: dict[str, Network]) -> str | None:
    if decision.not_measurable and decision.usual_choice:
        return loading_line(Network(name=decision.usual_choice[0]))
    return None if first is None else loading_line(networks.get(first.network, Network(name=first.architecture)))


def _question(decision: Decision) -> Question:
    conditions = [parse(text) for text in decision.where]
    for sign, bounds in ((">=", decision.at_least), ("<=", decision.at_most)):
        for name, bound in bounds.items():
            column = column_named(name).name
            value = stored_value(bound, judged_columns()[column]) if isinstance(bound, str) else float(bound)
            conditions.append(Compare(column=column, operator=sign, value=value))  # type: ignore[arg-type]
    goal = decision.minimize or decision.maximize or ""
    return Question(
        conditions=tuple(conditions),
        goals=(Goal(column=column_named(goal).name, larger=decision.maximize is not None),),
        across=(*_FREE, *decision.across),
        show=tuple(column_named(name).name for name in (*decision.show, *decision.at_most_of_baseline)),
    )


def _judged_at(rankings: Sequence[Ranking]) -> Ranking:
    """The ranking of most networks, of equal ones that of the largest batch: where all candidates meet, if they do."""

    def key(ranking: Ranking) -> tuple[int, int]:
        return len(ranking.choices), max((one.batch_size for one in ranking.choices), default=0)

    return max(rankings, key=key)


def _circumstances(ranking: Ranking) -> list[Expression]:
    """Conditions that keep to the circumstances of a ranking."""
    kept: list[Expression] = []
    for one in ranking.circumstances:
        # "as published" is no number (the rows of a network that departs from it come out apart again), nor "default".
        if one.column == "input_size" or (one.column == "threads" and not isinstance(one.value, int)):
            continue
        value = float(one.value) if isinstance(one.value, int) else one.value
        kept.append(Compare(column=one.column, operator="==", value=value))
    return kept


def _baseline(decision: Decision, candidates: Candidates, question: Question, ranking: Ranking) -> Choice | None:
    """The baseline's cell under the ranking's circumstances, bounds on figures aside; by the goal the best of them."""
    if decision.baseline is None:
        return None
    same = [Compare(column="architecture", operator="==", value=decision.baseline), *_circumstances(ranking)]
    # Conditions that fix the phase, batch, setting and the like, and neither figures nor the network.
    fixed = {"phase", "batch_size", *TOGGLES, "threads", "setting", "device"}
    terms = [term for condition in question.conditions for term in conjuncts(condition)]
    about = [term for term in terms if isinstance(term, Compare) and term.column in fixed]
    if ranking.choices and all(one.column != "batch_size" for one in ranking.circumstances):
        same.append(Compare(column="batch_size", operator="==", value=float(ranking.choices[0].batch_size)))
    found = pick(candidates, replace(question, conditions=(*about, *same))).rankings
    cell = next((one.choices[0].cell_id for one in found if one.choices), None)
    return None if cell is None else next(iter(cells_of(candidates, question, [cell])))


def _bounded_by(
    decision: Decision, candidates: Candidates, question: Question, ranking: Ranking, baseline: Choice | None
) -> tuple[Question, Ranking]:
    """The question with the bounds relative to the baseline, and its ranking under the same circumstances.

    A bound on a time is no tighter than its interval: what ties with the baseline costs no more than it.
    """
    if baseline is None:
        return question, replace(ranking, choices=())
    bounds: list[Expression] = []
    for name, factor in decision.at_most_of_baseline.items():
        column = column_named(name).name
        figure = baseline.estimate(column)
        if figure.value is not None:
            allowed = max(factor, math.exp(math.hypot(figure.half, figure.half)))
            bounds.append(Compare(column=column, operator="<=", value=figure.value * allowed))
    bounded = replace(question, conditions=(*question.conditions, *bounds))
    return bounded, _judged_at(pick(candidates, _fixed(bounded, ranking)).rankings)


def _fixed(question: Question, ranking: Ranking) -> Question:
    """The same question, kept to the circumstances of a ranking."""
    return replace(question, conditions=(*question.conditions, *_circumstances(ranking)))


def _beside(
    candidates: Candidates, question: Question, ranking: Ranking, usual: Iterable[UsualChoice], baseline: Choice | None
) -> tuple[Choice, ...]:
    """First, second, usual and baseline, each network once, also those that the conditions leave out."""
    out = [one.left_out.cell_id for one in usual if one.left_out is not None and one.measured]
    wanted = [
        *ranking.choices[: len(ranking.choices) if len(ranking.choices) <= _FEW else 2],
        *(one.choice for one in usual if one.choice is not None),
        *cells_of(candidates, question, out),
        *([baseline] if baseline is not None else []),
    ]
    return tuple(
        {one.network: one for one in reversed(wanted)}[name] for name in dict.fromkeys(o.network for o in wanted)
    )


def _evidence(decision: Decision, question: Question, ranking: Ranking, usual: Sequence[UsualChoice]) -> str | None:
    """The command that measures the usual networks that have no figures; `None` where all have."""
    missing = [one.name for one in usual if not one.measured]
    if decision.not_measurable or not missing:
        return None
    words = ["archbench", "run", *missing]
    terms = [term for condition in question.conditions for term in conjuncts(condition)]
    known = {term.column: term.value for term in terms if isinstance(term, Compare) and term.operator == "=="}
    if known.get("phase") == "training":
        words += ["--phase", "training"]
    batch = ranking.choices[0].batch_size if ranking.choices else known.get("batch_size")
    if isinstance(batch, (int, float)):
        words += ["--batch-size", str(int(batch))]
    return shlex.join(words)


def usual_choices(ranking: Ranking, names: Sequence[str]) -> tuple[UsualChoice, ...]:
    """Each name's place in a ranking or why it has none. Of several variants of a network, the best one."""
    out = {one.cell_id.partition("@")[0].partition("[")[0]: one for one in reversed(ranking.left_out)}
    found = []
    for name in names:
        choice = next((one for one in ranking.choices if one.architecture == name), None)
        found.append(UsualChoice(name=name, choice=choice, left_out=None if choice else out.get(name)))
    return tuple(found)


def standing(ranking: Ranking, usual: Sequence[UsualChoice]) -> Standing:
    """Judge the usual choice by a ranking.

    It holds where a usual network comes first or ties with the first, and every usual one that was measured
    satisfies the conditions; in part where others of them do not, or where the best of them is behind by at most
    `IN_PART_WITHIN`; it does not where none satisfies the conditions, or the best is further behind. It cannot be
    judged where none of them was measured, or nothing else was.
    """
    measured = [one for one in usual if one.measured]
    placed = [one.choice for one in measured if one.choice is not None]
    if not measured:
        return Standing(holds="cannot be judged", reason="none measured")
    looked_at = {one.network for one in ranking.choices} | {o.network for o in ranking.left_out if not o.elsewhere}
    if len(looked_at) < 2:
        return Standing(holds="cannot be judged", reason="no rival")
    if not placed:
        return Standing(holds="does not hold", reason="none satisfies")
    best = min(placed, key=lambda one: (one.rank, one.behind.ratio if one.behind else 1.0))
    if best.rank == 1:
        if len(placed) < len(measured):
            return Standing(holds="holds in part", reason="some fail")
        return Standing(holds="holds", reason="tie" if best.behind else "first")
    if best.behind is not None and best.behind.ratio <= IN_PART_WITHIN:
        return Standing(holds="holds in part", reason="close")
    return Standing(holds="does not hold", reason="behind")


MAY_WIN = 1.5
"""A network no further behind than this may come first under another setting: toggles seldom gain more."""
SLIGHT = 0.1
"""Worth of a cell whose network is further behind: surprises happen."""

Worths = Mapping[tuple[bool, str], float]
"""By whether the visit is a repeated one, and cell id."""


def worths(suite: Suite, candidates: Candidates, cells: Sequence[Cell], environment: Environment) -> Worths:
    """How many of the suite's decisions each of `cells` could still change.

    A suite without decisions asks one: which network is fastest.
    """
    import pandas as pd

    context = RunContext(run_id="", round=0, environment=environment)
    known = [msgspec.structs.asdict(empty_record(cell, context, facts(cell.network))) for cell in cells]
    frame = pd.DataFrame(known)  # what is known of cells before they are measured
    found = {(again, cell.cell_id): 0.0 for again in (False, True) for cell in cells}
    for conditions, ranking, usual in _questions(suite, candidates):
        open_ = _open_to(conditions, frame)
        behind = {one.network: one.behind.ratio if one.behind else 1.0 for one in ranking.choices}
        # Where the order is not clear: what ties with the first, and the first itself.
        tied = [one for one in ranking.choices[1:] if one.behind is not None and one.behind.tie]
        contested = {one.cell_id for one in (ranking.choices[0], *tied)} if tied else set()
        for cell, may in zip(cells, open_, strict=True):
            if not may:
                continue
            label = cell.network.label
            near = label not in behind or label in usual or behind[label] <= MAY_WIN
            found[False, cell.cell_id] += 1.0 if near else SLIGHT
            found[True, cell.cell_id] += cell.cell_id in contested
    return found


def _questions(
    suite: Suite, candidates: Candidates
) -> Iterable[tuple[tuple[Expression, ...], Ranking, Collection[str]]]:
    for row in decision_matrix(suite, candidates):
        if not row.decision.not_measurable:
            yield row.conditions, row.ranking, row.decision.usual_choice
    if not suite.decisions:
        question: Question = asked()
        rankings = pick(candidates, question).rankings
        yield question.conditions, max(rankings, key=lambda one: len(one.choices)), ()


def _open_to(conditions: Sequence[Expression], frame: pd.DataFrame) -> NDArray[np.bool_]:
    """Which cells may satisfy the conditions: what is null, as whatever is measured still is, excludes nothing."""
    open_ = np.ones(len(frame), dtype=bool)
    for condition in conditions:
        for term in conjuncts(condition):
            try:
                judged = evaluate(term, frame)
            except KeyError:  # of a column that is no row's own, such as what is derived from several
                continue
            open_ &= judged.to_numpy(dtype=bool, na_value=True)
    return open_
