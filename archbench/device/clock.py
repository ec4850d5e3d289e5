"""Who owns the time: what a clock is on any device, and what cannot be a duration. Never imports torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

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
    """Times steps on one device. Nothing else in the worker waits for a device."""

    def latency(self, step: Step, steps: int = 1) -> Timing:
        """Time `steps` steps, each waited for before the next begins: one batch in flight."""

    def burst(self, step: Step, steps: int) -> Timing:
        """Time `steps` steps issued without waiting in between: pipelined."""

    def synchronize(self) -> None:
        """Wait until the device has nothing left to do."""


def checked(seconds: float) -> float:
    """Return `seconds` if it can be a duration. Events passed in the wrong order, or a broken clock, end here."""
    if not 0.0 < seconds < float("inf"):
        raise ClockError(f"a clock measured {seconds!r} s for a piece of work")
    return seconds
