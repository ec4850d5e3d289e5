from __future__ import annotations

import gc
import math
import random

import pytest
from fakes import ReplayClock, ScriptedMonitor, nothing
from msgspec import structs

from archbench.device.kind import Timing
from archbench.measure.sampling import (
    FIRST_GLIMPSE,
    STALLED,
    Sampled,
    Stretch,
    bursts_within,
    gc_paused,
    sample_latency,
    sample_throughput,
    warm_up,
)
from archbench.model.protocol import Protocol, protocol_for
from archbench.stats.intervals import blocked_interval

GPU = Protocol()


@pytest.fixture(autouse=True, scope="module")
def _frozen():
    """As in a worker: what is imported is not walked by each collection."""
    gc.freeze()
    yield
    gc.unfreeze()


CPU = protocol_for("cpu", {})


def latency(costs, *, protocol=GPU, step_s=5e-3, min_samples=0, monitor=None):
    clock = costs if isinstance(costs, ReplayClock) else ReplayClock(costs)
    return sample_latency(
        nothing, clock, protocol, monitor or ScriptedMonitor(), step_s=step_s, min_samples=min_samples
    )


def test_a_constant_step_is_reported_exactly_and_stops_at_the_minimum():
    sampled = latency([5e-3])
    assert sampled.interval.median == pytest.approx(5e-3)
    assert sampled.interval.low == pytest.approx(5e-3)
    assert sampled.stop == "converged"
    assert 60 <= len(sampled.kept()) <= 100  # 0.3 s of 5 ms steps, and the rest of its stretch


def test_short_steps_are_timed_together_and_reported_singly():
    sampled = latency([1e-4], step_s=1e-4)
    assert sampled.steps == 10
    assert sampled.interval.median == pytest.approx(1e-4)


def test_slow_steps_keep_their_lower_minimum_whatever_the_percentiles_want():
    sampled = latency([1.0], protocol=CPU, step_s=1.0, min_samples=299)
    assert len(sampled.kept()) == 12


def test_percentiles_raise_the_minimum_of_quick_steps():
    assert len(latency([5e-3], min_samples=299).kept()) >= 299


def test_noise_is_capped_in_time():
    rng = random.Random(1)
    sampled = latency(lambda i: 5e-3 * rng.lognormvariate(0, 0.5))
    assert sampled.stop in ("capped", "plateau")
    assert sum(t.host_s for t in sampled.kept()) < GPU.max_sampling_s + 0.5


def test_rejected_stretches_are_dropped_and_repeated():
    # Stretches take 0.2 s = 40 steps of 5 ms; the first two, at twice the cost, are rejected.
    clock = ReplayClock(lambda i: 1e-2 if i < 40 else 5e-3)
    sampled = latency(clock, monitor=ScriptedMonitor(["throttled", "throttled"]))
    assert sampled.interval.median == pytest.approx(5e-3)
    assert [stretch.kept for stretch in sampled.stretches[:3]] == [False, False, True]
    assert sampled.stretches[-1].kept


def test_a_cause_that_persists_ends_sampling_after_three_and_shows_what_was_seen():
    sampled = latency([5e-3], monitor=ScriptedMonitor(["throttled"] * 10_000))
    assert [stretch.rejected for stretch in sampled.stretches] == ["throttled"] * 3
    assert sampled.given_up == "throttled"
    assert sampled.stop is None
    assert sampled.kept() == []
    assert sampled.interval.median == pytest.approx(5e-3)
    bursts = sample_throughput(nothing, ReplayClock([1e-3]), GPU, ScriptedMonitor(["device_lost"] * 99), step_s=1e-3)
    assert (len(bursts.stretches), bursts.given_up) == (3, "device_lost")


def test_causes_that_come_and_go_are_repeated_until_time_is_up(monkeypatch):
    script = ["throttled", "throttled", "foreign_process"] * 3_000
    assert latency([5e-3], monitor=ScriptedMonitor([*script[:9], None])).stop is not None
    monkeypatch.setattr("archbench.measure.sampling.MOST_REPEATS", 0.0)
    sampled = latency([5e-3], monitor=ScriptedMonitor(script))
    assert sampled.stop is None
    assert sampled.given_up is None
    assert not any(stretch.kept for stretch in sampled.stretches)


def test_throughput_counts_bursts_and_not_samples():
    sampled = sample_throughput(nothing, ReplayClock([1e-3]), GPU, ScriptedMonitor(), step_s=1e-3)
    assert sampled.steps == 50  # a burst is 0.05 s
    assert len(sampled.kept()) >= GPU.min_bursts
    assert sampled.interval.median == pytest.approx(1e-3)


