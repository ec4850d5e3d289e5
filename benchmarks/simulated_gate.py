"""How often the two-stage gate blames an innocent suite, how often it finds a real slowdown, and with how many pairs.

    python benchmarks/simulated_gate.py [--suites 1000]

A pair's d is log(head / base) of two fresh processes. Cells scatter alike, or by standard deviations that are
log-normal about the stated one; the cell that is slower has the stated one. 3 % of the processes are bad: slower by a
fixed share all through. Seeded; nothing is measured. Goals: fewer than 1 % of suites blame an innocent cell; a slowdown
of one cell by 3 % is found in 98 % of suites where d scatters by 0.7 %, in 95 % where by 1.1 %; one of 5 % in 99.5 %
everywhere; and at most four pairs a cell where all scatter by 0.7 %.
"""

from __future__ import annotations

import argparse
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from archbench.stats.paired import minimum_detectable_effect
from archbench.stats.twostage import (
    CONFIRM_EFFECT,
    CONFIRM_LEVEL,
    CONFIRM_MORE,
    CONFIRM_PAIRS,
    FIRST_LOOK,
    SCREEN_EFFECT,
    SCREEN_PAIRS,
    cleared,
    confirm,
    confirmed_enough,
    power,
    screen,
    usual_scatter,
)
from archbench.stats.variance import Pool

CELLS = 300
BAD_SHARE = 0.03
PAIR_SDS = (0.007, 0.011)
UNEQUAL = (0.0, 0.3, 0.6)
"""Standard deviations of the log of the cells' standard deviations."""
BAD = (0.02, 0.05, 0.10)
SLOWDOWNS = (0.0, 0.03, 0.05)


class Outcome(NamedTuple):
    """Of one suite, or the mean over many."""

    found: float
    """The slow cell is called slower."""
    blamed: float
    """Another one is called slower."""
    pairs: float
    """Pairs a cell, screening and confirming."""
    confirmed: float
    """Cells that were confirmed."""


def pairs(sds: NDArray[np.float64], count: int, rng: np.random.Generator, *, bad: float) -> NDArray[np.float64]:
    """Log ratios of fresh A/A pairs, shape (cells, count): two processes each, a few of them bad."""

    def processes() -> NDArray[np.float64]:
        noise = rng.normal(0, 1, (sds.size, count)) * (sds / np.sqrt(2))[:, None]
        return np.asarray(noise + np.log1p(bad) * (rng.random((sds.size, count)) < BAD_SHARE))

    return processes() - processes()


def screened(drawn: NDArray[np.float64], pool: Pool | None) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Of each cell 1 where it is flagged as slower, -1 as faster, else 0; and the pairs that were looked at."""
    cells = len(drawn)
    lean, looked, settled = np.zeros(cells, int), np.full(cells, SCREEN_PAIRS), np.zeros(cells, bool)
    for count in range(FIRST_LOOK, SCREEN_PAIRS + 1):
        seen = drawn[:, :count]
        above, below = ((sign * seen > SCREEN_EFFECT).sum(axis=1) >= FIRST_LOOK for sign in (1, -1))
        now = ~settled & (above | below | cleared(seen, pool))
        lean[now], looked[now] = np.where(above[now], 1, np.where(below[now], -1, 0)), count
        settled |= now
    wide = ~settled & screen(drawn, pool=pool)
    lean[wide] = 1
    return lean, looked


def suite(
    rng: np.random.Generator, *, cells: int, slowdown: float, bad: float, sd: float, unequal: float = 0.0
) -> Outcome:
    """One suite whose first cell is slower by `slowdown`; the fresh pairs of those that lean to the slow side."""
    sds = sd * np.exp(unequal * rng.normal(size=cells))
    sds[0] = sd
    shift = np.zeros((cells, 1))
    shift[0] = np.log1p(slowdown)
    drawn = pairs(sds, SCREEN_PAIRS, rng, bad=bad) + shift
    pool = usual_scatter(drawn.tolist())
    lean, looked = screened(drawn, pool)
    flagged = np.flatnonzero(lean == 1)
    fresh = (pairs(sds[flagged], CONFIRM_MORE, rng, bad=bad) + shift[flagged]).tolist()
    played = []
    for of_cell in fresh:
        enough = confirmed_enough(of_cell[:CONFIRM_PAIRS], len(flagged), CONFIRM_EFFECT, pool)
        played.append(of_cell[:CONFIRM_PAIRS] if enough else of_cell)
    answers = confirm(played, pool=pool)
    slower = {int(cell) for cell, answer in zip(flagged, answers, strict=True) if answer.regressed}
    innocent = slower - ({0} if slowdown else set())
    total = int(looked.sum()) + sum(map(len, played)) + CONFIRM_PAIRS * int((lean == -1).sum())
    return Outcome(float(0 in slower), float(bool(innocent)), total / cells, float(len(flagged)))


def rates(
    suites: int,
    *,
    slowdown: float,
    bad: float,
    sd: float = PAIR_SDS[0],
    unequal: float = 0.0,
    cells: int = CELLS,
    seed: int = 1,
) -> Outcome:
    """The mean over so many suites."""
    rng = np.random.default_rng(seed)
    every = [suite(rng, cells=cells, slowdown=slowdown, bad=bad, sd=sd, unequal=unequal) for _ in range(suites)]
    return Outcome(*np.mean(every, axis=0).tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", type=int, default=1000)
    suites = parser.parse_args().suites
    print(f"{CELLS} cells, {BAD_SHARE:.0%} bad processes, {suites} suites a line")
    print("sd of d unequal bad ones slowdown   found innocent blamed pairs a cell")
    for sd, unequal, bad, slowdown in product(PAIR_SDS, UNEQUAL, BAD, SLOWDOWNS):
        line = rates(suites, slowdown=slowdown, bad=bad, sd=sd, unequal=unequal)
        shown = f"{line.found:7.1%}" if slowdown else f"{'-':>7}"
        print(
            f"{sd:7.1%} {unequal:7.1f} {bad:+8.0%} {slowdown:8.0%} {shown} {line.blamed:15.1%} {line.pairs:12.2f}",
            flush=True,
        )
    print("what the gate says of a cell: detectable by 12 pairs with a power of 80 %; 3 % found by the whole of it")
    for sd in (*PAIR_SDS, 0.02, 0.09, 0.24):
        smallest = minimum_detectable_effect(sd, CONFIRM_PAIRS, CONFIRM_LEVEL)
        print(f"  sd of d {sd:6.1%}: {smallest:6.1%}  {power(sd):4.0%}")


if __name__ == "__main__":
    main()
