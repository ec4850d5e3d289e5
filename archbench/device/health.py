"""What a probe reads of a device, what two readings say of the time between them; and findings on a machine's fitness.

Pure functions: every trap is provable without a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, Protocol, get_args

from msgspec import Struct, structs

# NVML's clock event reasons (nvml.h, nvmlClocksEventReasons), repeated so that replays need no binding.
SW_POWER_CAP = 0x04
HW_SLOWDOWN = 0x08
SW_THERMAL = 0x20
HW_THERMAL = 0x40
POWER_BRAKE = 0x80

HELD_DOWN = HW_SLOWDOWN | SW_THERMAL | HW_THERMAL | POWER_BRAKE
_THROTTLE_TIMES = ("thermal", "sw_thermal", "hw_thermal", "power_brake")
"""The counters of `SlowdownTimes` that spoil a block; a software power cap does not."""

ENERGY_WINDOW_S = 5.0
"""Shortest window with an energy: a counter updated every 0.1 s is then off by at most 2 %."""

CONTENTION_LIMIT = 0.05
"""Lost share of CPU time above which a neighbour is called one. A quiet two-core machine shows below 1 %."""
CROWDED_LIMIT = 1 / 3
"""Lost share from which no figure is fit to be used: for every second of work our threads waited half of one, so a step
took 1.5 times its time, and as the waits come in bursts its interval does not tell. Two busy processes beside a network
on two cores make it about a half."""


class GpuProcess(Struct, frozen=True, kw_only=True):
    """A process on the GPU: one that holds a context, or one that used the SMs. In a container `pid` may be the host's.

    Who holds a context need not compute: a notebook, a parent, a compile worker keep theirs for hours.
    """

    pid: int
    memory_bytes: int | None = None
    sm_share: float | None = None
    """Share of the driver's last sampling period (1/6 s to 1 s) in which a kernel of it ran."""


class SlowdownTimes(Struct, frozen=True, kw_only=True):
    """Time spent below the wanted clock since the driver was loaded, by cause, in ns. `None` = not counted."""

    sw_power_cap: int | None = None
    thermal: int | None = None
    """Of whichever kind: all that older drivers count."""
    sw_thermal: int | None = None
    hw_thermal: int | None = None
    power_brake: int | None = None


class CpuTimes(Struct, frozen=True, kw_only=True):
    """Cumulative CPU times in seconds, over the cores that this process may use. `None` = the system does not say."""

    cores: int
    own_s: float
    """CPU time of this process, all its threads, the ended ones included."""
    waited_s: tuple[tuple[int, float], ...] | None = None
    """For each live thread: its id, and the time it stood ready to run without getting a core."""
    busy_s: float | None = None
    """Time in which the cores ran anything at all, ours included."""
    stolen_s: float | None = None
    """Time in which the hypervisor ran somebody else."""


class Reading(Struct, frozen=True, kw_only=True):
    """The state of a device at one moment. `None` = the device does not say, never 0; `missing` says why."""

    at_s: float
    """Monotonic clock."""

    sm_clock_mhz: int | None = None
    power_w: float | None = None
    """As the driver averages it: over a second on most GPUs."""
    energy_mj: int | None = None
    """Energy since the driver was loaded, in mJ, updated as slowly as ten times a second."""
    event_reasons: int | None = None
    """Bit mask of NVML's clock event reasons: what holds the clock down at this moment."""
    slowdowns: SlowdownTimes = SlowdownTimes()
    foreign: tuple[GpuProcess, ...] | None = None
    """Processes that used the SMs since the last reading and are neither ours, nor our ancestors or descendants."""
    own_bytes: int | None = None
    """Memory of this process on the GPU, its context included; `None` where it is not among those that NVML names."""

    cpu: CpuTimes | None = None
    """On a GPU, too: latency is the host's clock."""
    host_only: bool = False
    """Of a CPU: there is no GPU whose silence would be missing."""

    missing: dict[str, str] = {}
    """Field -> reason code (`archbench.model.reasons`) of every field that should be there and is not."""


class Probe(Protocol):
    """Reads a device. One reading costs 0.1 to 3 ms: take it at the edges of a block, never inside."""

    def read(self) -> Reading:
        """Read now. Never raises for what a device cannot say."""


