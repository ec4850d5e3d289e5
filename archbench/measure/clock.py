"""Who owns the time: the clocks of latency and throughput, and the only places where a device is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import torch
from msgspec import Struct

Step = Callable[[], object]

MS = 1e-3


class ClockError(RuntimeError):
    """A clock returned what cannot be a duration: zero, negative, or not a number."""


class Timing(Struct, frozen=True):
    """One measured stretch of work. Seconds, for all of its steps together."""

    host_s: float
    device_s: float | None = None


class Clock(Protocol):
    """Times steps on one kind of device."""

    def latency(self, step: Step, steps: int = 1) -> Timing:
        """Time `steps` steps, each waited for before the next begins: one batch in flight."""

    def burst(self, step: Step, steps: int) -> Timing:
        """Time `steps` steps issued without waiting in between: pipelined."""

    def synchronize(self) -> None:
        """Wait until the device has nothing left to do."""


class HostClock:
    """For devices that have finished when the call returns (the CPU)."""

    def latency(self, step: Step, steps: int = 1) -> Timing:
        start = time.perf_counter_ns()
        for _ in range(steps):
            step()
        return Timing(checked((time.perf_counter_ns() - start) * 1e-9))

    burst = latency  # a CPU has no queue: there is nothing to pipeline

    def synchronize(self) -> None:
        return None


class CudaClock:
    """For CUDA devices: the host's clock around a synchronised step, and events on the device's own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self._end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    def latency(self, step: Step, steps: int = 1) -> Timing:
        synchronize = self.synchronize
        synchronize()
        start = time.perf_counter_ns()
        self._start.record()
        for _ in range(steps - 1):
            step()
            synchronize()
        step()
        self._end.record()
        synchronize()
        host_s = checked((time.perf_counter_ns() - start) * 1e-9)
        return Timing(host_s, checked(self._start.elapsed_time(self._end) * MS))

    def burst(self, step: Step, steps: int) -> Timing:
        self.synchronize()
        start = time.perf_counter_ns()
        self._start.record()
        for _ in range(steps):
            step()
        self._end.record()
        self.synchronize()
        host_s = checked((time.perf_counter_ns() - start) * 1e-9)
        return Timing(host_s, checked(self._start.elapsed_time(self._end) * MS))

    def synchronize(self) -> None:
        torch.cuda.synchronize(self._device)


def open_clock(device: torch.device) -> Clock:
    """Return the clock of a device."""
    return CudaClock(device) if device.type == "cuda" else HostClock()


def checked(seconds: float) -> float:
    """Return `seconds` if it can be a duration. Events passed in the wrong order, or a broken clock, end here."""
    if not 0.0 < seconds < float("inf"):
        raise ClockError(f"a clock measured {seconds!r} s for a piece of work")
    return seconds
