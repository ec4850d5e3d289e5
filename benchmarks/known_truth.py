"""Is the reported median right, and are the right rows flagged? Fake steps of known cost through the real loops.

    python benchmarks/known_truth.py [--trials 200]

A fake device keeps its own time: every step moves its clock by what the step costs there and then, and its probe tells
when it throttles. Warm-up, sampling, watch and drift test are archbench's own, with the GPU's protocol. Prints, for
each kind of step, how often the interval holds the true median (goal: at least 93 %; a ramp has none and must be
flagged) and how often the row is flagged as it should be, or not at all. A ramp of 1 % a second stays below what the
half second of sampling counts as drift (0.5 %), so the ramp here is one of 5 %. Seeded; nothing is measured.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Callable
from itertools import product

from archbench.device.health import HW_THERMAL, Reading
from archbench.device.kind import Clock, Timing
from archbench.measure.sampling import sample_latency, warm_up
from archbench.measure.watch import Watch
from archbench.model.protocol import Protocol
from archbench.stats.sampling import drifting

STEPS_S = (5e-3, 25e-3)
"""Of the longer ones the last of the warm-up are samples."""
Cost = Callable[[float, random.Random], float]


class FakeDevice(Clock):
    """A clock and a probe in one: both read the time that the steps so far have taken."""

    def __init__(self, cost: Cost, throttles: Callable[[float], bool], seed: int, step_s: float) -> None:
        self._step_s = step_s
        self._cost, self._throttles, self._rng = cost, throttles, random.Random(seed)
        self.now = 0.0

    def latency(self, step: Callable[[], object], steps: int = 1) -> Timing:
        start = self.now
        for _ in range(steps):
            self.now += self._step_s * self._cost(self.now, self._rng)
        return Timing(self.now - start)

    burst = latency

    def read(self) -> Reading:
        mask = HW_THERMAL if self._throttles(self.now) else 0
        self.now += 1e-3  # what a reading takes
        return Reading(at_s=self.now, event_reasons=mask, foreign=())

    def close(self) -> None:
        return None


def hot(period_s: float, share: float) -> Callable[[float], bool]:
    """Throttled for the last `share` of every period."""
    return lambda now: now % period_s > period_s * (1 - share)


def never(now: float) -> bool:
    return False


def slowed(throttles: Callable[[float], bool]) -> Cost:
    return lambda now, rng: rng.lognormvariate(0, 0.01) * (1.4 if throttles(now) else 1.0)


KINDS: dict[str, tuple[Cost, Callable[[float], bool], str | None]] = {
    "constant": (lambda now, rng: 1.0, never, None),
    "jittered 3 %": (lambda now, rng: rng.lognormvariate(0, 0.03), never, None),
    "bimodal 3:1": (lambda now, rng: 1.0 if rng.random() < 0.75 else 1.2, never, None),
    "ramp 5 %/s": (lambda now, rng: (1 + 0.05 * now) * rng.lognormvariate(0, 0.005), never, "nonstationary"),
    "throttled 10 %": (slowed(hot(4.0, 0.1)), hot(4.0, 0.1), None),
    "throttled 60 %": (slowed(hot(1.0, 0.6)), hot(1.0, 0.6), "throttled"),
}
"""What a step costs beside a usual one, when the device throttles, and the reason that its row must have."""


def measure(cost: Cost, throttles: Callable[[float], bool], seed: int, step_s: float) -> tuple[bool, set[str]]:
    """Whether the interval holds the true median, and the reasons that the row would carry."""
    protocol = Protocol()
    device = FakeDevice(cost, throttles, seed, step_s)
    watch = Watch(device, None, protocol)
    warm = warm_up(_nothing, device, protocol, first_cell=True, monitor=watch)
    watch.keep(len(warm.stretches))
    sampled = sample_latency(
        *(_nothing, device, protocol, watch), step_s=warm.step_s, min_samples=29, begun=warm.stretches
    )
    reasons = set(watch.report().reasons)
    kept = [timing.host_s for timing in sampled.kept()]
    if not warm.level or (len(kept) > 1 and drifting(kept, protocol.warmup_level_change).drifting):
        reasons.add("nonstationary")
    interval = sampled.interval
    assert interval.low is not None
    assert interval.high is not None
    return interval.low <= step_s * (1 + 1e-9) and interval.high >= step_s * (1 - 1e-9), reasons


def _nothing() -> None:
    """The step: what it costs, the device says."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    trials = parser.parse_args().trials
    print(f"{'step':27}{'holds the truth':>17}{'flagged as due':>16}   reasons")
    for (name, (cost, throttles, due)), step_s in product(KINDS.items(), STEPS_S):
        results = [measure(cost, throttles, seed, step_s) for seed in range(trials)]
        flags = Counter(reason for _, reasons in results for reason in reasons)
        right = sum((due in reasons) if due else not reasons for _, reasons in results) / trials
        share = "-" if due == "nonstationary" else f"{sum(holds for holds, _ in results) / trials:.1%}"
        print(f"{name:16}{step_s * 1e3:8.0f} ms{share:>17}{right:>16.1%}   {dict(flags) or 'none'}", flush=True)


if __name__ == "__main__":
    main()
