"""Fakes with a known truth: a step whose true cost is known, a clock that reads it, a monitor that obeys a script."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

from archbench.device.kind import Clock, Timing


class ReplayClock(Clock):
    """Reads time from a script of step costs instead of from a device. Steps are counted, never run."""

    def __init__(self, costs: Iterable[float] | Callable[[int], float], *, device: bool = False) -> None:
        self._costs: Iterator[float] = (
            (costs(i) for i in itertools.count()) if callable(costs) else itertools.cycle(tuple(costs))
        )
        self._device = device
        self.steps = 0

    def latency(self, step: Callable[[], object], steps: int = 1) -> Timing:
        self.steps += steps
        seconds = sum(next(self._costs) for _ in range(steps))
        return Timing(seconds, seconds * 0.8 if self._device else None)

    burst = latency


class ScriptedMonitor:
    """Rejects stretches by a script of causes, None to accept; accepts what comes after its end."""

    def __init__(self, causes: Iterable[str | None] = ()) -> None:
        self._causes = iter(causes)
        self.open = False
        self.stretches = 0

    def begin(self) -> None:
        assert not self.open
        self.open = True

    def end(self, *, slow: bool = False) -> str | None:
        assert self.open
        self.open = False
        self.stretches += 1
        return next(self._causes, None)


def nothing() -> None:
    """A step that costs what the clock says."""
