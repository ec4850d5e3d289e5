"""What two readings say of the time between: throttles, counters, clocks, neighbours."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from replay import ReplayProbe

from archbench.device import Reading, between
from archbench.device.health import (
    CONTENTION_LIMIT,
    HW_SLOWDOWN,
    HW_THERMAL,
    POWER_BRAKE,
    SW_POWER_CAP,
    SW_THERMAL,
    CpuTimes,
    GpuProcess,
    SlowdownTimes,
)
from archbench.device.nvml import strangers
from archbench.model.reasons import REASONS

IDLE = 0x01


def gpu(at_s: float, **fields: Any) -> Reading:
    known: dict[str, Any] = {"sm_clock_mhz": 1980, "power_w": 300.0, "energy_mj": 0, "event_reasons": 0, "foreign": ()}
    return Reading(at_s=at_s, **(known | fields))


def cpu(at_s: float, own_s: float, waited_s: float | None = 0.0, busy_s: float = 0.0, stolen_s: float = 0.0) -> Reading:
    waits = None if waited_s is None else ((1, waited_s),)
    times = CpuTimes(cores=2, own_s=own_s, waited_s=waits, busy_s=busy_s, stolen_s=stolen_s)
    return Reading(at_s=at_s, cpu=times, host_only=True)


@pytest.mark.parametrize("mask", [HW_SLOWDOWN, SW_THERMAL, HW_THERMAL, POWER_BRAKE])
@pytest.mark.parametrize("edge", [0, 1])
def test_a_throttle_at_either_edge_spoils_the_block(mask: int, edge: int) -> None:
    readings = [gpu(0.0), gpu(1.0)]
    readings[edge] = gpu(float(edge), event_reasons=mask | IDLE)
    health = between(*readings)
    assert health.throttled is True
    assert health.power_capped is False


def test_a_power_cap_is_a_label() -> None:
    health = between(gpu(0.0), gpu(1.0, event_reasons=SW_POWER_CAP))
    assert health.throttled is False
    assert health.power_capped is True


@pytest.mark.parametrize("cause", ["thermal", "sw_thermal", "hw_thermal", "power_brake"])
def test_a_throttle_between_clean_edges_is_in_the_counters(cause: str) -> None:
    before, after = (gpu(at, slowdowns=SlowdownTimes(**{cause: ns})) for at, ns in ((0.0, 50), (1.0, 51)))
    assert between(before, after).throttled is True
    capped = between(
        gpu(0.0, slowdowns=SlowdownTimes(sw_power_cap=1)), gpu(1.0, slowdowns=SlowdownTimes(sw_power_cap=2))
    )
    assert (capped.throttled, capped.power_capped) == (False, True)


def test_unknown_is_not_clean() -> None:
    mute = {"event_reasons": None, "missing": {"event_reasons": "no_permission"}}
    health = between(gpu(0.0, **mute), gpu(1.0, **mute))
    assert health.throttled is None
    assert health.power_capped is None
    assert health.missing["throttled"] == "no_permission"
    # One clean edge does not vouch for the block; counters do.
    assert between(gpu(0.0), gpu(1.0, **mute)).throttled is None
    times = SlowdownTimes(thermal=9)
    assert between(gpu(0.0, slowdowns=times, **mute), gpu(1.0, slowdowns=times, **mute)).throttled is False


def test_counters_that_go_backwards_are_flagged() -> None:
    before = gpu(0.0, energy_mj=90_000, slowdowns=SlowdownTimes(thermal=9))
    after = gpu(10.0, energy_mj=10, slowdowns=SlowdownTimes(thermal=2))
    health = between(before, after)
    assert health.energy_j is None
    assert health.missing["energy_j"] == health.missing["slowdowns"] == "monitor_gap"
    assert health.throttled is False  # the masks are clean


@pytest.mark.parametrize("times", [(1.0, 1.0), (2.0, 1.0), (math.nan, 1.0), (0.0, math.nan), (0.0, math.inf)])
def test_a_clock_that_fails_leaves_nothing_to_say(times: tuple[float, float]) -> None:
    for health in (between(gpu(times[0]), gpu(times[1])), between(cpu(times[0], 0.0), cpu(times[1], 1.0))):
        assert health.wall_s is None
        assert health.missing == {"wall_s": "clock_error"}
        assert (health.energy_j, health.contention, health.throttled) == (None, None, None)


def test_energy_needs_a_window() -> None:
    assert between(gpu(0.0), gpu(4.9, energy_mj=1)).missing["energy_j"] == "too_short"
    health = between(gpu(0.0), gpu(10.0, energy_mj=2_500_000))
    assert health.energy_j == 2500.0
    assert health.mean_power_w == 250.0


@given(
    watts=st.floats(20.0, 1200.0),
    period_s=st.floats(0.01, 0.1),
    phase_s=st.floats(0.0, 0.1),
    start_s=st.floats(0.0, 3.0),
    window_s=st.floats(5.0, 60.0),
)
def test_a_counter_updated_ten_times_a_second(
    watts: float, period_s: float, phase_s: float, start_s: float, window_s: float
) -> None:
    """The counter holds the energy as of its last update: each edge is late by up to one period."""

    def counter_mj(at_s: float) -> int:
        updates = math.floor((at_s + phase_s) / period_s)
        return int(max(updates * period_s - phase_s, 0.0) * watts * 1e3)

    health = between(
        gpu(start_s, energy_mj=counter_mj(start_s)), gpu(start_s + window_s, energy_mj=counter_mj(start_s + window_s))
    )
    assert health.energy_j is not None
    assert health.mean_power_w is not None
    assert abs(health.mean_power_w / watts - 1) < 0.03


def test_foreign_processes() -> None:
    stranger = (GpuProcess(pid=7),)
    assert between(gpu(0.0), gpu(1.0)).foreign is False
    assert between(gpu(0.0), gpu(1.0, foreign=stranger)).foreign is True
    assert between(gpu(0.0, foreign=stranger), gpu(1.0)).foreign is True
    unknown = between(gpu(0.0), gpu(1.0, foreign=None, missing={"foreign": "driver_too_old"}))
    assert unknown.foreign is None
    assert unknown.missing["foreign"] == "driver_too_old"


@pytest.mark.parametrize(
    ("pids", "ours", "host_ids", "expected"),
    [
        ((1, 2), {1}, True, (2,)),
        ((2,), {1}, True, (2,)),
        ((), {1}, True, ()),
        ((900,), {1}, False, ()),  # ours, by an id that only the host knows
        ((900, 901), {1}, False, (901,)),  # one too many
        ((900, 901), {1, 2}, False, ()),  # a duel
        ((1, 900), {1}, False, (900,)),  # ids agree after all
        ((900,), set(), False, (900,)),  # before a run nobody is ours
    ],
)
def test_strangers(pids: tuple[int, ...], ours: set[int], host_ids: bool, expected: tuple[int, ...]) -> None:
    found = strangers([GpuProcess(pid=pid) for pid in pids], ours, host_ids)
    assert tuple(process.pid for process in found) == expected


def test_a_neighbour_on_the_hosts_cores_is_seen_from_a_gpu_too() -> None:
    quiet, crowded = (cpu(2.0, 3.0, waited, busy_s=4.0).cpu for waited in (0.0, 1.0))
    start = gpu(0.0, cpu=cpu(0.0, 0.0).cpu)
    health = between(start, gpu(2.0, cpu=crowded))
    assert health.contention == pytest.approx(0.25)
    assert health.contended is True
    assert (health.throttled, health.foreign, health.sm_clock_mhz) == (False, False, 1980)
    assert between(start, gpu(2.0, cpu=quiet)).contention == 0.0
    assert between(gpu(0.0), gpu(2.0)).contention is None


def test_alone_on_the_cpu() -> None:
    health = between(cpu(0.0, 10.0, 1.0, busy_s=50.0), cpu(2.0, 13.9, 1.0, busy_s=53.9))
    assert health.contention == 0.0
    assert health.contended is False
    assert health.others == pytest.approx(0.0, abs=1e-12)


def test_a_neighbour_in_the_run_queue() -> None:
    # Two cores for 2 s; we ran 3 s and stood ready for 1 s more, which somebody else used.
    health = between(cpu(0.0, 0.0, 0.0), cpu(2.0, 3.0, 1.0, busy_s=4.0))
    assert health.contention == pytest.approx(0.25)
    assert health.others == pytest.approx(0.25)
    assert health.contended is True


def test_a_neighbour_under_the_hypervisor() -> None:
    # 0.4 s stolen while only we were busy: all of it was ours. Half of the busy time ours: half of the theft.
    alone = between(cpu(0.0, 0.0), cpu(2.0, 1.6, busy_s=1.6, stolen_s=0.4))
    assert alone.contention == pytest.approx(0.4 / 2.0)
    shared = between(cpu(0.0, 0.0), cpu(2.0, 1.6, busy_s=3.2, stolen_s=0.4))
    assert shared.contention == pytest.approx(0.2 / 1.8)


def test_a_neighbour_on_another_core_does_not_contend() -> None:
    health = between(cpu(0.0, 0.0), cpu(2.0, 2.0, busy_s=4.0))
    assert health.contended is False
    assert health.others == pytest.approx(0.5)


def test_ticks_are_coarser_than_our_own_clock() -> None:
    assert between(cpu(0.0, 0.0), cpu(0.1, 0.104, busy_s=0.10)).others == 0.0


def test_a_system_that_keeps_no_such_times() -> None:
    bare = [
        Reading(at_s=at, cpu=CpuTimes(cores=2, own_s=at, waited_s=None, busy_s=None, stolen_s=None))
        for at in (0.0, 1.0)
    ]
    health = between(*bare)
    assert (health.contention, health.others, health.contended) == (None, None, None)
    assert set(health.missing.values()) == {"not_on_device"}
    back = between(cpu(0.0, 0.0, busy_s=5.0), cpu(1.0, 1.0, busy_s=4.0))
    assert back.others is None
    assert back.missing["others"] == "monitor_gap"


def test_threads_come_and_go() -> None:
    before = CpuTimes(cores=2, own_s=0.0, waited_s=((1, 5.0), (2, 9.0)), busy_s=0.0, stolen_s=0.0)
    after = CpuTimes(cores=2, own_s=1.0, waited_s=((1, 5.25), (3, 0.75)), busy_s=1.0, stolen_s=0.0)
    assert between(Reading(at_s=0.0, cpu=before), Reading(at_s=1.0, cpu=after)).contention == pytest.approx(0.5)


@given(
    own=st.floats(0, 10),
    waited=st.floats(0, 10),
    busy=st.floats(0, 10),
    stolen=st.floats(0, 10),
    wall=st.floats(0.01, 9),
)
def test_shares_are_shares(own: float, waited: float, busy: float, stolen: float, wall: float) -> None:
    health = between(cpu(0.0, 0.0, 0.0), cpu(wall, own, waited, busy, stolen))
    assert health.contention is None or 0.0 <= health.contention <= 1.0
    assert health.others is not None
    assert 0.0 <= health.others <= 1.0
    if health.contention is not None and health.contention > CONTENTION_LIMIT:
        assert health.contended is True


@given(
    st.lists(
        st.builds(
            Reading,
            at_s=st.floats(allow_nan=True, allow_infinity=True),
            sm_clock_mhz=st.none() | st.integers(0, 3000),
            power_w=st.none() | st.floats(0, 1000),
            energy_mj=st.none() | st.integers(0, 2**62),
            event_reasons=st.none() | st.integers(0, 2**10),
            foreign=st.none() | st.just(()),
            missing=st.just({}) | st.just({"energy_mj": "device_lost"}),
        ),
        min_size=2,
        max_size=2,
    )
)
def test_whatever_is_read_gives_a_health_with_known_reasons(readings: list[Reading]) -> None:
    health = between(*readings)
    assert set(health.missing.values()) <= REASONS.keys()
    if health.wall_s is not None:
        for field in ("throttled", "power_capped", "foreign", "energy_j", "sm_clock_mhz", "mean_power_w"):
            assert (getattr(health, field) is None) <= (field in health.missing)


def test_replay_gives_its_readings_and_then_the_last() -> None:
    probe = ReplayProbe([gpu(0.0), gpu(1.0)])
    assert [probe.read().at_s for _ in range(3)] == [0.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="at least one"):
        ReplayProbe([])
