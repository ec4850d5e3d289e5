"""Timers for pytest-benchmark, which calls one before and after the work and takes the difference as seconds."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch


class DeviceTimer:
    """The host's clock, until it is given a CUDA device: from then on that device's own, by events.

    Stamps of a device subtract to the seconds between them on the device, the gaps in which it waited for the host
    included. Subtracting waits for the later one, so that the next round begins with an empty queue.
    """

    __name__ = "archbench"  # what pytest-benchmark stores as the timer's name

    def __init__(self) -> None:
        self._device: torch.device | None = None

    def use(self, device: torch.device) -> None:
        """Time work on this device."""
        from archbench.device.kind import kind_of

        self._device = device if kind_of(device).own_clock else None

    def __call__(self) -> float | _Stamp:
        return time.perf_counter() if self._device is None else _Stamp(self._device)


class _Stamp:
    """A moment on a CUDA device's own clock."""

    def __init__(self, device: torch.device) -> None:
        import torch

        self._device = device
        self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        # Without a stream it would be that of the current device, which need not be this one.
        self._event.record(torch.cuda.current_stream(device))

    def __sub__(self, earlier: _Stamp) -> float:
        """Seconds since `earlier`. Raises `ClockError` for stamps in the wrong order."""
        import torch

        from archbench.device.clock import MS, checked

        torch.cuda.synchronize(self._device)
        return checked(earlier._event.elapsed_time(self._event) * MS)


class ReplayTimer:
    """Gives pytest-benchmark durations that were measured elsewhere: seconds for each of its rounds."""

    __name__ = "archbench"

    def __init__(self) -> None:
        self._stamps: Iterator[float] = iter(())

    def load(self, durations: Iterable[float]) -> None:
        """The durations of the rounds to come."""
        self._stamps = (stamp for duration in durations for stamp in (0.0, duration))

    def __call__(self) -> float:
        return next(self._stamps)


def mark_timer(item: pytest.Item, timer: Any) -> None:
    """Have pytest-benchmark use `timer` for this test; what the test's own marker says besides stays."""
    own = item.get_closest_marker("benchmark")
    options = dict(own.kwargs) if own else {}
    item.add_marker(pytest.mark.benchmark(**{**options, "timer": timer}), append=False)
