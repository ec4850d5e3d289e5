"""NVML, asked so that every question has a value or the reason for its absence, and the GPU's probe through it.

NVML is asked for by name because both sides age: an old driver lacks a symbol, an old binding lacks a function, and
both are `driver_too_old`. Never a zero, never an exception.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pynvml

from archbench.device.cpu import CpuProbe
from archbench.device.environment import torch_build
from archbench.device.health import GpuProcess, Reading, SlowdownTimes

_REASONS: dict[int, str] = {
    pynvml.NVML_ERROR_NOT_SUPPORTED: "not_on_device",
    pynvml.NVML_ERROR_NOT_FOUND: "not_on_device",
    pynvml.NVML_ERROR_NO_PERMISSION: "no_permission",
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: "driver_too_old",
    pynvml.NVML_ERROR_GPU_IS_LOST: "device_lost",
    pynvml.NVML_ERROR_RESET_REQUIRED: "device_lost",
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "nvml_missing",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "driver_not_loaded",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "driver_mismatch",
}
"""NVML's error numbers as reason codes; any other becomes `monitor_error`."""


class NvmlError(Exception):
    """NVML as a whole cannot be used; `reason` is a code of `_REASONS`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@contextmanager
def session() -> Iterator[None]:
    """Hold NVML open. Nests, and leaves no handle behind that a fork could inherit.

    Raises `NvmlError` where the library or the driver is missing or refuses.
    """
    _, reason = ask("nvmlInit")
    if reason == "nvml_missing" and torch_build().get("hip"):
        reason = "rocm_unwatched"
    if reason is not None:
        raise NvmlError(reason)
    try:
        yield
    finally:
        ask("nvmlShutdown")  # A driver that died meanwhile has nothing left to shut down.


def ask(function: str, *arguments: Any, nothing: Any = None) -> tuple[Any, str | None]:
    """Call a function of the binding: `(value, None)`, or `(None, reason)` where NVML does not answer.

    With `nothing`, that is the value where NVML says that it has found nothing.
    """
    call = getattr(pynvml, function, None)
    if call is None:
        return None, "driver_too_old"
    try:
        return call(*arguments), None
    except pynvml.NVMLError as error:
        # The binding raises a success, too, where it expected NVML to ask for more room than none.
        if nothing is not None and error.value in (pynvml.NVML_SUCCESS, pynvml.NVML_ERROR_NOT_FOUND):
            return nothing, None
        return None, _REASONS.get(error.value, "monitor_error")


def value(function: str, *arguments: Any) -> Any:
    """The same for callers to whom the reason does not matter: the value, or `None`."""
    return ask(function, *arguments)[0]


_FIELDS = {
    "sw_power_cap": pynvml.NVML_FI_DEV_PERF_POLICY_POWER,
    "thermal": pynvml.NVML_FI_DEV_PERF_POLICY_THERMAL,
    # The numbers themselves, because bindings before 570 lack the names.
    "sw_thermal": 269,
    "hw_thermal": 270,
    "power_brake": 271,
}
SLOW_S = 0.1
"""A reading that takes longer costs more than the block of samples that it judges may."""
SLOW_SHARE = 0.05
"""The share of the time that a slow NVML may take."""
FOREIGN_SHARE = 0.05
"""Share of a sampling period in which a process must have run kernels to count as a neighbour: a desktop's compositor
stays below. As for the CPU, what costs us less is noise."""
_FIRST_PID_NAMESPACE = 4026531836
"""Inode of the namespace in which process ids are the host's (PROC_PID_INIT_INO of the kernel)."""


