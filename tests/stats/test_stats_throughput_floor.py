"""A throughput floor of half a second in place of a whole one: what the shorter sampling of a GPU could lose.

Time is made of slices of 10 ms whose speed is an autoregressive process around a known truth; a burst is the mean of
its slices. Both protocols sample the same process by the product's own stopping rule.
"""

from __future__ import annotations

from statistics import fmean

import numpy as np
import pytest
from msgspec import structs
from numpy.typing import NDArray

from archbench.measure.sampling import STRETCH_S, _enough_bursts
from archbench.model.protocol import Protocol
from archbench.stats.intervals import median_interval

SLICE_S = 0.01
TRUTH = 1.0
RUNS = 200
SHORT = Protocol()
LONG = structs.replace(SHORT, burst_s=0.1, min_bursts=10, min_throughput_s=1.0)


def slices(random: np.random.Generator, scatter: float, memory: float) -> NDArray[np.float64]:
    """Relative speeds of enough slices for the longest sampling."""
    noise = random.normal(0.0, scatter * np.sqrt(1 - memory**2), int(2 * SHORT.max_throughput_s / SLICE_S))
    found = np.empty_like(noise)
    found[0] = random.normal(0.0, scatter)
    for n in range(1, len(noise)):
        found[n] = memory * found[n - 1] + noise[n]
    return TRUTH * (1 + found)


def sampled(process: NDArray[np.float64], protocol: Protocol) -> tuple[bool, float, float]:
    """Whether the interval holds the truth, its half-width, and the seconds spent."""
    each = round(protocol.burst_s / SLICE_S)
    stretch = max(1, round(STRETCH_S / protocol.burst_s))
    bursts: list[float] = []
    while True:
        for _ in range(stretch):
            at = len(bursts) * each
            bursts.append(float(process[at : at + each].mean()) * protocol.burst_s)
        if _enough_bursts(bursts, protocol) is not None:
            interval = median_interval([seconds / protocol.burst_s for seconds in bursts])
            assert interval.low is not None
            assert interval.high is not None
            assert interval.half_width is not None
            return interval.low <= TRUTH <= interval.high, interval.half_width, sum(bursts)


@pytest.mark.parametrize(
    ("scatter", "memory"),
    [(0.002, 0.0), (0.01, 0.0), (0.03, 0.0), (0.01, 0.5), (0.03, 0.5)],
    ids=["quiet", "usual", "noisy", "usual, with memory", "noisy, with memory"],
)
def test_the_shorter_floor_loses_neither_coverage_nor_width(scatter: float, memory: float) -> None:
    random = np.random.default_rng(7)
    processes = [slices(random, scatter, memory) for _ in range(RUNS)]
    short, long = ([sampled(process, protocol) for process in processes] for protocol in (SHORT, LONG))
    coverage, before = (fmean(holds for holds, _, _ in runs) for runs in (short, long))
    # Three standard errors of a share of 95 % in 200 runs are 4.6 points.
    assert coverage >= min(0.95, before) - 0.046
    # As narrow as asked for, or, where noise forbids that within the cap, as narrow as before.
    width, width_before = (fmean(width for _, width, _ in runs) for runs in (short, long))
    assert width <= max(SHORT.target_half_width, 1.1 * width_before)
    assert fmean(spent for *_, spent in short) <= 1.05 * fmean(spent for *_, spent in long)
    if scatter < 0.005:
        assert fmean(spent for *_, spent in short) < 0.65
