"""The traps of timing a device that works while the host goes on, proven on a fake device that keeps a diary."""

from __future__ import annotations

import time

import pytest
import torch

from archbench.device.cuda import CudaClock
from archbench.device.kind import Clock, ClockError, Timing, checked


class Diary:
    """Stands in for torch.cuda: notes the order of calls; events tell a scripted time."""

    def __init__(self, monkeypatch, milliseconds=5.0):
        self.entries: list[str] = []
        diary = self

        class Event:
            def __init__(self, enable_timing=False):
                self.timed = enable_timing

            def record(self, stream):
                assert stream == "current"
                diary.entries.append("event")

            def query(self):
                diary.entries.append("query")
                return False

            def synchronize(self):
                diary.entries.append("wait")

            def elapsed_time(self, other):
                assert self.timed
                assert other.timed
                return milliseconds

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "current")
        monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: self.entries.append("spin"))
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: self.entries.append("sync"))
        real = time.perf_counter_ns

        def clock():
            self.entries.append("clock")
            return real()

        monkeypatch.setattr(time, "perf_counter_ns", clock)

    def step(self):
        self.entries.append("step")


STEP = ["step", "clock", "event", "wait", "clock"]
"""Timed, and waited for: issued, the clock read, an event behind it, and the clock read when that has come."""


def test_a_latency_sample_waits_before_and_after(monkeypatch):
    diary = Diary(monkeypatch)
    timing = CudaClock(torch.device("cuda")).latency(diary.step)
    assert diary.entries == ["sync", "clock", *STEP]
    assert 0 < timing.issue_s < timing.host_s
    assert timing.device_s is None  # between events on an idle stream stands the host's time


def test_several_steps_of_latency_are_waited_for_one_by_one(monkeypatch):
    diary = Diary(monkeypatch)
    CudaClock(torch.device("cuda")).latency(diary.step, 3)
    assert diary.entries == ["sync", "clock", *STEP, *STEP, *STEP]


def test_a_burst_does_not_wait_inside(monkeypatch):
    diary = Diary(monkeypatch)
    timing = CudaClock(torch.device("cuda")).burst(diary.step, 3)
    assert diary.entries == ["sync", "clock", "event", "step", "step", "step", "clock", "event", "wait", "clock"]
    assert timing.device_s == timing.seconds == pytest.approx(5e-3)  # events tell milliseconds


def test_a_backlog_is_queued_first_and_looked_at_before_it_is_waited_for(monkeypatch):
    diary = Diary(monkeypatch)
    one = CudaClock(torch.device("cuda")).backlogged(diary.step, 2, 1e-3)
    queued = ["event", "spin", "event", "clock", "step", "step", "clock", "event"]
    assert diary.entries == ["sync", *queued, "query", "wait", "clock"]
    assert one.held


@pytest.mark.parametrize("milliseconds", [-5.0, 0.0, float("nan"), float("inf")])
def test_events_that_tell_nonsense_are_refused(monkeypatch, milliseconds):
    diary = Diary(monkeypatch, milliseconds)
    clock = CudaClock(torch.device("cuda"))
    with pytest.raises(ClockError):
        clock.burst(diary.step, 1)
    with pytest.raises(ClockError):
        clock.backlogged(diary.step, 1, 1e-3)


@pytest.mark.parametrize("seconds", [-1.0, 0.0, float("nan"), float("inf")])
def test_what_is_no_duration(seconds):
    with pytest.raises(ClockError):
        checked(seconds)


def test_the_host_clock_sees_a_known_wait():
    assert Clock().latency(lambda: time.sleep(0.02), 2).host_s == pytest.approx(0.04, rel=0.5)
    assert Clock().latency(lambda: time.sleep(0.02)).device_s is None


def test_a_timing_without_a_device_is_the_hosts():
    assert Timing(2.0).seconds == 2.0


@pytest.mark.parametrize("clock", [Clock, CudaClock])
def test_a_host_clock_that_goes_back_is_refused(clock, monkeypatch):
    diary = Diary(monkeypatch)
    made = clock() if clock is Clock else clock(torch.device("cuda"))
    ticks = iter([300, 200, 100])
    monkeypatch.setattr(time, "perf_counter_ns", lambda: next(ticks))
    with pytest.raises(ClockError):
        made.latency(diary.step)
