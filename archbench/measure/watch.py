"""The watch over a cell: probe and canary at the edges of stretches, and what they say of the row."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from statistics import median

from msgspec import Struct

from archbench.device.health import BlockHealth, Probe, Reading, between
from archbench.measure.sampling import STALLED, Stretch, usable
from archbench.model.protocol import Protocol

STALL_PAUSE_S = 1.0
"""A neighbour that is waited for is looked at so often: a compiler's step, another's measurement takes seconds."""
COLUMN_OF = {
    "throttled": "throttled_fraction",
    "power_capped": "power_capped_fraction",
    "sm_clock_mhz": "sm_clock_mhz",
    "mean_power_w": "mean_power_w",
    "contention": "contention",
}
"""What a health tells, and the column that sums it up, or is null for it."""


class WatchReport(Struct, frozen=True, kw_only=True):
    """What was seen over one cell. `None` = the device does not say."""

    canaries: tuple[float, ...]
    throttled_fraction: float | None
    power_capped_fraction: float | None
    sm_clock_mhz: float | None
    mean_power_w: float | None
    contention: float | None
    reasons: tuple[str, ...]
    """Reason codes for the row."""
    missing: tuple[tuple[str, str], ...]
    """Columns of the row that stay null, each with its reason code."""


class Watch:
    """Judges each stretch by the readings around it, and runs the canary between stretches within its share of time."""

    def __init__(
        self,
        probe: Probe,
        canary: Callable[[], float] | None,
        protocol: Protocol,
        announce: Callable[[str], None] = lambda what: None,
    ) -> None:
        """`announce` is told what keeps the cell from being measured as fast as it might be."""
        self._probe = probe
        self._announce = announce
        self._stalled = False
        self._canary = canary
        self._protocol = protocol
        self._before: Reading | None = None
        self._healths: list[BlockHealth] = []
        self._canaries: list[float] = []
        self._begun_after: list[int] = []
        """For each stretch, how many canaries had been taken when it began."""
        self._started = time.perf_counter()
        self._canary_spent_s = 0.0

    def begin(self) -> None:
        """Wait after a stall; run the canary if its share allows; then read: its own load is outside the stretch."""
        if self._stalled:
            self._announce("stalled: waiting for other work to end")
            time.sleep(STALL_PAUSE_S)
        elapsed = time.perf_counter() - self._started
        if not self._canaries or self._canary_spent_s < self._protocol.canary_share * elapsed:
            self._read_canary()
        self._begun_after.append(len(self._canaries))
        self._before = self._probe.read()

    def _read_canary(self) -> None:
        if self._canary is None:
            return
        start = time.perf_counter()
        self._canaries.append(self._canary())
        # The first makes the canary, too, and may be a slow one: paid for, it could stay the only one of a short cell.
        self._canary_spent_s += time.perf_counter() - start if len(self._canaries) > 1 else 0.0

    def end(self, *, slow: bool = False) -> str | None:
        """Read and judge; the code of the reason where the stretch was throttled, shared, stalled, or not clocked."""
        assert self._before is not None, "a stretch ends that never began"
        health = between(self._before, self._probe.read())
        self._healths.append(health)
        rejected = rejection(health)
        self._stalled = rejected is None and slow and bool(health.contended)
        if health.crowded and not self._stalled:
            self._announce("beside other work")
        return STALLED if self._stalled else rejected

    def keep(self, stretches: int) -> None:
        """Forget all but the latest `stretches`, and the canaries of before: only these are of what counts."""
        first = len(self._healths) - stretches
        read = self._begun_after[first] - 1 if stretches and self._canaries else len(self._canaries)
        self._healths = self._healths[first:]
        self._begun_after = [taken - read for taken in self._begun_after[first:]]
        self._canaries = self._canaries[read:]
        if not stretches:
            self._canary_spent_s, self._started = 0.0, time.perf_counter()

    @property
    def latest(self) -> BlockHealth:
        """What was seen over the last stretch."""
        return self._healths[-1]

    def at_one_clock(self, stretches: Sequence[Stretch]) -> list[float]:
        """The kept timings of the latest `stretches`, s on the host, as they were at the usual one of their SM clocks.

        Only what ran under a power cap is put so: its clock follows the load, and is no drift of the step's.
        """
        healths = self._healths[len(self._healths) - len(stretches) :]
        usual = _median([health.sm_clock_mhz for health in healths])
        times = []
        for stretch, health in zip(stretches, healths, strict=True):
            pace = health.sm_clock_mhz / usual if health.power_capped and health.sm_clock_mhz and usual else 1.0
            times += [timing.host_s * pace for timing in stretch.timings if stretch.kept]
        return times

    def canary_beside(self, stretches: Sequence[Stretch]) -> float | None:
        """The canary's time, s, beside the median timing of the latest `stretches`; `None` without a canary.

        It is read once more where the last stretch has no reading after it. What the median divided by it gives
        is the median of the stretches' ratios to the readings around each: a machine that changes its speed half-way
        changes both, where the medians of either would fall in other halves.
        """
        if not self._canaries:
            return None
        if len(self._canaries) == self._begun_after[-1]:
            self._read_canary()
        begun = self._begun_after[len(self._begun_after) - len(stretches) :]
        ratios = []
        for stretch, taken, later in zip(stretches, begun, [*begun[1:], len(self._canaries)], strict=True):
            if stretch.kept or not any(one.kept for one in stretches):
                around = math.sqrt(self._canaries[taken - 1] * self._canaries[later - 1])
                ratios.append(median(timing.seconds for timing in stretch.timings) / around)
        return median(timing.seconds for timing in usable(stretches)) / median(ratios)

    def report(self) -> WatchReport:
        """Sum up all stretches so far."""
        healths = self._healths
        throttled = _share([h.throttled for h in healths])
        foreign = _share([h.foreign for h in healths])
        crowded = sum(bool(h.crowded) for h in healths) > len(healths) / 2
        limit = self._protocol.rejected_block_limit
        seen = {
            "throttled": (throttled or 0.0) > limit,
            "foreign_process": (foreign or 0.0) > limit,
            "device_lost": any(h.lost for h in healths),
            "clock_error": any(h.wall_s is None for h in healths),
            "monitor_blind": any("throttled" in h.missing or "foreign" in h.missing for h in healths),
            "monitor_gap": any("monitor_gap" in h.missing.values() for h in healths),
            "crowded": crowded,
            "contended": not crowded and sum(bool(h.contended) for h in healths) > len(healths) / 2,
            "power_capped": any(h.power_capped for h in healths),
        }
        return WatchReport(
            canaries=tuple(self._canaries),
            throttled_fraction=throttled,
            power_capped_fraction=_share([h.power_capped for h in healths]),
            sm_clock_mhz=_median([h.sm_clock_mhz for h in healths]),
            mean_power_w=_median([h.mean_power_w for h in healths]),
            contention=_median([h.contention for h in healths]),
            reasons=tuple(code for code, is_so in seen.items() if is_so),
            missing=_missing(healths),
        )


def rejection(health: BlockHealth) -> str | None:
    """Code of the reason why a stretch does not count, the gravest first; None for one that does."""
    causes = (
        ("device_lost", health.lost),
        ("clock_error", health.wall_s is None),
        ("foreign_process", health.foreign),
        ("throttled", health.throttled),
    )
    return next((code for code, bad in causes if bad), None)


def _missing(healths: list[BlockHealth]) -> tuple[tuple[str, str], ...]:
    """For each column that no stretch could fill, why; on a device that never fills it, `not_on_device`."""
    if not healths:
        return tuple((column, "nothing_timed") for column in COLUMN_OF.values())
    found = []
    for field, column in COLUMN_OF.items():
        if all(getattr(health, field) is None for health in healths):
            codes = (health.missing[field] for health in healths if field in health.missing)
            found.append((column, next(codes, "not_on_device")))
    return tuple(found)


def _share(flags: list[bool | None]) -> float | None:
    known = [flag for flag in flags if flag is not None]
    return sum(known) / len(known) if known else None


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
