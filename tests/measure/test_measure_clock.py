"""The traps of timing a device that works while the host goes on, proven on a fake device that keeps a diary."""

from __future__ import annotations

import time

import pytest
import torch

from archbench.device.clock import ClockError, checked
from archbench.device.cpu import HostClock
from archbench.device.cuda import CudaClock


class Diary:
    """Stands in for torch.cuda: notes the order of calls; events tell a scripted time."""

    def __init__(self, monkeypatch, milliseconds=5.0):
        self.entries = []
        diary = self

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self):
                diary.entries.append("event")

            def elapsed_time(self, other):
                return milliseconds

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: self.entries.append("sync"))
        real = time.perf_counter_ns
        monkeypatch.setattr(time, "perf_counter_ns", lambda: (self.entries.append("clock"), real())[1])

    def step(self):
        self.entries.append("step")


def test_a_latency_sample_waits_before_and_after(monkeypatch):
    diary = Diary(monkeypatch)
    timing = CudaClock(torch.device("cuda")).latency(diary.step)
    assert diary.entries == ["sync", "clock", "event", "step", "event", "sync", "clock"]
    assert timing.device_s == pytest.approx(5e-3)  # events tell milliseconds
    assert timing.host_s > 0


def test_several_steps_of_latency_are_waited_for_one_by_one(monkeypatch):
    diary = Diary(monkeypatch)
    CudaClock(torch.device("cuda")).latency(diary.step, 3)
    assert diary.entries == ["sync", "clock", "event", "step", "sync", "step", "sync", "step", "event", "sync", "clock"]


def test_a_burst_does_not_wait_inside(monkeypatch):
    diary = Diary(monkeypatch)
    CudaClock(torch.device("cuda")).burst(diary.step, 3)
    assert diary.entries == ["sync", "clock", "event", "step", "step", "step", "event", "sync", "clock"]


@pytest.mark.parametrize("milliseconds", [-5.0, 0.0, float("nan"), float("inf")])
def test_events_that_tell_nonsense_are_refused(monkeypatch, milliseconds):
    diary = Diary(monkeypatch, milliseconds)
    with pytest.raises(ClockError):
        CudaClock(torch.device("cuda")).latency(diary.step)


@pytest.mark.parametrize("seconds", [-1.0, 0.0, float("nan"), float("inf")])
def test_what_is_no_duration(seconds):
    with pytest.raises(ClockError):
        checked(seconds)


def test_the_host_clock_sees_a_known_wait():
    assert HostClock().latency(lambda: time.sleep(0.02), 2).host_s == pytest.approx(0.04, rel=0.5)
    assert HostClock().latency(lambda: time.sleep(0.02)).device_s is None


def test_a_host_clock_that_goes_back_is_refused(monkeypatch):
    ticks = iter([200, 100])
    monkeypatch.setattr(time, "perf_counter_ns", lambda: next(ticks))
    with pytest.raises(ClockError):
        HostClock().latency(lambda: None)