class NvmlProbe:
    """Reads one GPU, or the GPU under a MIG slice, found by UUID: NVML's order is not CUDA's.

    Of a slice, power and energy are `None`: they are the whole GPU's, other slices included.
    An NVML that takes seconds a call is not waited for: a reading asks for `SLOW_S` at most, and after one that took
    longer NVML is left alone for as long as keeps it within `SLOW_SHARE` of the time.
    """

    def __init__(self, uuid: str | None, *, ours: Collection[int] = ()) -> None:
        self._ours = frozenset(ours) | {os.getpid()}
        self._cpu = CpuProbe()
        self._held = ExitStack()
        self._gpu: Any = None
        self._slice: Any = None
        self._shared = False
        self._problem: str | None = None
        self._silent_until_s = 0.0
        self._seen_us = 0
        try:
            self._held.enter_context(session())
        except NvmlError as error:
            self._problem = error.reason
            return
        self._find(uuid)
        if self._problem is None:
            users, _ = sm_users(self._gpu)
            self._seen_us = max((user.at_us for user in users or ()), default=0)

    def _find(self, uuid: str | None) -> None:
        reason: str | None = "device_lost"
        handle: Any = None
        for name in () if uuid is None else _spellings(uuid):
            handle, reason = ask("nvmlDeviceGetHandleByUUID", name)
            if handle is not None:
                break
        if handle is None:
            self._problem = reason
        elif value("nvmlDeviceIsMigDeviceHandle", handle):
            self._slice = handle
            self._gpu, self._problem = ask("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle)
        else:
            self._gpu = handle
        # Some CUDA versions give the whole GPU's UUID for a slice: which slice is ours is then unknown, but not that.
        mode = None if self._gpu is None else value("nvmlDeviceGetMigMode", self._gpu)
        self._shared = bool(mode and mode[0])

    def read(self) -> Reading:
        at_s = time.perf_counter()
        cpu = self._cpu.times()
        problem = self._problem or ("monitor_slow" if at_s < self._silent_until_s else None)
        contexts = cache((lambda: _NOTHING) if problem else self._contexts)
        told: dict[str, Any] = {}
        missing: dict[str, str] = {}
        for field, question in self._questions(contexts).items():
            if problem is None and time.perf_counter() >= at_s + SLOW_S:
                problem = "monitor_slow"
            told[field], reason = question() if problem is None else (None, problem)
            if reason is not None:
                missing[field] = reason
        told["slowdowns"] = told["slowdowns"] or SlowdownTimes()
        own_bytes = next((one.memory_bytes for one in contexts()[0] or () if one.pid == os.getpid()), None)
        took_s = time.perf_counter() - at_s
        if took_s > SLOW_S:
            self._silent_until_s = at_s + took_s / SLOW_SHARE
        return Reading(at_s=at_s, cpu=cpu, own_bytes=own_bytes, missing=missing, **told)

    def _questions(self, contexts: Callable[[], _Answer]) -> dict[str, Callable[[], _Answer]]:
        """What is asked for each field of a reading."""
        gpu = self._gpu
        return {
            "event_reasons": lambda: _event_reasons(gpu),
            "power_w": lambda: self._of_the_whole("nvmlDeviceGetPowerUsage", lambda milliwatts: milliwatts / 1e3),
            "foreign": lambda: self._foreign(*contexts()),
            "sm_clock_mhz": lambda: ask("nvmlDeviceGetClockInfo", gpu, pynvml.NVML_CLOCK_SM),
            "energy_mj": lambda: self._of_the_whole("nvmlDeviceGetTotalEnergyConsumption", lambda energy: energy),
            "slowdowns": lambda: _slowdowns(gpu),
        }

    def _of_the_whole(self, function: str, converted: Callable[[Any], Any]) -> _Answer:
        """What is told of the whole GPU, which is no answer for a slice."""
        told, reason = _NOT_OF_A_SLICE if self._shared else ask(function, self._gpu)
        return None if told is None else converted(told), reason

    def _contexts(self) -> tuple[tuple[GpuProcess, ...] | None, str | None]:
        if self._shared and self._slice is None:
            return _NOT_OF_A_SLICE
        return compute_processes(self._gpu if self._slice is None else self._slice)

    def _foreign(self, contexts: Sequence[GpuProcess] | None, hidden: str | None) -> _Answer:
        """Who else used the SMs since the last reading, and why that is not known."""
        users, reason = _NOT_OF_A_SLICE if self._shared else sm_users(self._gpu, self._seen_us)
        if users is None:
            # Without a context nobody computes; who has one may, or may not.
            alone = contexts is not None and self._shows_us(contexts) and not self._strangers(contexts)
            return ((), None) if alone else (None, reason)
        self._seen_us = max((user.at_us for user in users), default=self._seen_us)
        if not self._shows_us(users) and not self._shows_us(contexts or ()):
            return None, hidden or "process_unknown"
        return self._strangers([user for user in users if (user.sm_share or 0.0) >= FOREIGN_SHARE]), None

    def _shows_us(self, processes: Sequence[GpuProcess]) -> bool:
        """We are among them, by whatever id: a list that leaves us out may leave out others, too."""
        return any(process.pid in self._ours for process in processes) or (bool(processes) and not host_pids())

    def _strangers(self, processes: Sequence[GpuProcess]) -> tuple[GpuProcess, ...]:
        if all(process.pid in self._ours for process in processes):
            return ()
        relatives = family()
        return strangers([one for one in processes if one.pid not in relatives - self._ours], self._ours, host_pids())


_Answer = tuple[Any, str | None]
_NOT_OF_A_SLICE: _Answer = (None, "not_on_device")
_NOTHING: _Answer = (None, None)


def strangers(processes: Sequence[GpuProcess], ours: Collection[int], host_ids: bool) -> tuple[GpuProcess, ...]:
    """The processes that are not ours.

    In a container NVML may give the host's ids, which no process inside can tell from its own; a driver may even list
    contexts by the one and users of the SMs by the other. There, as many unknown ones are taken for ours as we miss: a
    neighbour is then still one too many.
    """
    unknown = [process for process in processes if process.pid not in ours]
    known = len(processes) - len(unknown)
    return tuple(unknown if host_ids else unknown[len(ours) - known :])


def family() -> frozenset[int]:
    """This process, those that it descends from, and those that descend from it."""
    try:
        me = psutil.Process()
        return frozenset(process.pid for process in (me, *me.parents(), *me.children(recursive=True)))
    except psutil.Error:
        return frozenset((os.getpid(),))


def host_pids() -> bool:
    """Process ids here are the host's, as NVML gives them."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino == _FIRST_PID_NAMESPACE
    except OSError:
        return False


def compute_processes(handle: Any) -> tuple[tuple[GpuProcess, ...] | None, str | None]:
    """Processes with a compute context on a device, or the reason why they are not known."""
    found, reason = ask("nvmlDeviceGetComputeRunningProcesses_v3", handle)
    if reason == "driver_too_old":
        found, reason = ask("nvmlDeviceGetComputeRunningProcesses_v2", handle)
    if found is None:
        return None, reason
    return tuple(GpuProcess(pid=process.pid, memory_bytes=process.usedGpuMemory) for process in found), None


class SmUser(GpuProcess, frozen=True, kw_only=True):
    """A process that used the SMs, as of the driver's latest sample of it."""

    at_us: int
    """The driver's clock."""


def sm_users(handle: Any, since_us: int = 0) -> tuple[tuple[SmUser, ...] | None, str | None]:
    """Processes that ran kernels after `since_us` on the driver's clock, or the reason why they are not known.

    NVML gives the latest sample of each process, keeps old ones unless told since when, and knows of none on a GPU in
    MIG mode (nvmlDeviceGetProcessUtilization). What cannot be a share of time, or is not newer, is not believed: such
    samples have been seen.
    """
    samples, reason = ask("nvmlDeviceGetProcessUtilization", handle, since_us, nothing=())
    if samples is None:
        return None, reason
    return tuple(
        SmUser(pid=sample.pid, sm_share=sample.smUtil / 100, at_us=sample.timeStamp)
        for sample in samples
        if sample.timeStamp > since_us and 0 < sample.smUtil <= 100
    ), None


def temperature(handle: Any) -> tuple[int | None, str | None]:
    """Core temperature in degrees Celsius; the call without a version serves drivers before 560."""
    celsius, reason = ask("nvmlDeviceGetTemperatureV", handle, pynvml.NVML_TEMPERATURE_GPU)
    if reason in ("driver_too_old", "not_on_device"):
        celsius, reason = ask("nvmlDeviceGetTemperature", handle, pynvml.NVML_TEMPERATURE_GPU)
    return celsius, reason


def _event_reasons(handle: Any) -> tuple[int | None, str | None]:
    mask, reason = ask("nvmlDeviceGetCurrentClocksEventReasons", handle)
    if reason == "driver_too_old":  # The name before driver 535.
        mask, reason = ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
    return mask, reason


def _slowdowns(handle: Any) -> tuple[SlowdownTimes | None, str | None]:
    values, reason = ask("nvmlDeviceGetFieldValues", handle, list(_FIELDS.values()))
    if values is None:
        return None, reason
    counted = {
        cause: int(one.value.ullVal)
        for cause, one in zip(_FIELDS, values, strict=True)
        if one.nvmlReturn == pynvml.NVML_SUCCESS
    }
    return (SlowdownTimes(**counted), None) if counted else (None, "not_on_device")


def _spellings(uuid: str) -> tuple[str, ...]:
    return (uuid,) if uuid.startswith(("GPU-", "MIG-")) else (f"GPU-{uuid}", f"MIG-{uuid}")
