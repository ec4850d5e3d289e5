"""Do the printed intervals hold? Runs of known truth: coverage of each kind of interval, and of the statement of trust.

    python benchmarks/simulated_spread.py [--runs 1000]

Equal networks, 2 or 3 visits of 6 to 40 groups; processes scatter by 2 % in the median group, in all alike or unequally
(log-normal, sd 0.3 and 0.6 of the log). Goal: 95 % intervals cover 92 to 97 %, and 2 to 8 % of the pairs of equal
networks lie beyond the one statement. `student`: what the cell's own processes alone would give. Seeded.
"""

from __future__ import annotations

import argparse
import math
from typing import Any, NamedTuple

import numpy as np

from archbench.choose.candidates import WIDER, trust_of
from archbench.choose.cell_summary import CellSummary
from archbench.choose.summary import Spread, half_intervals
from archbench.stats.moderation import median_variance, pooled, t_quantile

SD = 0.02


class Found(NamedTuple):
    """Over all runs of one line."""

    covered: float
    """Share of cells whose interval holds the true time."""
    ratios: float
    """Share of pairs of cells whose ratio's interval holds 1: ties, toggles, flips and fronts."""
    beyond: float
    """Share of pairs of equal networks beyond the statement, those aside that it names as exceptions."""
    stated: float
    """The statement's median."""
    half: float
    """Median half interval."""
    student: float
    """Median half interval by Student's t from the cell's own processes."""


def simulated(rng: np.random.Generator, *, runs: int, groups: int, visits: int, unequal: float) -> Found:
    """Runs of `groups` equal networks that `visits` processes measure each."""
    covered, ratios, beyond, pairs, meant = 0, 0, 0, 0, 0
    stated, halves, students = [], [], []
    blank: dict[str, Any] = dict.fromkeys(CellSummary.__struct_fields__)
    ends = [f"rank_latency_{end}s" for end in ("", "low_", "high_")]
    upper = np.triu_indices(groups, 1)
    for _ in range(runs):
        sds = SD * np.exp(rng.normal(0, unequal, groups))
        logs = rng.normal(0, 1, (groups, visits)) * sds[:, None]
        variance, figure = logs.var(axis=1, ddof=1), np.median(logs, axis=1)
        count = np.full(groups, visits)
        pool = pooled(variance, count - 1)
        half = half_intervals(count, variance, np.zeros(groups), pool)
        cells = [
            CellSummary(**{**blank, "status": "ok", "verdict": "ok", **dict(zip(ends, figures, strict=True))})
            for figures in np.exp([figure, figure - half, figure + half]).T.tolist()
        ]
        trust = trust_of(cells, Spread(latency=pool, groups=groups))
        assert trust.apart is not None
        apart = np.abs(figure[:, None] - figure[None])[upper]
        covered += int((np.abs(figure) <= half).sum())
        ratios += int((apart <= np.hypot(half[:, None], half[None])[upper]).sum())
        usual = half <= WIDER * np.median(half)
        among = (usual[:, None] & usual[None])[upper]
        beyond += int((apart > math.log1p(trust.apart))[among].sum())
        meant += int(among.sum())
        pairs += apart.size
        stated.append(trust.apart)
        halves.append(np.median(half))
        students.append(np.median(t_quantile(visits - 1, 0.975) * np.sqrt(variance * median_variance(visits))))
    medians = (float(np.median(one)) for one in (stated, halves, students))
    return Found(covered / (runs * groups), ratios / pairs, beyond / meant, *medians)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    print(f"{'visits':>6} {'groups':>6} {'unequal':>7} {'cells':>6} {'ratios':>6} {'beyond':>6} {'stated':>6} "
          f"{'half':>6} student")  # fmt: skip
    for visits in (2, 3):
        for groups in (6, 12, 40):
            for unequal in (0.0, 0.3, 0.6):
                found = simulated(np.random.default_rng(1), runs=runs, groups=groups, visits=visits, unequal=unequal)
                shares = " ".join(f"{share:6.1%}" for share in found)
                print(f"{visits:6} {groups:6} {unequal:7.1f} {shares}", flush=True)


if __name__ == "__main__":
    main()
