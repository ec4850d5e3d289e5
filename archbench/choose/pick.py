"""Which network: conditions and goals in; ranked shortlists, and why each other network is not in them, out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from archbench.choose.candidates import (
    Candidates,
    Circumstance,
    Comparables,
    Footnote,
    accuracies,
    comparable_groups,
    differences,
    unlike_settings,
)
from archbench.choose.cell_summary import (
    INTERVALS,
    TIMED_UNITS,
    Estimate,
    Margin,
    dominating,
    failure_line,
    margin,
    numbers,
    pareto_front,
    plain_values,
)
from archbench.choose.conditions import (
    IDENTITY,
    Beaten,
    GoalMargin,
    LeftOut,
    Term,
    left_out,
    outside,
    satisfied,
    term_of,
)
from archbench.choose.summary import CIRCUMSTANCES, fit_rows
from archbench.model.axes import Toggled
from archbench.model.derived import RANKING_KEYS, judged_columns, ranked_by
from archbench.model.errors import UsageError, did_you_mean
from archbench.model.reasons import FROM_MACS, LOWER_BOUND
from archbench.model.units import counted
from archbench.query.expression import Among, Expression, conjuncts, leaves, show
from archbench.query.parsing import number_column, parse

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


ACCURACIES = frozenset({"top1", "top5"})
"""Columns of published accuracies, which are of one scale within a data set only."""


class Goal(Struct, frozen=True, kw_only=True):
    """A column to make small, or large."""

    column: str
    larger: bool = False

    def costs(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """The column so that smaller is better; NaN where it is null."""
        found = numbers(frame[ranked_by(self.column)])
        return -found if self.larger else found


class Question(Struct, frozen=True, kw_only=True):
    """What is asked of the candidates. Every condition has to be satisfied."""

    conditions: tuple[Expression, ...] = ()
    goals: tuple[Goal, ...]
    """One for a ranking, several for a Pareto front."""
    across: tuple[str, ...] = ()
    """Locked columns in which rows may differ and be ranked against each other."""
    show: tuple[str, ...] = ()
    """Further columns whose figures are wanted."""

    @property
    def judges_accuracy(self) -> bool:
        """Whether a goal or a condition is about published accuracies; figures that stand beside do not judge."""
        named = {leaf.column for condition in self.conditions for leaf in leaves(condition)}
        return not ACCURACIES.isdisjoint(named | {goal.column for goal in self.goals})

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of numbers that the question is about, as they are judged: goals, conditions, what stands beside."""
        named = [leaf.column for condition in self.conditions for leaf in leaves(condition)]
        wanted = dict.fromkeys((*(goal.column for goal in self.goals), *named, *self.show))
        figures = [name for name in wanted if judged_columns()[name].kind in ("real", "whole")]
        return tuple(dict.fromkeys(ranked_by(name) for name in figures if name not in CIRCUMSTANCES))


def asked(
    *, where: Sequence[str] = (), minimize: Sequence[str] = (), maximize: Sequence[str] = (), across: Sequence[str] = ()
) -> Question:
    """The question in a user's words; without a goal, the smallest latency_median comes first.

    Raises `UsageError` that names the option at fault.
    """
    goals: list[Goal] = []
    for option, names in (("minimize", minimize), ("maximize", maximize)):
        for name in names:
            try:
                goals.append(Goal(column=number_column(name).name, larger=option == "maximize"))
            except UsageError as error:
                raise UsageError(f"--{option} {name}: {error}") from None
    twice = next((one.column for n, one in enumerate(goals) if one.column in {g.column for g in goals[:n]}), None)
    if twice is not None:
        raise UsageError(f"{twice} is a goal twice; name it once, after --minimize or --maximize")
    for column in across:
        if column not in RANKING_KEYS:
            near = did_you_mean(column, RANKING_KEYS) or f"; it can be {', '.join(RANKING_KEYS)}"
            raise UsageError(f"--across {column}: rows may always differ in it, or it is no column{near}")
    return Question(
        conditions=tuple(parse(text) for text in where),
        goals=tuple(goals) or (Goal(column="latency_median_s"),),
        across=tuple(dict.fromkeys(across)),
    )


