"""What a stored baseline from another day costs: how often `compare` is wrong, and what it says with it.

    python benchmarks/simulated_stored.py [--suites 100]

Suites of 100 cells and 10 processes a side with a standard deviation of 0.5 %, and a twin that is visited three times a
round. The head was measured on another day, on which everything took 1 % more. One cell is slower by what the line
says. The last lines have a floor from `gate --aa` that is as wide as the days differ. Seeded; nothing is measured.
Goal: whatever is called slower, the comparison says that its baseline is stored and what its floor is.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow.parquet as pq

from archbench.comparison import Rows, compare, read_rows
from archbench.comparison.judge import judge_whole
from archbench.model.cell import Cell, Network
from archbench.model.comparison import Comparison, Floor
from archbench.model.environment import Environment
from archbench.model.record import Facts, RunContext, empty_record
from archbench.results.journal import RECORDS, to_table
from archbench.stats.paired import unpaired

CELLS = 100
PROCESSES = 10
PROCESS_SD = 0.005
DAYS_FLOOR = Floor(spread=0.02, origin="gate --aa over several days")
SCENARIOS = (
    # shift of the day, slowdown of one cell, floors known beside the twins
    (0.00, 0.00, ()),
    (0.01, 0.00, ()),
    (0.01, 0.03, ()),
    (0.01, 0.05, ()),
    (0.02, 0.00, ()),
    (0.02, 0.00, (DAYS_FLOOR,)),
    (0.01, 0.05, (DAYS_FLOOR,)),
)
WHOLE_SLOWER = (0.0, 0.02, 0.03, 0.05, 0.10)
WHOLE = (
    # cells, processes a side, sd of a process, sd of a cell's own shift
    (6, 3, 0.01, 0.00),
    (6, 3, 0.03, 0.00),
    (6, 3, 0.03, 0.03),
    (6, 3, 0.05, 0.00),
    (40, 3, 0.03, 0.03),
)
_MACHINE = Environment(
    hardware_class="simulated GPU",
    device="cuda:0",
    cpu_model="simulated",
    cpu_count=8,
    memory_bytes=2**36,
    os="none",
    kernel="none",
    python_version="3.12",
    archbench_version="0",
    torch_version="2.15.0",
)
_FACTS = Facts(family=None, source=None, input_size=224, top1=None, top5=None, accuracy_source=None)


class Rates(NamedTuple):
    """Over all suites of one line."""

    found: float
    """Share of suites whose slow cell is called slower."""
    innocent: float
    """Share of suites in which another cell is called slower."""
    silent: int
    """Comparisons that call a cell slower without saying that the baseline is stored and what its floor is."""
    floor: float
    """Mean noise floor."""


def rows(place: Path, cells: int) -> Rows:
    """A side without times: every cell with its processes, and a twin with three visits a round."""
    records = []
    for name in ("twin", *(f"net{number}" for number in range(cells))):
        cell = Cell(network=Network(name=name), batch_size=1, device="cuda")
        for round_ in range(PROCESSES):
            for visit in range(3 if name == "twin" else 1):
                context = RunContext(run_id="simulated", round=round_, visit=visit, environment=_MACHINE)
                blank = empty_record(cell, context, _FACTS)
                records.append(msgspec.structs.replace(blank, status="ok", verdict="ok", latency_median_s=1.0))
    path = place / "side.parquet"
    pq.write_table(to_table(records, RECORDS), path)
    return read_rows(path)


def drawn(side: Rows, rng: np.random.Generator, *, shift: float, slowdown: float) -> Rows:
    """The side with times drawn anew: 10 ms, later by the day's shift, and `net0` by the slowdown on top."""
    slow = (side.frame["architecture"] == "net0").to_numpy() * np.log1p(slowdown)
    logs = np.log(0.010) + np.log1p(shift) + slow + rng.normal(0, PROCESS_SD, len(side.frame))
    return msgspec.structs.replace(side, frame=side.frame.assign(latency_median_s=np.exp(logs)))


def honest(comparison: Comparison) -> bool:
    """Whatever is called slower says itself, as the notes do, that the baseline is stored and what its floor is."""
    floor = comparison.floor
    if floor is None:
        return not comparison.having("slower", "faster")
    sentences = [comparison.notes[0], *(cell.why.sentence for cell in comparison.having("slower", "faster"))]
    return all("baseline is stored" in sentence and floor.origin in sentence for sentence in sentences)