def test_throughput_takes_the_devices_time_where_it_has_one():
    sampled = sample_throughput(nothing, ReplayClock([1e-3], device=True), GPU, ScriptedMonitor(), step_s=1e-3)
    assert sampled.interval.median == pytest.approx(0.8e-3)


class QueuingClock(ReplayClock):
    """Of a device that works behind the host: a step is issued in a tenth of its time."""

    def latency(self, step, steps=1):
        seconds = super().latency(step, steps).host_s
        return Timing(seconds, seconds * 0.9, seconds * 0.1)


def test_bursts_are_means_of_steps_that_latency_timed_where_no_device_queues_them():
    # Nine of ten steps take 10 ms, the tenth 110: 20 in the mean, whatever ten of them make a burst of 0.1 s.
    skewed = latency([10e-3] * 9 + [110e-3], protocol=CPU, step_s=10e-3)
    assert skewed.interval.median == pytest.approx(10e-3)
    assert bursts_within(skewed, CPU).median == pytest.approx(20e-3)
    slow = latency([0.2], protocol=CPU, step_s=0.2)
    assert bursts_within(slow, CPU) == slow.interval
    # A quiet machine ends the sampling after a quarter of a second: shorter bursts, but enough for an interval.
    early = latency([10e-3], protocol=CPU, step_s=10e-3)
    assert sum(timing.host_s for timing in early.kept()) < CPU.min_bursts * CPU.burst_s
    assert bursts_within(early, CPU).low == pytest.approx(10e-3)


@pytest.mark.parametrize("step_s", [10e-3, 60e-3], ids=["bursts of five", "bursts of two"])
def test_the_interval_over_short_bursts_holds_the_mean_of_correlated_steps(step_s):
    rng, scatter, memory, held = random.Random(5), 0.1, 0.5, 0
    for _ in range(400):
        noise, times = rng.gauss(0, scatter), []
        for _ in range(30):
            noise = memory * noise + rng.gauss(0, scatter * math.sqrt(1 - memory**2))
            times.append(step_s * math.exp(noise))
        timed = Stretch(timings=tuple(map(Timing, times)))
        sampled = Sampled(stretches=(timed,), steps=1, interval=blocked_interval(times), stop=None)
        found = bursts_within(sampled, CPU)
        held += found.low <= step_s * math.exp(scatter**2 / 2) <= found.high
    assert held >= 0.94 * 400


def test_a_device_that_queues_steps_is_given_bursts_of_its_own_unless_one_step_is_as_long():
    assert bursts_within(latency(QueuingClock([5e-3])), GPU) is None
    assert bursts_within(latency(QueuingClock([60e-3]), step_s=60e-3), GPU).median == pytest.approx(60e-3)


def test_warm_up_outlasts_a_ramp_and_reports_the_level():
    ramp = ReplayClock(lambda i: 5e-3 * (2 - min(i, 500) / 500))
    warm = warm_up(nothing, ramp, GPU, first_cell=True)
    assert warm.level
    assert warm.calls > 500
    assert warm.step_s == pytest.approx(5e-3, rel=0.01)


def test_whoever_waits_is_told_a_step_after_the_first_few_and_again_once_it_is_warm():
    glimpsed: list[tuple[int, float]] = []
    ramp = ReplayClock(lambda i: 5e-3 * (2 - min(i, 500) / 500))
    warm = warm_up(nothing, ramp, GPU, first_cell=True, glimpse=lambda step_s: glimpsed.append((ramp.steps, step_s)))
    (early, guess), (late, level) = glimpsed
    assert early == 1 + FIRST_GLIMPSE
    assert guess == pytest.approx(10e-3, rel=0.01)
    assert (late, level) == (warm.calls, warm.step_s)


def test_warm_up_that_never_levels_is_capped_and_says_so():
    warm = warm_up(nothing, ReplayClock(lambda i: 5e-3 * 1.01**i), GPU, first_cell=True)
    assert not warm.level


def test_the_first_cell_warms_up_for_longer():
    first = warm_up(nothing, ReplayClock([5e-3]), GPU, first_cell=True)
    later = warm_up(nothing, ReplayClock([5e-3]), GPU, first_cell=False)
    assert first.calls * 5e-3 >= 0.7 > later.calls * 5e-3 >= 0.1


def test_slow_steps_may_level_after_the_cap_in_seconds():
    warm = warm_up(nothing, ReplayClock([2.0]), CPU, first_cell=True)
    assert warm.level