class Choice(Toggled, frozen=True, kw_only=True):
    """One cell in a ranking: a network under the setting that serves the goal best."""

    rank: int
    """From 1; cells that tie with the first share its rank."""
    network: str
    architecture: str
    setting: str | None
    phase: str
    batch_size: int
    input_size: int | None
    cell_id: str
    run_id: str
    hardware_class: str
    torch_version: str | None
    verdict: str | None
    figures: tuple[Estimate, ...]
    accuracy_source: str | None
    accuracy_dataset: str | None
    behind: Margin | None = None
    """How far behind the first in the goal; `None` for the first, and on a Pareto front."""

    def estimate(self, column: str) -> Estimate:
        """Its figure of a column that the question named."""
        column = ranked_by(column)
        return next((one for one in self.figures if one.column == column), Estimate(column=column, value=None))


class Ranking(Struct, frozen=True, kw_only=True):
    """Cells that may be compared, best first; on a Pareto front by the first goal."""

    circumstances: tuple[Circumstance, ...]
    choices: tuple[Choice, ...]
    left_out: tuple[LeftOut, ...]
    outside: tuple[LeftOut, ...]
    """Of ranked networks the setting that serves the one goal best, where that misses a condition or is invalid."""
    footnotes: tuple[Footnote, ...]
    """What the ranked cells differ in, though they are ranked together."""
    accuracies: tuple[str, ...]
    """Whose weights and protocol the accuracies are of, where the question is about any."""
    networks: int
    """How many were looked at."""


class Picked(Struct, frozen=True, kw_only=True):
    """The answer. One ranking where all rows that satisfy the conditions may be compared."""

    conditions: tuple[str, ...]
    goals: tuple[Goal, ...]
    across: tuple[str, ...]
    rankings: tuple[Ranking, ...]
    warnings: tuple[str, ...] = ()
    """What the question names and the runs do not have: names that match no row, columns that are null in all."""
    trust: tuple[str, ...] = ()
    """Which differences between figures are differences, a statement a run."""
    unfit: tuple[str, ...] = ()
    """What became of cells that satisfy the conditions and have no figure fit to rank, with their number, most first:
    `2 cells: invalid: disturbed`."""

    @property
    def found(self) -> bool:
        """Whether anything satisfies the conditions."""
        return any(ranking.choices for ranking in self.rankings)


def pick(candidates: Candidates, question: Question) -> Picked:
    """Answer `question` from `candidates`: only rows that were measured and are not `invalid` can be chosen."""
    frame = candidates.frame[_needed(question)]
    conditions = [term for condition in question.conditions for term in conjuncts(condition)]
    terms = [term_of(condition, frame) for condition in conditions]
    satisfying = np.logical_and.reduce([np.ones(len(frame), dtype=bool), *(term.truth for term in terms)])
    known = [~np.isnan(goal.costs(frame)) for goal in question.goals]
    wanted = np.logical_and.reduce([satisfying, fit_rows(frame), *known])
    groups = comparable_groups(frame, wanted, question.across, by_accuracy=question.judges_accuracy)
    nothing = [name for name in question.columns if frame[name].isna().all()]
    null = [f"{name.removeprefix('rank_')} is null in every row{_INSTEAD.get(name, '')}." for name in nothing]
    unfit = frame[satisfying & ~fit_rows(frame)]
    columns = zip(*(plain_values(unfit[name]) for name in ("status", "verdict", "reasons")), strict=True)
    outcomes = Counter(failure_line(status, verdict, None, reasons) for status, verdict, reasons in columns)
    return Picked(
        conditions=tuple(show(condition) for condition in question.conditions),
        goals=question.goals,
        across=question.across,
        rankings=tuple(_ranking(frame, question, group, wanted, terms) for group in groups),
        warnings=(*candidates.superseded, *_unmatched(frame, conditions), *null),
        trust=tuple(dict.fromkeys(one.statement for one in candidates.trust.values())),
        unfit=tuple(f"{counted(number, 'cell')}: {outcome}" for outcome, number in outcomes.most_common()),
    )


def every_cell(candidates: Candidates, question: Question) -> tuple[Choice, ...]:
    """All cells that satisfy the conditions, not only each network's best: by network, the best of each first."""
    frame = candidates.frame
    satisfying = (satisfied(condition, frame) for condition in question.conditions)
    kept = frame[np.logical_and.reduce([fit_rows(frame), *satisfying])]
    order = np.argsort(question.goals[0].costs(kept), kind="stable")
    return tuple(sorted(_choices(kept.iloc[order], question), key=lambda one: one.network))


def cells_of(candidates: Candidates, question: Question, cell_ids: Collection[str]) -> tuple[Choice, ...]:
    """The named cells with the figures that the question is about, whether or not they satisfy it."""
    frame = candidates.frame
    return _choices(frame[frame["cell_id"].isin(list(cell_ids))], question)


