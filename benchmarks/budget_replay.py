"""How much of a full run's decision matrix does a budget already answer? A stored run, played again.

    python benchmarks/budget_replay.py RUN [--minutes 2 5 15]

The rows of a finished run are dealt out in the order in which `archbench run --budget` would have measured them, each
taking as long as it did then; predictions are those of a machine that no run is known of. Prints for each budget when
its report would have stood, how many measurements it has, and how many of the suite's decisions have the answer of the
full run: the same network first, or one that ties with it there; and the same verdict on the usual choice.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from archbench.choose.candidates import candidates
from archbench.choose.matrix import Row, decision_matrix, worths
from archbench.choose.summary import summarise
from archbench.device.kind import kind_named
from archbench.model.cell import Cell
from archbench.results import RunStore, load_frame
from archbench.suite.budget import Spending
from archbench.suite.duration import predict
from archbench.suite.plan import CellVisit, make_plan

VISIT = ["cell_id", "round", "visit"]


class Outcome(NamedTuple):
    """What a budget gave."""

    seconds: float
    visits: int
    networks: int
    same_first: int
    same_verdict: int
    decisions: int


def replay(run: Path, seconds: float) -> Outcome:
    """The run as a budget would have had it."""
    store, frame = RunStore.open(run), load_frame(run)
    suite, environment = store.suite, store.environment
    plan = make_plan(suite, environment.kind)
    rates = kind_named(environment.kind).rates(environment.cpu_count, environment.hardware_class)
    prediction = predict(plan, suite, rates)
    records = {(row.cell_id, row.round, row.visit): row for row in store.records()}
    keys = pd.Series(list(zip(*(frame[name] for name in VISIT), strict=True)))
    spending, spent = Spending(plan, prediction, seconds), prediction.phases["start"]
    seen: set[CellVisit] = set()

    def matrix(wanted: set[CellVisit]) -> tuple[Row, ...]:
        return decision_matrix(suite, candidates(summarise(frame[keys.isin(wanted)]), {}))

    def worth(number: int, cell: Cell) -> float:
        if not known:
            rows = candidates(summarise(frame[keys.isin(seen)]), {})
            known.update(worths(suite, rows, plan.cells, environment))
        return known[number > 0, cell.cell_id]

    while True:
        known: dict[tuple[bool, str], float] = {}
        if (piece := spending.next(spent, worth)) is None:
            break
        for cell in piece.group.cells:
            visit = cell.cell_id, piece.round, piece.group.visit
            if (record := records.get(visit)) is not None:
                spending.note(record)
                spent += record.duration_s or 0.0
                seen.add(visit)
    full, found = matrix(set(keys)), matrix(seen)
    return Outcome(
        seconds=spent + prediction.phases["report"],
        visits=len(seen),
        networks=frame.loc[keys.isin(seen), "variant"].nunique(),
        same_first=sum(map(same_first, full, found)),
        same_verdict=sum(one.standing.holds == other.standing.holds for one, other in zip(full, found, strict=True)),
        decisions=len(full),
    )


def same_first(full: Row, found: Row) -> bool:
    """Whether the network that a part of the rows recommends is first in all of them, or ties with the first."""
    if found.recommended is None or full.recommended is None:
        return found.recommended is full.recommended
    tied = [one.network for one in full.ranking.choices if one.behind is None or one.behind.tie]
    return found.recommended.network in tied


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[2, 5, 15])
    arguments = parser.parse_args()
    print(f"{'budget':>8}{'ends at':>10}{'visits':>8}{'networks':>10}{'same first':>12}{'same verdict':>14}")
    for minutes in arguments.minutes:
        one = replay(arguments.run, 60 * minutes)
        first, verdict = (f"{number} of {one.decisions}" for number in (one.same_first, one.same_verdict))
        ends = f"{one.seconds:.0f} s"
        print(f"{f'{minutes:g} min':>8}{ends:>10}{one.visits:8}{one.networks:10}{first:>12}{verdict:>14}")


if __name__ == "__main__":
    main()
