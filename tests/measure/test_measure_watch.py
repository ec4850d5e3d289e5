from __future__ import annotations

import pytest
from msgspec import structs
from replay import ReplayProbe

from archbench.device.clock import Timing
from archbench.device.health import HW_THERMAL, SW_POWER_CAP, CpuTimes, GpuProcess, Reading
from archbench.measure.sampling import Stretch
from archbench.measure.watch import Watch
from archbench.model.protocol import Protocol
from archbench.model.reasons import verdict_of
from archbench.stats import drifting


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

    import time

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
    assert 1 <= Bird.calls <= 1 + elapsed * Protocol().canary_share / 0.02 + 1
    assert watch.report().canary_s == 1e-3


def test_where_nothing_was_timed_that_is_the_reason():
    report = Watch(ReplayProbe(readings(0)), None, Protocol()).report()
    assert report.canary_s is None
    assert set(report.missing) >= {("canary_s", "nothing_timed"), ("sm_clock_mhz", "nothing_timed")}