def _unmatched(frame: pd.DataFrame, conditions: Sequence[Expression]) -> list[str]:
    """Texts that no row has: misspelt, most likely."""
    notes: dict[str, None] = {}
    for leaf in (leaf for condition in conditions for leaf in leaves(condition)):
        if judged_columns()[leaf.column].kind != "text":
            continue
        there = set(frame[leaf.column].dropna().unique().tolist())
        for value in leaf.values if isinstance(leaf, Among) else (leaf.value,):
            if value not in there:
                notes[f"No row has {leaf.column} {value!r}{did_you_mean(str(value), sorted(there)) or '.'}"] = None
    return list(notes)


_INSTEAD = {
    "peak_reserved_bytes": "; on the CPU ask for peak_allocated_bytes",
    "peak_allocated_bytes": "; of runtimes ask for process_bytes",
}
"""Of a column that is null in every row, the one that is measured in its place."""


def _needed(question: Question) -> list[str]:
    """Columns that the answer is made of: copying the others for every ranking would take most of the time."""
    named = [ranked_by(leaf.column) for condition in question.conditions for leaf in leaves(condition)]
    fields = [name for name in Choice.__struct_fields__ if name in judged_columns()]
    ends = [end for both in INTERVALS.values() for end in both]
    return list(dict.fromkeys((*IDENTITY, *RANKING_KEYS, *fields, *named, *question.columns, *ends)))


def _ranking(
    frame: pd.DataFrame, question: Question, group: Comparables, wanted: NDArray[np.bool_], terms: Sequence[Term]
) -> Ranking:
    rows = group.rows
    frame = frame.iloc[rows]
    ranked = wanted[rows]
    goals = [goal.column for goal in question.goals]
    terms = [replace(term, truth=term.truth[rows]) for term in terms]
    out = left_out(frame, terms, goals, ranked)
    beyond: tuple[LeftOut, ...] = ()
    kept = frame[ranked]
    kept = kept[~_outdone(kept, question.goals)]
    costs = np.column_stack([goal.costs(kept) for goal in question.goals])
    if len(goals) == 1:
        chosen = kept.iloc[_best_of_each(kept, costs[:, 0])]
        choices = _ranked(_choices(chosen, question), question.goals[0])
        beyond = outside(frame, terms, goals, _better(frame, ranked, chosen, question.goals[0]))
        unlike = unlike_settings(frame, chosen.iloc[[0] * len(chosen)], chosen)
    else:
        front = pareto_front(costs)
        chosen = kept[front].iloc[np.lexsort(costs[front].T[::-1])]
        choices = _choices(chosen, question)
        winners, losers = _outdone_by(kept, costs, front)
        out = (*_beaten(winners, losers, question), *out)
        unlike = unlike_settings(frame, winners, losers)
    by_accuracy = not ACCURACIES.isdisjoint(question.columns)
    return Ranking(
        circumstances=group.circumstances,
        choices=choices,
        left_out=out,
        outside=beyond,
        footnotes=(*differences(chosen, question.across), *unlike),
        accuracies=accuracies(chosen) if by_accuracy else (),
        networks=int(frame["variant"].nunique()),
    )


def _best_of_each(frame: pd.DataFrame, costs: NDArray[np.float64]) -> NDArray[np.int64]:
    """Positions of each network's best row, best first; of equal ones one that is not suspect, then the first."""
    order = np.lexsort([(frame["verdict"] == "suspect").to_numpy(dtype=bool), costs])
    return order[~frame["variant"].iloc[order].duplicated().to_numpy()]


def _better(frame: pd.DataFrame, ranked: NDArray[np.bool_], chosen: pd.DataFrame, goal: Goal) -> NDArray[np.int64]:
    """Positions of rows that would be better than the chosen row of their network were they ranked.

    The best first, but those behind that are not fit to be ranked at all.
    """
    costs = goal.costs(frame)
    best = dict(zip(chosen["variant"], goal.costs(chosen), strict=True))
    places = np.flatnonzero(~ranked & (costs < frame["variant"].map(best).to_numpy(dtype=float)))
    return places[np.lexsort([costs[places], ~fit_rows(frame)[places]])]