def rates(suites: int, *, shift: float, slowdown: float, floors: Sequence[Floor] = (), cells: int = CELLS) -> Rates:
    """Compare `suites` pairs of runs, seeded."""
    rng = np.random.default_rng(1)
    found, innocent, silent, spreads = [], [], 0, []
    with TemporaryDirectory() as place:
        side = rows(Path(place), cells)
        for _ in range(suites):
            answer = compare(
                drawn(side, rng, shift=0.0, slowdown=0.0),
                drawn(side, rng, shift=shift, slowdown=slowdown),
                floors=floors,
            )
            blamed = {cell.architecture for cell in answer.having("slower")}
            found.append("net0" in blamed)
            innocent.append(bool(blamed - ({"net0"} if slowdown else set())))
            silent += not honest(answer)
            spreads.append(answer.floor.spread if answer.floor else 0.0)
    return Rates(float(np.mean(found)), float(np.mean(innocent)), silent, float(np.mean(spreads)))


def whole_slower(suites: int, *, cells: int, processes: int, sd: float, slower: float, own_shift: float = 0.0) -> float:
    """Share of suites that are slower as a whole, every cell of which takes `slower` more in the head.

    `sd`: of a process's log time; `own_shift`: sd of what a cell of its own shifts by from one session to the other.
    """
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(suites):
        base = rng.normal(0, sd, (cells, processes))
        head = rng.normal(0, sd, (cells, processes)) + rng.normal(0, own_shift, (cells, 1)) + np.log1p(slower)
        whole = judge_whole([unpaired(*sides) for sides in zip(np.exp(base), np.exp(head), strict=True)])
        found += whole is not None and whole.verdict == "slower"
    return found / suites


def fixed_percentage(suites: int, *, limit: float, processes: int, shift: float = 0.0) -> float:
    """Share of A/A suites in which a rule that knows no noise, median more than `limit` slower, blames a cell.

    As in `simulated_gate`, 3 % of the processes are bad: 5 % slower all through.
    """
    rng = np.random.default_rng(1)
    shape = (2, CELLS, processes)
    alarms = 0
    for _ in range(suites):
        logs = rng.normal(0, PROCESS_SD, shape) + np.log1p(0.05) * (rng.random(shape) < 0.03)
        base, head = np.median(logs, axis=-1)
        alarms += bool((head - base + np.log1p(shift) > np.log1p(limit)).any())
    return alarms / suites


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", type=int, default=100)
    suites = parser.parse_args().suites
    print(f"{CELLS} cells, {PROCESSES} processes a side, process sd {PROCESS_SD:.1%}, {suites} suites a line")
    for processes in (1, 3, PROCESSES):
        shares = [fixed_percentage(1000, limit=limit, processes=processes) for limit in (0.01, 0.03, 0.05)]
        print(
            f"a fixed 1, 3, 5 % on medians of {processes:2} processes blames a cell in "
            f"{', '.join(f'{share:.0%}' for share in shares)} of A/A suites"
        )
    print(f"{'day':>5} {'slowdown':>8} {'floor':>6} {'found':>6} {'innocent blamed':>15} {'silent':>6}")
    for shift, slowdown, floors in SCENARIOS:
        line = rates(suites, shift=shift, slowdown=slowdown, floors=floors)
        found = f"{line.found:6.1%}" if slowdown else f"{'-':>6}"
        print(
            f"{shift:+5.0%} {slowdown:8.0%} {line.floor:6.1%} {found} {line.innocent:15.1%} {line.silent:6}", flush=True
        )

    print("all cells together, each slower by the same; its own shift from session to session")
    print(f"{'cells':>5} {'processes':>9} {'sd':>5} {'shift':>5} " + " ".join(f"{s:+6.0%}" for s in WHOLE_SLOWER))
    for cells, processes, sd, shift in WHOLE:
        shares = [
            whole_slower(10 * suites, cells=cells, processes=processes, sd=sd, slower=slower, own_shift=shift)
            for slower in WHOLE_SLOWER
        ]
        print(f"{cells:5} {processes:9} {sd:5.1%} {shift:5.1%} " + " ".join(f"{share:6.1%}" for share in shares))


if __name__ == "__main__":
    main()
