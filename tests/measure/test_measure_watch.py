from __future__ import annotations

import math
import time
from itertools import chain, repeat

import pytest
from msgspec import structs
from replay import ReplayProbe

from archbench.device.health import HW_THERMAL, SW_POWER_CAP, CpuTimes, GpuProcess, Reading
from archbench.device.kind import Timing
from archbench.measure.sampling import Stretch
from archbench.measure.watch import STALL_PAUSE_S, Watch
from archbench.model.protocol import Protocol
from archbench.model.reasons import verdict_of
from archbench.stats.sampling import drifting


def readings(*masks, foreign=()):
    return [
        Reading(at_s=float(i), event_reasons=mask, sm_clock_mhz=1980, foreign=foreign) for i, mask in enumerate(masks)
    ]


def watch_over(probe, canary=None):
    watch = Watch(probe, canary, Protocol())
    kept = []
    for _ in range(5):
        watch.begin()
        kept.append(watch.end() is None)
    return kept, watch.report()


def test_thermal_throttling_drops_stretches_and_invalidates_the_row():
    kept, report = watch_over(ReplayProbe(readings(0, 0, 0, HW_THERMAL, HW_THERMAL, 0, 0, 0, 0, HW_THERMAL)))
    assert kept == [True, False, False, True, False]
    assert report.throttled_fraction == pytest.approx(0.6)
    assert verdict_of(report.reasons) == "invalid"


def test_one_throttled_stretch_in_five_is_dropped_without_a_verdict():
    kept, report = watch_over(ReplayProbe(readings(0, 0, 0, HW_THERMAL, 0, 0, 0, 0, 0, 0)))
    assert kept.count(False) == 1
    assert verdict_of(report.reasons) == "ok"


def test_a_power_cap_is_a_label():
    kept, report = watch_over(ReplayProbe(readings(*[SW_POWER_CAP] * 10)))
    assert all(kept)
    assert report.power_capped_fraction == 1.0
    assert "power_capped" in report.reasons
    assert verdict_of(report.reasons) == "ok"


def test_times_under_a_power_cap_are_seen_at_one_clock():
    """Twenty blocks in which the cap takes a tenth of the clock: the step's cycles stay, and so do its times."""
    clocks = [1980 - 10 * n for n in range(20)]
    for mask, drifts in ((SW_POWER_CAP, False), (0, True)):
        edges = [
            Reading(at_s=2.0 * n + edge, event_reasons=mask, sm_clock_mhz=clock, foreign=())
            for n, clock in enumerate(clocks)
            for edge in (0, 1)
        ]
        watch = Watch(ReplayProbe(edges), None, Protocol())
        stretches = []
        for n, clock in enumerate(clocks):
            watch.begin()
            steps = tuple(Timing((10.0 + 0.001 * ((7 * n + k) % 5)) / clock) for k in range(10))
            stretches.append(Stretch(timings=steps, rejected=watch.end()))
        raw = [timing.host_s for stretch in stretches for timing in stretch.timings]
        assert drifting(raw, 0.005).drifting
        assert drifting(watch.at_one_clock(stretches), 0.005).drifting is drifts


def test_a_foreign_process_invalidates():
    kept, report = watch_over(ReplayProbe(readings(*[0] * 10, foreign=(GpuProcess(pid=1),))))
    assert not any(kept)
    assert verdict_of(report.reasons) == "invalid"


def test_a_stranger_that_passes_by_costs_a_stretch_and_no_verdict():
    passing = readings(*[0] * 10)
    passing[5] = readings(*[0] * 6, foreign=(GpuProcess(pid=1),))[5]
    kept, report = watch_over(ReplayProbe(passing))
    assert kept == [True, True, False, True, True]
    assert verdict_of(report.reasons) == "ok"


def test_a_monitor_that_says_nothing_is_a_label_and_no_verdict():
    silent = [Reading(at_s=float(i), missing={"foreign": "nvml_missing"}) for i in range(10)]
    kept, report = watch_over(ReplayProbe(silent))
    assert all(kept)
    assert report.reasons == ("monitor_blind",)
    assert verdict_of(report.reasons) == "ok"


def test_a_neighbour_on_the_hosts_cores_makes_a_gpus_row_suspect():
    def times(at):
        return CpuTimes(cores=2, own_s=at, waited_s=((1, 0.2 * at),), busy_s=2 * at, stolen_s=0.0)

    watched = [structs.replace(reading, cpu=times(reading.at_s)) for reading in readings(*[0] * 10)]
    _, report = watch_over(ReplayProbe(watched))
    assert report.contention == pytest.approx(0.2 / 1.2)
    assert report.reasons == ("contended",)
    assert verdict_of(report.reasons) == "suspect"


@pytest.mark.parametrize(("waited", "verdict"), [(0.0, "ok"), (0.2, "suspect"), (0.45, "suspect"), (0.55, "invalid")])
def test_a_row_is_invalid_where_its_threads_waited_half_as_long_as_they_worked(waited, verdict):
    def times(at):
        return CpuTimes(cores=2, own_s=at, waited_s=((1, waited * at),), busy_s=2 * at, stolen_s=0.0)

    watched = [Reading(at_s=float(at), cpu=times(float(at)), host_only=True) for at in range(10)]
    _, report = watch_over(ReplayProbe(watched))
    assert verdict_of(report.reasons) == verdict


def test_a_clock_that_stands_still_is_no_measurement():
    kept, report = watch_over(ReplayProbe([Reading(at_s=1.0, event_reasons=0)]))
    assert not any(kept)
    assert "clock_error" in report.reasons