class BlockHealth(Struct, frozen=True, kw_only=True):
    """How the device fared between two readings. `None` = not known, never 0; `missing` says why."""

    wall_s: float | None
    """`None` where the clock returned no number or went back: nothing else is known then."""
    lost: bool = False
    """The device stopped answering."""

    throttled: bool | None = None
    """Held down by heat, a power brake or the hardware: the block is not fit to be used."""
    power_capped: bool | None = None
    """At the software power limit: normal under sustained load."""
    foreign: bool | None = None
    """Another process computed on the GPU."""

    energy_j: float | None = None
    mean_power_w: float | None = None
    """From the energy where there is one, else the mean of the two edges."""
    sm_clock_mhz: float | None = None
    """Mean of the two edges."""

    contention: float | None = None
    """Of the CPU time that our threads asked for, the share that they did not get (run queue and hypervisor)."""
    others: float | None = None
    """Of the machine's CPU time, the share that others used, on whatever core: they also take cache and clock."""

    missing: dict[str, str] = {}
    """Field -> reason code (`archbench.model.reasons`) of every field that should be there and is not."""

    @property
    def contended(self) -> bool | None:
        """A neighbour took CPU time from us."""
        return None if self.contention is None else self.contention > CONTENTION_LIMIT

    @property
    def crowded(self) -> bool | None:
        """Neighbours took so much that the time is theirs as much as ours."""
        return None if self.contention is None else self.contention > CROWDED_LIMIT


def between(before: Reading, after: Reading, *, energy_window_s: float = ENERGY_WINDOW_S) -> BlockHealth:
    """Judge the time between two readings of one probe."""
    wall_s = after.at_s - before.at_s
    if not (math.isfinite(wall_s) and wall_s > 0):
        return BlockHealth(wall_s=None, missing={"wall_s": "clock_error"})
    health = BlockHealth(wall_s=wall_s) if after.host_only else _gpu_health(wall_s, before, after, energy_window_s)
    return health if before.cpu is None or after.cpu is None else _with_cpu(health, wall_s, before.cpu, after.cpu)


def _gpu_health(wall_s: float, before: Reading, after: Reading, energy_window_s: float) -> BlockHealth:
    missing: dict[str, str] = {}
    masks = [reading.event_reasons for reading in (before, after) if reading.event_reasons is not None]
    growth = {cause: _growth(before.slowdowns, after.slowdowns, cause) for cause in SlowdownTimes.__struct_fields__}
    if any(ns is not None and ns < 0 for ns in growth.values()):
        missing["slowdowns"] = "monitor_gap"
    throttled = any(mask & HELD_DOWN for mask in masks)
    throttled = throttled or any((growth[cause] or 0) > 0 for cause in _THROTTLE_TIMES)
    power_capped = any(mask & SW_POWER_CAP for mask in masks) or (growth["sw_power_cap"] or 0) > 0
    # A block is clean only where the whole of it is known to be.
    throttle_known = throttled or len(masks) == 2 or any(growth[cause] == 0 for cause in _THROTTLE_TIMES)
    cap_known = power_capped or len(masks) == 2 or growth["sw_power_cap"] == 0
    for field, is_known in (("throttled", throttle_known), ("power_capped", cap_known)):
        if not is_known:
            missing[field] = _why(before, after, "event_reasons")
    energy_j = _energy(before, after, wall_s, energy_window_s, missing)
    mean_power_w = _mean(before, after, "power_w", "mean_power_w", missing)
    return BlockHealth(
        wall_s=wall_s,
        lost="device_lost" in after.missing.values(),
        throttled=throttled if throttle_known else None,
        power_capped=power_capped if cap_known else None,
        foreign=_foreign(before, after, missing),
        energy_j=energy_j,
        mean_power_w=mean_power_w if energy_j is None else energy_j / wall_s,
        sm_clock_mhz=_mean(before, after, "sm_clock_mhz", "sm_clock_mhz", missing),
        missing=missing,
    )


def _foreign(before: Reading, after: Reading, missing: dict[str, str]) -> bool | None:
    if before.foreign or after.foreign:
        return True
    if before.foreign is None or after.foreign is None:
        missing["foreign"] = _why(before, after, "foreign")
        return None
    return False