def begun_warm(costs, monitor=None):
    """A CPU's warm-up under a monitor, and its sampling, which begins with what was level."""
    clock, monitor = ReplayClock(costs), monitor or ScriptedMonitor()
    warm = warm_up(nothing, clock, CPU, first_cell=True, monitor=monitor)
    sampled = sample_latency(*(nothing, clock, CPU, monitor), step_s=warm.step_s, min_samples=0, begun=warm.stretches)
    return clock, warm, sampled


@pytest.mark.parametrize(("step_s", "unsampled"), [(20e-3, 1 + 20), (50e-3, 1 + 8), (0.3, 1 + 2)])
def test_what_the_warm_up_found_level_past_its_least_is_the_first_of_the_samples(step_s, unsampled):
    """Blocks of 10, 4 and 2 steps, of three needed; the least is 0.3 s."""
    clock, warm, sampled = begun_warm([step_s])
    assert warm.unsampled == unsampled
    assert warm.unsampled + len(sampled.kept()) == clock.steps
    assert sampled.stretches[: len(warm.stretches)] == warm.stretches
    assert len(sampled.stretches) > len(warm.stretches)
    assert sampled.interval.median == pytest.approx(step_s)
    assert sampled.interval.half_width == pytest.approx(0.0)
    assert len(sampled.kept()) >= len(latency([step_s], protocol=CPU, step_s=step_s).kept())


def test_the_warm_up_that_a_suite_asks_for_holds_no_samples():
    for least in ({"warmup_first_cell_s": 3.0}, {"warmup_min_calls": 60}):
        protocol = structs.replace(CPU, **least)
        clock, monitor = ReplayClock([50e-3]), ScriptedMonitor()
        warm = warm_up(nothing, clock, protocol, first_cell=True, monitor=monitor)
        assert 60 <= warm.unsampled <= 64


def test_steps_too_short_to_be_timed_singly_are_no_samples():
    """The first three took their time; so blocks are as long as for slow steps, and then too short to be watched."""
    monitor = ScriptedMonitor()
    warm = warm_up(nothing, ReplayClock(lambda i: 9e-3 if i > 2 else 50e-3), CPU, first_cell=True, monitor=monitor)
    assert not warm.stretches
    assert monitor.stretches == 0


def test_steps_before_the_level_are_no_samples():
    _, warm, sampled = begun_warm(lambda i: 50e-3 * (2 - min(i, 40) / 40))
    assert warm.level
    assert warm.stretches
    assert max(timing.host_s for timing in sampled.kept()) < 1.05 * 50e-3
    assert warm.unsampled > 20


def test_short_steps_warm_up_without_a_look_each():
    monitor = ScriptedMonitor()
    assert not warm_up(nothing, ReplayClock([5e-3]), CPU, first_cell=True, monitor=monitor).stretches
    assert monitor.stretches == 0


def test_a_rejected_stretch_of_the_warm_up_and_all_before_it_are_no_samples():
    _, warm, sampled = begun_warm([0.3], ScriptedMonitor(["throttled", None]))
    assert [stretch.rejected for stretch in warm.stretches] == [None]
    assert (warm.calls, warm.unsampled) == (1 + 6, 1 + 4)
    assert all(stretch.kept for stretch in sampled.stretches)


def test_a_warm_up_that_never_levels_leaves_no_samples():
    _, warm, _ = begun_warm(lambda i: 50e-3 * 1.05**i)
    assert not warm.level
    assert not warm.stretches


@pytest.mark.parametrize(("memory", "regime"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.04)])
def test_intervals_that_begin_in_the_warm_up_hold_the_true_median_as_often_as_others(memory, regime):
    """Noise of 5 %, independent and correlated; and a speed that changes by 4 % either way some time every second,
    which no interval within a process holds: there it is only to be no worse for it."""
    held = {True: 0, False: 0}
    for seed in range(300):
        for begins in held:
            rng, state = random.Random(seed), [0.0, 0.0]

            def cost(_, rng=rng, state=state):
                state[0] = memory * state[0] + rng.gauss(0, 0.05 * math.sqrt(1 - memory**2))
                state[1] = rng.choice((-regime, regime)) if rng.random() < 0.04 else state[1]
                return 40e-3 * math.exp(sum(state))

            clock, monitor = ReplayClock(cost), ScriptedMonitor()
            warm = warm_up(nothing, clock, CPU, first_cell=True, monitor=monitor if begins else None)
            words = (nothing, clock, CPU, monitor)
            found = sample_latency(*words, step_s=warm.step_s, min_samples=0, begun=warm.stretches).interval
            held[begins] += found.low <= 40e-3 <= found.high
    assert held[True] >= held[False] - 0.03 * 300
    assert regime or held[True] >= 0.93 * 300


