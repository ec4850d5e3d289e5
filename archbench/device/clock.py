"""Who owns the time: what a clock is on any device, and what cannot be a duration. Never imports torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from msgspec import Struct

Step = Callable[[], object]

MS = 1e-3
NS = 1e-9


class ClockError(RuntimeError):
    """A clock returned what cannot be a duration: zero, negative, or not a number."""


class Timing(Struct, frozen=True):
    """One measured stretch of work. Seconds, for all of its steps together. `None` = this device has no such time."""

    host_s: float
    device_s: float | None = None
    """Between events on the device. On a stream that was idle this contains every gap between launches."""
    issue_s: float | None = None
    """What the host took to issue the steps, before it waited for them; waits inside a step count."""

    @property
    def seconds(self) -> float:
        """On the device's own clock where it was read, else on the host's."""
        return self.host_s if self.device_s is None else self.device_s


class Backlogged(Struct, frozen=True):
    """Steps that the device was given all at once, behind a backlog. Seconds, for all of them together."""

    host_s: float
    """The host's, what was left of the backlog included."""
    device_s: float
    """From the end of the backlog to the end of the last step."""
    issue_s: float
    held: bool
    """The backlog outlasted the issuing, so that `device_s` contains no gap between launches. Else it is an upper bound
    of what the device needs: the launch queue was full, or the step waits for the device, or the host was held up."""


class Clock(Protocol):
    """Times steps on one device. Nothing else in the worker waits for a device."""

    def latency(self, step: Step, steps: int = 1) -> Timing:
        """Time `steps` steps, each waited for before the next begins: one batch in flight."""

    def burst(self, step: Step, steps: int) -> Timing:
        """Time `steps` steps issued without waiting in between: pipelined."""

    def backlogged(self, step: Step, steps: int, lead_s: float) -> Backlogged:
        """Time `steps` steps on the device, issued behind a backlog that keeps it busy for `lead_s`."""

    def waits_inside(self, step: Step) -> bool:
        """Do one step and say whether it waited for the device itself, as far as torch can tell."""

    def synchronize(self) -> None:
        """Wait until the device has nothing left to do."""


class Stopwatch(Protocol):
    """Moments between which a device worked, noted without waiting for it."""

    def read(self) -> Any:
        """Note a moment."""

    def seconds(self, before: Any, after: Any) -> float:
        """From one moment to a later one, once the device has come there."""

    def restart(self) -> None:
        """The moments noted so far will not be asked for again."""


def checked(seconds: float) -> float:
    """Return `seconds` if it can be a duration. Events passed in the wrong order, or a broken clock, end here."""
    if not 0.0 < seconds < float("inf"):
        raise ClockError(f"a clock measured {seconds!r} s for a piece of work")
    return seconds