def _energy(before: Reading, after: Reading, wall_s: float, window_s: float, missing: dict[str, str]) -> float | None:
    if before.energy_mj is None or after.energy_mj is None:
        missing["energy_j"] = _why(before, after, "energy_mj")
    elif after.energy_mj < before.energy_mj:
        missing["energy_j"] = "monitor_gap"  # The driver was reloaded, or the counter wrapped.
    elif wall_s < window_s:
        missing["energy_j"] = "too_short"
    else:
        return (after.energy_mj - before.energy_mj) / 1e3
    return None


def _mean(before: Reading, after: Reading, field: str, name: str, missing: dict[str, str]) -> float | None:
    first, second = getattr(before, field), getattr(after, field)
    if first is None or second is None:
        missing[name] = _why(before, after, field)
        return None
    return float(first + second) / 2


def _growth(before: SlowdownTimes, after: SlowdownTimes, cause: str) -> int | None:
    first, second = getattr(before, cause), getattr(after, cause)
    return None if first is None or second is None else int(second - first)


def _why(before: Reading, after: Reading, field: str) -> str:
    return after.missing.get(field) or before.missing.get(field) or "not_on_device"


def _with_cpu(health: BlockHealth, wall_s: float, before: CpuTimes, after: CpuTimes) -> BlockHealth:
    missing = dict(health.missing)
    own_s = after.own_s - before.own_s
    busy_s = _elapsed(before.busy_s, after.busy_s, "others", missing)
    stolen_s = _elapsed(before.stolen_s, after.stolen_s, "contention", missing)
    waited_s = _waited(before, after, missing)
    contention = others = None
    if busy_s is not None and stolen_s is not None:
        # Ticks of 10 ms against our own nanoseconds: a rounding error is no negative neighbour.
        others = min(max(busy_s + stolen_s - own_s, 0.0) / (wall_s * after.cores), 1.0)
    if waited_s is not None:
        # A stolen core halts whoever is on it: of the theft we bear our share of the busy time.
        ours = (stolen_s or 0.0) * min(own_s / busy_s, 1.0) if busy_s else 0.0
        wanted_s = own_s + waited_s + ours
        if wanted_s > 0:
            contention = (waited_s + ours) / wanted_s
        else:
            missing["contention"] = "too_short"
    return structs.replace(health, contention=contention, others=others, missing=missing)


def _waited(before: CpuTimes, after: CpuTimes, missing: dict[str, str]) -> float | None:
    """Time our threads stood ready without a core. A thread that ended takes its last wait with it."""
    if before.waited_s is None or after.waited_s is None:
        missing["contention"] = "not_on_device"
        return None
    earlier = dict(before.waited_s)
    return sum(max(waited - earlier.get(thread, 0.0), 0.0) for thread, waited in after.waited_s)


def _elapsed(before: float | None, after: float | None, field: str, missing: dict[str, str]) -> float | None:
    if before is None or after is None:
        missing[field] = "not_on_device"
        return None
    if after < before:
        missing[field] = "monitor_gap"  # Seen after a live migration of the virtual machine.
        return None
    return after - before


Severity = Literal["ok", "note", "warn", "unfit"]
"""`ok` fine; `note` good to know; `warn` rows may be suspect or cells fail; `unfit` measuring here gives no answer."""
SEVERITIES: tuple[Severity, ...] = get_args(Severity)


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    code: str
    severity: Severity
    what: str
    remedy: str = ""


def worst(findings: Iterable[Finding]) -> Severity:
    """The gravest severity among the findings; `ok` for none."""
    return SEVERITIES[max((SEVERITIES.index(finding.severity) for finding in findings), default=0)]


def ok(code: str, what: str) -> Finding:
    """As it should be."""
    return Finding(code=code, severity="ok", what=what)


def note(code: str, what: str, remedy: str = "") -> Finding:
    """Good to know; figures do not suffer."""
    return Finding(code=code, severity="note", what=what, remedy=remedy)


def warn(code: str, what: str, remedy: str) -> Finding:
    """Figures will scatter more widely than they could."""
    return Finding(code=code, severity="warn", what=what, remedy=remedy)


def unfit(code: str, what: str, remedy: str) -> Finding:
    """Figures from here would mislead."""
    return Finding(code=code, severity="unfit", what=what, remedy=remedy)
