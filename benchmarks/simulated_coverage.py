"""How often the stopping rule's nominal 95 % interval holds the true median, optional stopping included.

    python benchmarks/simulated_coverage.py [--trials 1000]

Steps are simulated with a known median: independent, autocorrelated (AR(1), rho 0.5), skewed, and both; their noise
from far below to far above the rule's target; from 2 ms on a GPU to 400 ms on a CPU. Prints the coverage, the samples
taken, how the sampling ended, and the worst coverage of all. Seeded; nothing is measured.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from archbench.model.axes import DeviceKind
from archbench.model.protocol import protocol_for
from archbench.stats.sampling import StoppingRule

NOISES = ("normal", "ar", "skewed", "skewed-ar")
SETTINGS: tuple[tuple[DeviceKind, float], ...] = (
    ("cuda", 2e-3),
    ("cuda", 10e-3),
    ("cuda", 30e-3),
    ("cuda", 150e-3),
    ("cpu", 15e-3),
    ("cpu", 60e-3),
    ("cpu", 400e-3),
)
SPREADS = (0.3, 1.0, 2.0, 4.0, 10.0)
"""Standard deviation of a step over the target half-width."""


def noise(kind: str, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Unit-variance noise with median 0 (close to it for `skewed-ar`: exactly, by a monotone map)."""
    normal = rng.normal(size=size)
    if kind.endswith("ar"):
        normal[1:] *= np.sqrt(1 - 0.5**2)
        for index in range(1, size):
            normal[index] += 0.5 * normal[index - 1]
    # A monotone map keeps the median: exp(0.8 z) - 1 leans to the right as latencies do.
    return (np.exp(0.8 * normal) - 1) / 1.32 if kind.startswith("skewed") else normal


def rule_for(device: DeviceKind, step_s: float) -> StoppingRule:
    """The rule as the protocol sets it on this kind of device."""
    p = protocol_for(device, {})
    return StoppingRule(
        step_s=step_s,
        min_samples=p.min_samples,
        min_samples_slow=p.min_samples_slow,
        slow_step_s=p.slow_step_s,
        min_blocks=p.min_blocks,
        min_seconds=p.min_sampling_s,
        max_samples=p.max_samples,
        max_seconds=p.max_sampling_s,
        target_half_width=p.target_half_width,
    )


def simulate(
    device: DeviceKind, step_s: float, kind: str, spread: float, trials: int, seed: int
) -> tuple[float, float, Counter[str]]:
    """Coverage, mean number of samples, and how the trials ended."""
    rng = np.random.default_rng(seed)
    held, taken, ends = 0, 0, Counter[str]()
    target = protocol_for(device, {}).target_half_width
    for _ in range(trials):
        rule = rule_for(device, step_s)
        for step in step_s * np.maximum(1 + spread * target * noise(kind, 1000, rng), 0.05):
            rule.add(float(step))
            if rule.done:
                break
        interval = rule.interval
        assert interval.low is not None
        assert interval.high is not None
        assert rule.done is not None
        held += interval.low <= step_s <= interval.high
        taken += rule.count
        ends[rule.done] += 1
    return held / trials, taken / trials, ends


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    trials = parser.parse_args().trials
    worst = dict.fromkeys(NOISES, 1.0)
    print(f"{'device':6} {'step':>7} {'noise':9} {'sd/target':>9} {'coverage':>8} {'samples':>7}  ended")
    for device, step_s in SETTINGS:
        for kind in NOISES:
            for spread in SPREADS:
                coverage, taken, ends = simulate(device, step_s, kind, spread, trials, seed=1)
                worst[kind] = min(worst[kind], coverage)
                how = ", ".join(f"{end} {count / trials:.0%}" for end, count in ends.most_common())
                print(
                    f"{device:6} {step_s * 1e3:5.0f}ms {kind:9} {spread:9.1f} {coverage:8.1%} {taken:7.0f}  {how}",
                    flush=True,
                )
    print("worst coverage:", ", ".join(f"{kind} {coverage:.1%}" for kind, coverage in worst.items()))


if __name__ == "__main__":
    main()
