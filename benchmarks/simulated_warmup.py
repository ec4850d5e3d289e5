"""How long the warm-up detector warms up, and how often the drift test flags, on steps whose truth is known.

    python benchmarks/simulated_warmup.py [--trials 100]

First table: the time at which a GPU's detector finds the steps level (median, and the slowest twentieth), the share of
trials that it calls level within 8 s, and what is left of the transient then. Second: how often samples are flagged as
drifting, level ones (a false alarm) and such as drift by 3 %. Seeded; nothing is measured.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from archbench.model.protocol import protocol_for
from archbench.stats.sampling import WarmupDetector, drifting

HORIZON_S = 8.0
Series = NDArray[np.float64]
COURSES: dict[str, Callable[[Series], Series]] = {
    # Time of a step over its final time, as a function of the seconds since the start.
    "level": np.ones_like,
    "10 % excess, falls in 1 s": lambda t: 1 + 0.1 * np.exp(-t),
    "50 % excess, falls in 0.2 s": lambda t: 1 + 0.5 * np.exp(-t / 0.2),
    "5 % a second": lambda t: 1 + 0.05 * t,
    "swing of 10 % in 1 s": lambda t: 1 + 0.1 * np.sin(2 * math.pi * t),
    "swing of 10 % in 4 s": lambda t: 1 + 0.1 * np.sin(2 * math.pi * t / 4),
}
LASTING = ("level", "10 % excess, falls in 1 s", "50 % excess, falls in 0.2 s")
"""Courses that end level, so that something left of them can be told."""


def noise(count: int, rng: np.random.Generator, rho: float) -> Series:
    """An AR(1) process with unit variance."""
    values = rng.normal(size=count)
    values[1:] *= math.sqrt(1 - rho**2)
    for index in range(1, count):
        values[index] += rho * values[index - 1]
    return values


def warm_up(course: str, step_s: float, sd: float, rho: float, rng: np.random.Generator) -> tuple[float, float]:
    """Seconds until level (infinite past the horizon), and the share of the final time that is left to fall."""
    protocol = protocol_for("cuda", {})
    detector = WarmupDetector(
        block=protocol.warmup_block,
        level_blocks=protocol.warmup_level_blocks,
        level_change=protocol.warmup_level_change,
        min_calls=protocol.warmup_min_calls,
        min_seconds=protocol.warmup_first_cell_s,
    )
    seconds: Series = step_s * np.arange(int(HORIZON_S / step_s), dtype=np.float64)
    truth: Series = COURSES[course](seconds)
    for now, true, step in zip(seconds, truth, truth * np.exp(sd * noise(seconds.size, rng, rho)), strict=True):
        detector.add(float(step_s * step))
        if detector.done == "level":
            return float(now), float(true) - 1
    return math.inf, math.nan


def print_warm_ups(trials: int) -> None:
    rng = np.random.default_rng(1)
    print(f"{'step':>5} {'sd':>5} {'rho':>4} {'course':28} {'median':>7} {'95 %':>7} {'level':>6} {'left':>6}")
    for step_s, sd, rho in ((4e-3, 0.001, 0.0), (4e-3, 0.005, 0.5), (30e-3, 0.005, 0.0), (30e-3, 0.02, 0.5)):
        for course in COURSES:
            results = [warm_up(course, step_s, sd, rho, rng) for _ in range(trials)]
            times = np.array([when for when, _ in results])
            middle, late = np.quantile(times, [0.5, 0.95], method="nearest")
            left = [rest for when, rest in results if math.isfinite(when)]
            shown = f"{np.median(left):6.2%}" if left and course in LASTING else f"{'-':>6}"
            level = np.mean(np.isfinite(times))
            setting = f"{step_s * 1e3:3.0f}ms {sd:5.1%} {rho:4.1f} {course:28}"
            print(f"{setting} {middle:6.2f}s {late:6.2f}s {level:6.0%} {shown}", flush=True)


def print_drifts(trials: int) -> None:
    rng = np.random.default_rng(2)
    print(f"{'samples':>7} {'rho':>4} {'level':>7} {'ramp':>7} {'late ramp':>9} {'step':>7}")
    for count in (12, 30, 60, 120, 300, 1000):
        time = np.arange(count) / count
        drifts = (0 * time, 0.03 * time, 0.06 * np.maximum(time - 0.5, 0), 0.015 * (time >= 0.5))
        for rho in (0.0, 0.5):
            level, *found = (
                # Level samples with much noise, so that the limit hides no false alarm; drifting ones with 0.3 %.
                np.mean(
                    [
                        drifting(1 + drift + (0.003 if drift.any() else 0.05) * noise(count, rng, rho)).drifting
                        for _ in range(trials)
                    ]
                )
                for drift in drifts
            )
            print(f"{count:7} {rho:4.1f} {level:7.1%} {found[0]:7.0%} {found[1]:9.0%} {found[2]:7.0%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    trials = parser.parse_args().trials
    print_warm_ups(trials)
    print_drifts(5 * trials)


if __name__ == "__main__":
    main()