def test_what_the_device_does_not_say_stays_null():
    _, report = watch_over(ReplayProbe([Reading(at_s=float(i)) for i in range(10)]))
    assert report.throttled_fraction is None
    assert report.power_capped_fraction is None
    assert report.sm_clock_mhz is None
    assert report.contention is None


def test_the_canary_keeps_to_its_share():
    class Bird:
        calls = 0

        def __call__(self):
            Bird.calls += 1
            return 1e-3

    def slow_canary():
        time.sleep(0.02)
        return Bird()()

    watch = Watch(ReplayProbe([Reading(at_s=float(i)) for i in range(100)]), slow_canary, Protocol())
    started = time.perf_counter()
    for _ in range(30):
        watch.begin()
        time.sleep(0.01)
        watch.end()
    elapsed = time.perf_counter() - started
    assert 2 <= Bird.calls <= 1 + elapsed * Protocol().canary_share / 0.02 + 1
    assert set(watch.report().canaries) == {1e-3}


def test_one_slow_first_reading_is_not_the_only_one():
    """The first makes the canary and may fall into what ends before the cell: here it takes 100 times the others."""
    taken: list[float] = []

    def canary():
        time.sleep(0.001 if taken else 0.1)
        taken.append(1e-3 if taken else 3e-3)
        return taken[-1]

    watch = Watch(ReplayProbe([Reading(at_s=float(i)) for i in range(100)]), canary, Protocol())
    stretches = []
    for _ in range(10):
        watch.begin()
        time.sleep(0.03)
        stretches.append(Stretch(timings=(Timing(0.02),) * 3, rejected=watch.end()))
    assert watch.canary_beside(stretches) == pytest.approx(1e-3)
    assert len(taken) > 5


def test_the_last_stretch_has_a_reading_after_it():
    """Of one stretch alone: the geometric mean of the two."""
    readings_ = iter([1e-3, 4e-3])
    watch = Watch(ReplayProbe([Reading(at_s=0.0), Reading(at_s=1.0)]), lambda: next(readings_), Protocol())
    watch.begin()
    assert watch.canary_beside([Stretch(timings=(Timing(0.02),) * 3, rejected=watch.end())]) == pytest.approx(2e-3)


@pytest.mark.parametrize(("waited", "slow", "code"), [(0.5, True, "stalled"), (0.5, False, None), (0.0, True, None)])
def test_a_slow_stretch_is_a_stall_where_its_threads_waited_for_a_core(monkeypatch, waited, slow, code):
    pauses: list[float] = []
    monkeypatch.setattr("archbench.measure.watch.time.sleep", pauses.append)

    def reading(at):
        times = CpuTimes(cores=2, own_s=at, waited_s=((1, waited * at),), busy_s=2 * at, stolen_s=0.0)
        return Reading(at_s=at, cpu=times, host_only=True)

    said: list[str] = []
    watch = Watch(ReplayProbe([reading(float(at)) for at in range(10)]), None, Protocol(), said.append)
    watch.begin()
    assert watch.end(slow=slow) == code
    watch.begin()
    assert pauses == ([STALL_PAUSE_S] if code else [])
    assert said == (["stalled: waiting for other work to end"] if code else [])


def test_the_canary_beside_a_median_step_is_that_of_its_own_time():
    """A machine that is twice as slow in four of seven stretches, and the canary beside it."""
    speeds = [1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0]
    readings_ = chain((1e-3 * speed for speed in speeds), repeat(2e-3))
    protocol = structs.replace(Protocol(), canary_share=0.999)
    watch = Watch(ReplayProbe([Reading(at_s=float(i)) for i in range(100)]), lambda: next(readings_), protocol)
    stretches = []
    for speed in speeds:
        watch.begin()
        stretches.append(Stretch(timings=(Timing(0.02 * speed),) * 3, rejected=watch.end()))
    # The median step is a slow one; beside it the canary was slow, too: 20 canaries, as in every stretch but the one
    # in which the speed changed between the readings around it.
    assert watch.canary_beside(stretches) == pytest.approx(2e-3)
    # Of an experiment's own stretches alone, and of those that were kept.
    assert watch.canary_beside(stretches[3:]) == pytest.approx(2e-3)
    spoilt = [structs.replace(stretch, rejected="throttled") for stretch in stretches[:5]]
    assert watch.canary_beside([*spoilt, *stretches[5:]]) == pytest.approx(2e-3)
    assert Watch(ReplayProbe(readings(0, 0)), None, Protocol()).canary_beside([]) is None


def test_where_nothing_was_timed_that_is_the_reason():
    report = Watch(ReplayProbe(readings(0)), None, Protocol()).report()
    assert report.canaries == ()
    assert set(report.missing) >= {("contention", "nothing_timed"), ("sm_clock_mhz", "nothing_timed")}


def test_a_watch_keeps_what_it_saw_of_the_latest_stretches_alone():
    masks = (HW_THERMAL, HW_THERMAL, 0, 0, 0, 0)  # two readings a stretch
    canaries = iter((9e-3, 9e-3, 1e-3, 2e-3, 3e-3))
    watch = Watch(ReplayProbe(readings(*masks)), lambda: next(canaries), structs.replace(Protocol(), canary_share=0.99))
    stretches = []
    for _ in range(3):
        watch.begin()
        time.sleep(1e-4)
        stretches.append(Stretch(timings=(Timing(0.02),), rejected=watch.end()))
    watch.keep(1)
    report = watch.report()
    assert report.throttled_fraction == 0.0
    assert report.canaries == (1e-3,)
    assert watch.canary_beside(stretches[2:]) == pytest.approx(math.sqrt(1e-3 * 2e-3))
    watch.keep(0)
    assert watch.report().canaries == ()
    assert watch.report().missing
