"""The probe's double: readings that somebody wrote down before."""

from __future__ import annotations

from collections.abc import Iterable

from archbench.device.health import Reading


class ReplayProbe:
    """Gives the readings in turn, then repeats the last one for ever. Raises `ValueError` for none at all."""

    def __init__(self, readings: Iterable[Reading]) -> None:
        self._readings = tuple(readings)
        if not self._readings:
            raise ValueError("a replay needs at least one reading")
        self._next = 0

    def read(self) -> Reading:
        reading = self._readings[min(self._next, len(self._readings) - 1)]
        self._next += 1
        return reading
