"""How often does `archbench history` see a change that is none, and find one that is: its first detector, and both?

Series of runs of one cell, in logs: level noise of several shapes with a standard deviation of about 1 (the statistic
does not depend on it), and the same with a step of some standard deviations. A step is found where the one change seen
is where it was made. The first detector is the likelihood ratio; beside it the ranks have a vote.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from archbench.stats.changepoint import LEVEL, change_points

Noise = Callable[[np.random.Generator, int], NDArray[np.float64]]


def wild(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Normal, but one run in ten lies up to 20 standard deviations up: a neighbour's night."""
    return rng.normal(size=size) + (rng.random(size) < 0.1) * rng.uniform(5, 20, size)


NOISE: dict[str, Noise] = {
    "normal": lambda rng, size: rng.normal(size=size),
    "exponential": lambda rng, size: rng.exponential(size=size),
    "Student's t, 3": lambda rng, size: rng.standard_t(3, size=size) / np.sqrt(3),
    "one run in ten wild": wild,
}
LENGTHS = (6, 11, 20, 60)
STEPS = ((3, 3), (8, 3), (10, 10), (30, 3))
SIZES = (4.0, 6.0, 10.0, 15.0)


def seen(series: NDArray[np.float64]) -> tuple[list[int], list[int]]:
    """Where the first detector sees a change, and where any does."""
    changes = change_points(series)
    return [one.index for one in changes if one.p <= LEVEL], [one.index for one in changes]


def false_alarms(noise: Noise, runs: int, series: int, seed: int = 0) -> list[float]:
    """The share of level series in which the first detector sees a change, and in which any does."""
    rng = np.random.default_rng(seed)
    return np.mean([[bool(places) for places in seen(noise(rng, runs))] for _ in range(series)], axis=0).tolist()


def found(noise: Noise, before: int, after: int, size: float, series: int, seed: int = 0) -> list[float]:
    """The share of series with a step in which it alone is seen, by the first detector and by any."""
    rng, step = np.random.default_rng(seed), np.repeat([0.0, size], [before, after])
    places = [seen(step + noise(rng, before + after)) for _ in range(series)]
    return np.mean([[one == [before] for one in both] for both in places], axis=0).tolist()


def main() -> None:
    """Print both tables."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--series", type=int, default=2000, help="of each kind")
    series = options.parse_args().series
    print("Level series with a change, %: by the first detector, by any")
    print(f"{'':22}" + "".join(f"{f'{runs} runs':>13}" for runs in LENGTHS))
    for name, noise in NOISE.items():
        rates = (false_alarms(noise, runs, series) for runs in LENGTHS)
        print(f"{name:22}" + "".join(f"{100 * one:7.2f}{100 * any_of:6.2f}" for one, any_of in rates))
    print("\nSteps found, %: by the first detector, by any")
    print(f"{'':22}{'':8}" + "".join(f"{f'{size:g} sd':>13}" for size in SIZES))
    for name, noise in NOISE.items():
        for before, after in STEPS:
            rates = (found(noise, before, after, size, series) for size in SIZES)
            row = "".join(f"{100 * one:7.1f}{100 * any_of:6.1f}" for one, any_of in rates)
            print(f"{name:22}{f'{before}+{after}':8}{row}")


if __name__ == "__main__":
    main()