def _outdone(frame: pd.DataFrame, goals: Sequence[Goal]) -> NDArray[np.bool_]:
    """Suspect rows that are in no goal shown to be better than some `ok` row of their network: luck is no gain."""
    suspect = (frame["verdict"] == "suspect").to_numpy(dtype=bool)
    network = frame["variant"].to_numpy()
    outdone = np.zeros(len(frame), dtype=bool)
    if suspect.all() or not suspect.any():
        return outdone
    figures = [_figures(frame, ranked_by(goal.column)) for goal in goals]
    fine: dict[str, list[int]] = {}
    for place in np.flatnonzero(~suspect):
        fine.setdefault(network[place], []).append(int(place))
    for place in np.flatnonzero(suspect):
        outdone[place] = any(
            not any(_shown(row[place], row[other], goal) for row, goal in zip(figures, goals, strict=True))
            for other in fine.get(network[place], ())
        )
    return outdone


def _shown(one: Estimate, other: Estimate, goal: Goal) -> bool:
    """Whether the first figure is better, by more than the two scatter."""
    apart = margin(one, other)
    better = one.value is not None and other.value is not None and (one.value > other.value) == goal.larger
    return better and (apart is None or not apart.tie)


def _choices(frame: pd.DataFrame, question: Question) -> tuple[Choice, ...]:
    plain = [name for name in Choice.__struct_fields__ if name in frame]
    columns = {name: plain_values(frame[name]) for name in plain}
    columns["network"] = plain_values(frame["variant"])
    figures = [_figures(frame, name) for name in question.columns]
    return tuple(
        Choice(rank=rank, figures=row, **dict(zip(columns, values, strict=True)))
        for rank, (row, *values) in enumerate(
            zip(zip(*figures, strict=True) if figures else [()] * len(frame), *columns.values(), strict=True), 1
        )
    )


def _figures(frame: pd.DataFrame, name: str) -> list[Estimate]:
    """One column's figures with their intervals, row by row; a time without one scatters as the latency at least."""
    ends = [plain_values(frame[end]) for end in INTERVALS.get(name, ())] or [[None] * len(frame)] * 2
    scatter = np.zeros(len(frame))
    if name not in INTERVALS and judged_columns()[name].unit in TIMED_UNITS:
        low, high = (numbers(frame[end]) for end in INTERVALS["rank_latency_s"])
        scatter = np.nan_to_num(np.log(high / low) / 2)
    bounds = [name in FROM_MACS and LOWER_BOUND in codes for codes in frame["reasons"]]
    rows = zip(plain_values(frame[name].astype(float)), *ends, scatter.tolist(), bounds, strict=True)
    return [Estimate(name, *row) for row in rows]


def _ranked(choices: tuple[Choice, ...], goal: Goal) -> tuple[Choice, ...]:
    """With the distance from the first, and its rank for those that tie with it."""
    behinds = (margin(choices[0].estimate(goal.column), one.estimate(goal.column)) for one in choices[1:])
    return tuple(
        replace(one, behind=behind, rank=1 if behind is not None and behind.tie else one.rank)
        for one, behind in zip(choices, (None, *behinds), strict=False)  # without choices there is one `None`
    )


def _outdone_by(
    frame: pd.DataFrame, costs: NDArray[np.float64], front: NDArray[np.bool_]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The best row of every network that has none on the front, second; first, pair by pair, a row that beats it."""
    variants = frame["variant"].to_numpy()
    on_front = set(variants[front])
    losers = [place for place in _best_of_each(frame, costs[:, 0]) if variants[place] not in on_front]
    ahead = np.flatnonzero(front)
    ahead = ahead[np.lexsort(costs[ahead].T[::-1])]
    winners = [ahead[int(np.argmax(dominating(costs[ahead], costs[place])))] for place in losers]
    return frame.iloc[winners], frame.iloc[losers]


def _beaten(winners: pd.DataFrame, losers: pd.DataFrame, question: Question) -> tuple[LeftOut, ...]:
    """Every network that satisfies the conditions and has no row on the front: what beats its best row, by how much."""
    found = []
    for winner, loser in zip(_choices(winners, question), _choices(losers, question), strict=True):
        pairs = [(winner.estimate(goal.column), loser.estimate(goal.column)) for goal in question.goals]
        comparisons = tuple(
            GoalMargin(better=better, worse=worse, margin=margin(better, worse)) for better, worse in pairs
        )
        beaten = Beaten(by=winner.network, comparisons=comparisons)
        found.append(LeftOut(network=loser.network, cell_id=loser.cell_id, setting=loser.toggles.label, beaten=beaten))
    return tuple(found)
