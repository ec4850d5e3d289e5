from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archbench.stats.sampling import WarmupDetector

RNG = np.random.default_rng


def calls_to_level(steps: object, **options: float) -> float:
    """Steps until the detector is done; infinite if they do not suffice."""
    detector = WarmupDetector(**options)  # type: ignore[arg-type]
    for seconds in steps:  # type: ignore[attr-defined]
        detector.add(float(seconds))
        if detector.done == "level":
            return detector.calls
    return math.inf


def test_equal_steps_are_level_after_three_blocks() -> None:
    assert calls_to_level([0.01] * 100) == 30
    assert calls_to_level([0.01] * 100, block=2, level_change=0.02) == 6


def test_a_step_down_is_level_only_once_it_is_past() -> None:
    detector = WarmupDetector()
    heard = []
    for seconds in [0.012] * 40 + [0.010] * 80:
        detector.add(seconds)
        heard.append(detector.level)
    assert heard[39]
    assert not any(heard[49:60])
    assert heard[-1]


@pytest.mark.parametrize("noise", [0.0, 0.001, 0.003])
@pytest.mark.parametrize("slope", [0.005, -0.001, 0.02])
def test_a_ramp_is_never_level(noise: float, slope: float) -> None:
    # 0.1 % a step and more moves three blocks of ten by 2 % and more.
    count = 600 if slope > 0 else 400
    rng = RNG(1)
    for _ in range(20):
        steps = (1 + slope * np.arange(count)) * (1 + noise * rng.normal(size=count))
        assert calls_to_level(0.01 * steps) == math.inf


@pytest.mark.parametrize("blocks", [2.5, 4, 8])
def test_a_swing_slower_than_a_block_is_not_level(blocks: float) -> None:
    rng = RNG(2)
    for phase in np.linspace(0, 2 * np.pi, 16):
        swing = np.sin(np.arange(180) * 2 * np.pi / (10 * blocks) + phase)
        steps = 0.01 * (1 + 0.1 * swing + 0.002 * rng.normal(size=180))
        assert calls_to_level(steps) == math.inf


def test_a_swing_faster_than_a_block_is_noise() -> None:
    steps = 0.01 * (1 + 0.1 * (np.arange(100) % 2))
    assert calls_to_level(steps) == 30


@pytest.mark.parametrize(("block", "change"), [(10, 0.005), (2, 0.02)])
@pytest.mark.parametrize("noise", [0.001, 0.005, 0.02, 0.1])
def test_a_level_process_is_seldom_called_moving(block: int, change: float, noise: float) -> None:
    rng = RNG(3)
    calls = [
        calls_to_level(np.exp(noise * rng.normal(size=60 * block)), block=block, level_change=change)
        for _ in range(200)
    ]
    assert np.median(calls) <= 4 * block
    assert np.mean(np.array(calls) <= 12 * block) >= 0.97


@pytest.mark.parametrize("step_s", [0.002, 0.01])
def test_what_is_left_of_a_slow_transient_is_small(step_s: float) -> None:
    # Clocks that settle with a time constant of a second, seen through steps too short for fixed blocks of ten.
    rng = RNG(4)
    for _ in range(20):
        seconds = step_s * np.arange(int(10 / step_s))
        excess = 0.1 * np.exp(-seconds)
        steps = step_s * (1 + excess) * (1 + 0.002 * rng.normal(size=excess.size))
        calls = calls_to_level(steps, min_seconds=2.0)
        assert calls < math.inf
        assert excess[int(calls)] < 0.01


def test_minimum_of_calls_and_seconds_and_the_cap() -> None:
    assert calls_to_level([0.01] * 100, min_calls=50) == 50
    assert calls_to_level([0.01] * 100, min_seconds=0.7) == pytest.approx(70, abs=1)
    detector = WarmupDetector(cap_seconds=1.0)
    for index in range(40):
        detector.add(0.02 * 1.05**index)
    assert (detector.level, detector.done) == (False, "capped")


@given(st.lists(st.floats(0.5, 2), min_size=1, max_size=120), st.integers(-10, 10))
def test_the_unit_does_not_matter(steps: list[float], power: int) -> None:
    here, there = WarmupDetector(), WarmupDetector()
    for seconds in steps:
        here.add(seconds)
        there.add(seconds * 2.0**power)
        assert here.level == there.level


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_impossible_steps_are_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="more than 0 s"):
        WarmupDetector().add(seconds)
    with pytest.raises(ValueError, match="cannot tell"):
        WarmupDetector(level_blocks=1)