def test_gc_is_off_inside_and_back_on_after_an_error():
    assert gc.isenabled()
    seen = []

    def fails():
        with gc_paused():
            seen.append(gc.isenabled())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert seen == [False]
    assert gc.isenabled()


TRIALS = 600  # with 200 the share itself has a standard error of 1.5 %


@pytest.mark.parametrize(
    ("name", "spread"),
    [("constant", 0.0), ("jittered", 0.03), ("bimodal", 0.0)],
)
def test_the_reported_interval_holds_the_true_median(name, spread):
    held = 0
    for trial in range(TRIALS):
        rng = random.Random(trial)
        if name == "bimodal":
            # Three of five steps at 5 ms: the median is there, and the rest must not move it.
            costs = lambda i, rng=rng: 5e-3 if rng.random() < 0.75 else 6e-3  # noqa: E731
        else:
            costs = lambda i, rng=rng: 5e-3 * rng.lognormvariate(0, spread)  # noqa: E731
        interval = latency(costs).interval
        held += interval.low <= 5e-3 * (1 + 1e-12) and interval.high >= 5e-3 * (1 - 1e-12)
    assert held / TRIALS >= 0.93


class Neighbour:
    """Holds the cores from one moment to another of a time that goes on with the steps, and 0.5 s at each pause.

    Meanwhile a step takes 40 times its 20 ms, and the monitor, whose pauses are those of `Watch`, sees it.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, begin_s: float, end_s: float) -> None:
        self.now = 0.0
        self.begin_s, self.end_s = begin_s, end_s
        self._rejected: str | None = None
        self._crowded = False
        monkeypatch.setattr("archbench.measure.sampling.time.perf_counter", lambda: self.now)

    def cost(self, _: int) -> float:
        held = self.begin_s <= self.now < self.end_s
        self._crowded |= held
        seconds = 0.8 if held else 0.02
        self.now += seconds
        return seconds

    def begin(self) -> None:
        self.now += 0.5 if self._rejected else 0.0
        self._crowded = False

    def end(self, *, slow: bool = False) -> str | None:
        self._rejected = STALLED if slow and self._crowded else None
        return self._rejected


QUICK = structs.replace(CPU, max_sampling_s=1.0)


@pytest.mark.parametrize(("begin_s", "end_s"), [(0.3, 3.0), (0.0, 4.0)])
def test_a_stall_is_waited_for_and_does_not_count(monkeypatch, begin_s, end_s):
    neighbour = Neighbour(monkeypatch, begin_s, end_s)
    sampled = latency(neighbour.cost, protocol=QUICK, step_s=0.02, monitor=neighbour)
    assert {stretch.rejected for stretch in sampled.stretches} == {None, "stalled"}
    assert all(len(stretch.timings) == 1 for stretch in sampled.stretches if stretch.rejected and begin_s == 0.0)
    assert {timing.host_s for timing in sampled.kept()} == {0.02}
    assert (sampled.stop, sampled.given_up) == ("converged", None)
    assert neighbour.now < end_s + 3.0


@pytest.mark.parametrize("begin_s", [0.0, 0.3])
def test_a_neighbour_that_stays_makes_a_stalled_cell_within_its_time(monkeypatch, begin_s):
    neighbour = Neighbour(monkeypatch, begin_s, 1e9)
    sampled = latency(neighbour.cost, protocol=QUICK, step_s=0.02, monitor=neighbour)
    assert (sampled.stop, sampled.given_up) == (None, "stalled")
    assert neighbour.now < 2 * QUICK.max_sampling_s + QUICK.stall_wait_s + 2.0
    assert {timing.host_s for timing in sampled.kept()} <= {0.02}
    bursts = sample_throughput(nothing, ReplayClock(neighbour.cost), QUICK, neighbour, step_s=0.02)
    assert bursts.given_up == "stalled"


def test_a_network_that_is_slow_by_itself_now_and_then_is_not_stalled(monkeypatch):
    """Two kinds of step, one 40 times the other, and nobody else on the cores: that is what it is."""
    alone = Neighbour(monkeypatch, 1e9, 1e9)
    sampled = latency(lambda i: 0.8 if i % 3 == 0 else 0.02, protocol=QUICK, step_s=0.02, monitor=alone)
    assert all(stretch.kept for stretch in sampled.stretches)
    assert max(timing.host_s for timing in sampled.kept()) == 0.8


def test_a_step_that_others_make_slow_gets_no_more_than_the_cap_to_warm_up():
    assert warm_up(nothing, ReplayClock([2.0]), CPU, first_cell=True, crowded=True).calls * 2.0 <= CPU.warmup_cap_s + 4
    assert warm_up(nothing, ReplayClock([2.0]), CPU, first_cell=True).level
