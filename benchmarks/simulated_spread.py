"""Do the printed intervals hold? Runs of known truth: coverage of each kind of interval, and of the statement of trust.

    python benchmarks/simulated_spread.py [--runs 1000]

Equal networks, 2 or 3 visits of 6 to 40 groups, at last beside 47 visited once; processes scatter by 2 % in the median
group, in all alike or unequally (log-normal, sd 0.3 and 0.6 of the log). Goal: 95 % intervals cover 92 to 97 %, and 2
to 8 % of the pairs of equal networks lie beyond the one statement. `student`: what the cell's own processes alone would
give. Seeded.
"""

from __future__ import annotations

import argparse
import math
from typing import Any, NamedTuple

import numpy as np

from archbench.choose.candidates import WIDER, trust_of
from archbench.choose.cell_summary import CellSummary
from archbench.choose.summary import Spread, half_intervals
from archbench.stats.variance import LEAST_PRIOR, median_variance, pooled, t_quantile

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
    unlucky: float
    """The statement of the run that states the most in ten."""


def simulated(rng: np.random.Generator, *, runs: int, groups: int, visits: int, unequal: float, once: int = 0) -> Found:
    """Runs of `groups` equal networks that `visits` processes measure each, beside `once` that one does."""
    covered, ratios, beyond, pairs, meant = 0, 0, 0, 0, 0
    stated, halves, students = [], [], []
    blank: dict[str, Any] = dict.fromkeys(CellSummary.__struct_fields__)
    ends = [f"rank_latency_{end}s" for end in ("", "low_", "high_")]
    upper = np.triu_indices(groups + once, 1)
    for _ in range(runs):
        sds = SD * np.exp(rng.normal(0, unequal, groups + once))
        logs = rng.normal(0, 1, (groups + once, visits)) * sds[:, None]
        logs[groups:, 1:] = np.nan
        variance, figure = np.zeros(groups + once), np.nanmedian(logs, axis=1)
        variance[:groups] = logs[:groups].var(axis=1, ddof=1)
        count = np.isfinite(logs).sum(axis=1)
        pool = pooled(variance, count - 1, least_prior=LEAST_PRIOR)
        half = half_intervals(count, variance, np.zeros(groups + once), pool)
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
        students.append(np.median(t_quantile(visits - 1, 0.975) * np.sqrt(variance[:groups] * median_variance(visits))))
    usually, half_width, student = (float(np.median(one)) for one in (stated, halves, students))
    unlucky = float(np.quantile(stated, 0.9))
    return Found(covered / (runs * len(count)), ratios / pairs, beyond / meant, usually, half_width, student, unlucky)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    print(f"{'visits':>6} {'groups':>6} {'unequal':>7} {'cells':>6} {'ratios':>6} {'beyond':>6} {'stated':>6} "
          f"{'half':>6} student unlucky")  # fmt: skip
    for visits, groups, once in ((2, 6, 0), (2, 12, 0), (2, 40, 0), (3, 6, 0), (3, 12, 0), (3, 40, 0), (2, 10, 47)):
        for unequal in (0.0, 0.3, 0.6):
            rng = np.random.default_rng(1)
            found = simulated(rng, runs=runs, groups=groups, visits=visits, unequal=unequal, once=once)
            shares = " ".join(f"{share:6.1%}" for share in found)
            print(f"{visits:6} {groups:3}+{once:<2} {unequal:7.1f} {shares}", flush=True)


if __name__ == "__main__":
    main()
