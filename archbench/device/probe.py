"""What a probe is: something that reads the device's state, between blocks and never during one."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct


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
    mem_clock_mhz: int | None = None
    temperature_c: int | None = None
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
    utilisation: float | None = None
    """Share of the last sampling period (1/6 s to 1 s) in which a kernel ran."""

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
        ...

    def close(self) -> None:
        """Let go of the device."""
        ...
