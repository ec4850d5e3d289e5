"""How many of a suite's answers a cell could still change: what a run with little time measures next.

A cell that may satisfy a decision's conditions, as far as these are known without measuring it, is worth measuring
where its network has no place in that ranking yet, or one that is not clearly behind the first. A cell that has been
measured is worth another visit where it is the first of a ranking that is not clear, or ties with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from archbench.catalog import facts
from archbench.choose.candidates import Candidates
from archbench.choose.evaluate import evaluate
from archbench.choose.matrix import decision_matrix
from archbench.choose.pick import Choice, Question, Ranking, asked, pick
from archbench.model.cell import Cell
from archbench.model.environment import Environment
from archbench.model.record import RunContext, empty_record
from archbench.model.suite import Suite
from archbench.query.expression import Expression, conjuncts

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

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
    frame = _known(cells, environment)
    found = {(again, cell.cell_id): 0.0 for again in (False, True) for cell in cells}
    for conditions, ranking, usual in _questions(suite, candidates):
        open_ = _open_to(conditions, frame)
        behind = {one.network: one.behind.ratio if one.behind else 1.0 for one in ranking.choices}
        contested = _contested(ranking)
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


def _contested(ranking: Ranking) -> set[str]:
    """The cells of a ranking whose order is not clear: those that tie with the first, and the first itself."""
    tied: list[Choice] = [one for one in ranking.choices[1:] if one.behind is not None and one.behind.tie]
    return {one.cell_id for one in (ranking.choices[0], *tied)} if tied else set()


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


def _known(cells: Sequence[Cell], environment: Environment) -> pd.DataFrame:
    """What is known of cells before they are measured, as rows."""
    import pandas as pd

    context = RunContext(run_id="", round=0, environment=environment)
    return pd.DataFrame([msgspec.structs.asdict(empty_record(cell, context, facts(cell.network))) for cell in cells])
