"""The GPU's probe, through NVML. What the device or its driver does not say is `None` with its reason."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pynvml

from archbench.device import nvml
from archbench.device.probe import GpuProcess, Reading, SlowdownTimes

_FIELDS = {
    "sw_power_cap": pynvml.NVML_FI_DEV_PERF_POLICY_POWER,
    "thermal": pynvml.NVML_FI_DEV_PERF_POLICY_THERMAL,
    # The numbers themselves, because bindings before 570 lack the names.
    "sw_thermal": 269,
    "hw_thermal": 270,
    "power_brake": 271,
}
_EXPECTED = (
    "sm_clock_mhz",
    "mem_clock_mhz",
    "temperature_c",
    "power_w",
    "energy_mj",
    "event_reasons",
    "slowdowns",
    "foreign",
    "utilisation",
)
_FIRST_PID_NAMESPACE = 4026531836
"""Inode of the namespace in which process ids are the host's (PROC_PID_INIT_INO of the kernel)."""


class NvmlProbe:
    """Reads one GPU, or the GPU under a MIG slice, found by UUID: NVML's order is not CUDA's.

    Of a slice, power, energy and utilisation are `None`: they are the whole GPU's, other slices included.
    """

    def __init__(self, uuid: str | None, *, ours: Collection[int] = ()) -> None:
        self._ours = frozenset(ours) | {os.getpid()}
        self._held = ExitStack()
        self._gpu: Any = None
        self._slice: Any = None
        self._shared = False
        self._problem: str | None = None
        try:
            self._held.enter_context(nvml.session())
        except nvml.NvmlError as error:
            self._problem = error.reason
            return
        self._find(uuid)

    def _find(self, uuid: str | None) -> None:
        reason: str | None = "device_lost"
        handle: Any = None
        for name in () if uuid is None else _spellings(uuid):
            handle, reason = nvml.ask("nvmlDeviceGetHandleByUUID", name)
            if handle is not None:
                break
        if handle is None:
            self._problem = reason
        elif nvml.value("nvmlDeviceIsMigDeviceHandle", handle):
            self._slice = handle
            self._gpu, self._problem = nvml.ask("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle)
        else:
            self._gpu = handle
        # Some CUDA versions give the whole GPU's UUID for a slice: which slice is ours is then unknown, but not that.
        mode = None if self._gpu is None else nvml.value("nvmlDeviceGetMigMode", self._gpu)
        self._shared = bool(mode and mode[0])

    def read(self) -> Reading:
        at_s = time.perf_counter()
        if self._problem is not None:
            return Reading(at_s=at_s, missing=dict.fromkeys(_EXPECTED, self._problem))
        gpu, missing = self._gpu, _Missing()
        whole = not self._shared
        power_mw = missing.note("power_w", nvml.ask("nvmlDeviceGetPowerUsage", gpu) if whole else _NOT_OF_A_SLICE)
        energy = nvml.ask("nvmlDeviceGetTotalEnergyConsumption", gpu) if whole else _NOT_OF_A_SLICE
        rates = missing.note(
            "utilisation", nvml.ask("nvmlDeviceGetUtilizationRates", gpu) if whole else _NOT_OF_A_SLICE
        )
        processes = missing.note("foreign", self._processes())
        return Reading(
            at_s=at_s,
            sm_clock_mhz=missing.note("sm_clock_mhz", nvml.ask("nvmlDeviceGetClockInfo", gpu, pynvml.NVML_CLOCK_SM)),
            mem_clock_mhz=missing.note("mem_clock_mhz", nvml.ask("nvmlDeviceGetClockInfo", gpu, pynvml.NVML_CLOCK_MEM)),
            temperature_c=missing.note("temperature_c", temperature(gpu)),
            power_w=None if power_mw is None else power_mw / 1e3,
            energy_mj=missing.note("energy_mj", energy),
            event_reasons=missing.note("event_reasons", _event_reasons(gpu)),
            slowdowns=missing.note("slowdowns", _slowdowns(gpu)) or SlowdownTimes(),
            foreign=None if processes is None else strangers(processes, self._ours, host_pids()),
            own_bytes=next((one.memory_bytes for one in processes or () if one.pid == os.getpid()), None),
            utilisation=None if rates is None else rates.gpu / 100,
            missing=missing.reasons,
        )

    def close(self) -> None:
        self._problem = self._problem or "monitor_error"
        self._held.close()

    def _processes(self) -> tuple[tuple[GpuProcess, ...] | None, str | None]:
        if self._shared and self._slice is None:
            return _NOT_OF_A_SLICE
        return compute_processes(self._gpu if self._slice is None else self._slice)


_Answer = tuple[Any, str | None]
_NOT_OF_A_SLICE: _Answer = (None, "not_on_device")


class _Missing:
    """Unpacks answers and keeps the reasons of those that hold nothing."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    def note(self, field: str, answer: _Answer) -> Any:
        value, reason = answer
        if reason is not None:
            self.reasons[field] = reason
        return value


def strangers(processes: Sequence[GpuProcess], ours: Collection[int], host_ids: bool) -> tuple[GpuProcess, ...]:
    """The processes that are not ours.

    In a container NVML may give the host's ids, which no process inside can tell from its own. There, as many unknown
    ones are taken for ours as we miss: a neighbour is then still one too many.
    """
    unknown = [process for process in processes if process.pid not in ours]
    known = len(processes) - len(unknown)
    return tuple(unknown if host_ids else unknown[len(ours) - known :])


def host_pids() -> bool:
    """Process ids here are the host's, as NVML gives them."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino == _FIRST_PID_NAMESPACE
    except OSError:
        return False


def compute_processes(handle: Any) -> tuple[tuple[GpuProcess, ...] | None, str | None]:
    """Processes with a compute context on a device, or the reason why they are not known."""
    found, reason = nvml.ask("nvmlDeviceGetComputeRunningProcesses_v3", handle)
    if reason == "driver_too_old":
        found, reason = nvml.ask("nvmlDeviceGetComputeRunningProcesses_v2", handle)
    if found is None:
        return None, reason
    return tuple(GpuProcess(pid=process.pid, memory_bytes=process.usedGpuMemory) for process in found), None


def temperature(handle: Any) -> tuple[int | None, str | None]:
    """Core temperature in degrees Celsius; the call without a version serves drivers before 560."""
    celsius, reason = nvml.ask("nvmlDeviceGetTemperatureV", handle, pynvml.NVML_TEMPERATURE_GPU)
    if reason in ("driver_too_old", "not_on_device"):
        celsius, reason = nvml.ask("nvmlDeviceGetTemperature", handle, pynvml.NVML_TEMPERATURE_GPU)
    return celsius, reason


def _event_reasons(handle: Any) -> tuple[int | None, str | None]:
    mask, reason = nvml.ask("nvmlDeviceGetCurrentClocksEventReasons", handle)
    if reason == "driver_too_old":  # The name before driver 535.
        mask, reason = nvml.ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
    return mask, reason


def _slowdowns(handle: Any) -> tuple[SlowdownTimes | None, str | None]:
    values, reason = nvml.ask("nvmlDeviceGetFieldValues", handle, list(_FIELDS.values()))
    if values is None:
        return None, reason
    counted = {
        cause: int(value.value.ullVal)
        for cause, value in zip(_FIELDS, values, strict=True)
        if value.nvmlReturn == pynvml.NVML_SUCCESS
    }
    return (SlowdownTimes(**counted), None) if counted else (None, "not_on_device")


def _spellings(uuid: str) -> tuple[str, ...]:
    return (uuid,) if uuid.startswith(("GPU-", "MIG-")) else (f"GPU-{uuid}", f"MIG-{uuid}")
