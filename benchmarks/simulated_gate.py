"""How often the two-stage gate blames an innocent suite, and how often it finds a real slowdown.

    python benchmarks/simulated_gate.py [--suites 1000]

Suites of 300 cells. A pair's d is log(head / base) of two fresh processes, each with a standard deviation of 0.5 %;
3 % of the processes are bad: slower by a fixed share all through. The last block has d as noisy as the noisiest seen
with turn-taking on a shared CPU. Seeded; nothing is measured. Goals: fewer than 1 % of A/A suites alarm; a slowdown of
one cell by 3 % is found in 98 % of suites, by 5 % in 99.5 %.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from archbench.stats.paired import minimum_detectable_effect
from archbench.stats.twostage import CONFIRM_LEVEL, CONFIRM_PAIRS, SCREEN_PAIRS, confirm, screen

CELLS = 300
PROCESS_SD = 0.005
BAD_SHARE = 0.03
PAIR_SD = PROCESS_SD * 2**0.5
SCENARIOS = (
    # sd of d, how much slower bad processes are, true slowdowns of one cell
    (PAIR_SD, 0.02, (0.0, 0.02, 0.03, 0.05)),
    (PAIR_SD, 0.05, (0.0, 0.02, 0.03, 0.05)),
    (PAIR_SD, 0.10, (0.0, 0.02, 0.03, 0.05)),
    (0.011, 0.05, (0.0, 0.03, 0.05)),
)


def pairs(
    shape: tuple[int, ...], rng: np.random.Generator, *, bad: float, sd: float = PROCESS_SD
) -> NDArray[np.float64]:
    """Log ratios of fresh A/A pairs: two processes each, a few of them bad."""

    def processes() -> NDArray[np.float64]:
        return np.asarray(rng.normal(0, sd, shape) + np.log1p(bad) * (rng.random(shape) < BAD_SHARE))

    return processes() - processes()


def blamed(
    rng: np.random.Generator, *, cells: int, slowdown: float, bad: float, sd: float = PROCESS_SD
) -> tuple[bool, int, int]:
    """One suite whose first cell is slower by `slowdown`: whether that was found, innocents blamed, cells confirmed."""
    shift = np.zeros((cells, 1))
    shift[0] = np.log1p(slowdown)
    screened = pairs((cells, SCREEN_PAIRS), rng, bad=bad, sd=sd) + shift
    flagged = np.flatnonzero(screen(screened))
    fresh = pairs((len(flagged), CONFIRM_PAIRS), rng, bad=bad, sd=sd) + shift[flagged]
    regressed = {int(cell) for cell, answer in zip(flagged, confirm(list(fresh)), strict=True) if answer.regressed}
    return 0 in regressed, len(regressed - {0}), len(flagged)


def rates(
    suites: int, *, slowdown: float, bad: float, sd: float = PROCESS_SD, seed: int = 1
) -> tuple[float, float, float]:
    """Share of suites in which the slow cell is found, in which an innocent one is blamed; mean cells confirmed."""
    rng = np.random.default_rng(seed)
    results = [blamed(rng, cells=CELLS, slowdown=slowdown, bad=bad, sd=sd) for _ in range(suites)]
    found, innocent, confirmed = zip(*results, strict=True)
    if slowdown == 0:
        innocent = tuple(n + hit for n, hit in zip(innocent, found, strict=True))
    return float(np.mean(found)), float(np.mean(np.array(innocent) > 0)), float(np.mean(confirmed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", type=int, default=1000)
    suites = parser.parse_args().suites
    print(
        f"{CELLS} cells, {SCREEN_PAIRS} + {CONFIRM_PAIRS} pairs, {BAD_SHARE:.0%} bad processes, {suites} suites a line"
    )
    header = f"{'sd of d':>7} {'bad ones':>8} {'slowdown':>8} {'found':>7} {'innocent blamed':>15} {'confirmed':>9}"
    print(header)
    for sd_of_pair, bad, slowdowns in SCENARIOS:
        for slowdown in slowdowns:
            found, innocent, confirmed = rates(suites, slowdown=slowdown, bad=bad, sd=sd_of_pair / np.sqrt(2))
            shown = f"{found:7.1%}" if slowdown else f"{'-':>7}"
            print(
                f"{sd_of_pair:7.2%} {bad:+8.0%} {slowdown:8.0%} {shown} {innocent:15.1%} {confirmed:9.1f}", flush=True
            )
    print("detectable by 12 pairs with a power of 80 %, least effect aside:")
    for sd_of_pair in (0.007, 0.011, 0.09, 0.24):
        smallest = minimum_detectable_effect(sd_of_pair, CONFIRM_PAIRS, CONFIRM_LEVEL)
        print(f"  sd of d {sd_of_pair:6.1%}: {smallest:6.1%}")


if __name__ == "__main__":
    main()
