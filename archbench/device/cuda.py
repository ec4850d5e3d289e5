"""CUDA GPUs: the host only issues work, and the device has a clock and an allocator of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from archbench.device.clock import MS, Step, Timing, checked
from archbench.device.kind import CalibrationSizes, CanarySizes
from archbench.model.axes import DeviceKind
from archbench.model.environment import Environment
from archbench.model.errors import UsageError

if TYPE_CHECKING:
    import torch

SNAPSHOT_EVENTS = 200_000
"""Allocations and frees that a memory snapshot holds: several times those of the deepest network's step."""


class CudaClock:
    """The host's clock around a synchronised step, and events on the device's own."""

    def __init__(self, device: torch.device) -> None:
        import torch

        self._torch: Any = torch
        self._device = device
        self._start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self._end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    def latency(self, step: Step, steps: int = 1) -> Timing:
        synchronize = self.synchronize
        synchronize()
        start = time.perf_counter_ns()
        self._start.record()
        for _ in range(steps - 1):
            step()
            synchronize()
        step()
        self._end.record()
        synchronize()
        host_s = checked((time.perf_counter_ns() - start) * 1e-9)
        return Timing(host_s, checked(self._start.elapsed_time(self._end) * MS))

    def burst(self, step: Step, steps: int) -> Timing:
        self.synchronize()
        start = time.perf_counter_ns()
        self._start.record()
        for _ in range(steps):
            step()
        self._end.record()
        self.synchronize()
        host_s = checked((time.perf_counter_ns() - start) * 1e-9)
        return Timing(host_s, checked(self._start.elapsed_time(self._end) * MS))

    def synchronize(self) -> None:
        self._torch.cuda.synchronize(self._device)


class CudaAllocator:
    """See `archbench.device.kind.Allocator`."""

    def __init__(self, device: torch.device) -> None:
        import torch

        self._cuda: Any = torch.cuda
        self._device = device

    @property
    def backend(self) -> str:
        return str(self._cuda.get_allocator_backend())

    def reset_peaks(self) -> None:
        self._cuda.reset_peak_memory_stats(self._device)

    def allocated(self) -> int:
        return int(self._cuda.memory_allocated(self._device))

    def peak_allocated(self) -> int:
        return int(self._cuda.max_memory_allocated(self._device))

    def peak_reserved(self) -> int:
        return int(self._cuda.max_memory_reserved(self._device))

    def free(self) -> int:
        return int(self._cuda.mem_get_info(self._device)[0])

    def snapshot(self, step: Callable[[], object]) -> object:
        memory = self._cuda.memory
        memory._record_memory_history(max_entries=SNAPSHOT_EVENTS)
        try:
            step()
            self._cuda.synchronize(self._device)
            return memory._snapshot(self._device)
        finally:
            memory._record_memory_history(enabled=None)


class Cuda:
    """See `archbench.device.kind.Kind`."""

    name: DeviceKind = "cuda"
    canary = CanarySizes(image=(64, 64, 56, 56), matrix=384)
    calibration = CalibrationSizes(matrix=8192, copy_bytes=2 << 30, precisions=("fp32", "tf32", "bf16", "fp16"))
    activity: str | None = "CUDA"
    records_graphs = True

    def find(self, environment: Environment) -> torch.device:
        import torch

        number = int(environment.device.partition(":")[2] or 0)
        gpu = environment.gpus[0] if environment.gpus else None
        wanted = set() if gpu is None else {_bare(uuid) for uuid in (gpu.mig_uuid, gpu.uuid) if uuid}
        shown = [self.uuid(torch.device("cuda", other)) for other in range(torch.cuda.device_count())]
        # CUDA numbers unlike GPUs fastest first, NVML by bus: the number alone may be another card's.
        if gpu is not None and wanted and None not in shown:
            found = [other for other, uuid in enumerate(shown) if uuid and _bare(uuid) in wanted]
            if not found:
                raise UsageError(
                    f"{environment.device} is {gpu.name} {gpu.mig_uuid or gpu.uuid}, which CUDA does not show to this "
                    f"process (it shows {', '.join(map(str, shown)) or 'none'}); see CUDA_VISIBLE_DEVICES"
                )
            number = found[0]
        return torch.device("cuda", number)

    def use(self, device: torch.device) -> None:
        import torch

        torch.cuda.set_device(device)

    def clock(self, device: torch.device) -> CudaClock:
        return CudaClock(device)

    def synchronize(self, device: torch.device) -> None:
        import torch

        torch.cuda.synchronize(device)

    def allocator(self, device: torch.device) -> CudaAllocator:
        return CudaAllocator(device)

    def empty_cache(self) -> None:
        import torch

        torch.cuda.empty_cache()

    def uuid(self, device: torch.device) -> str | None:
        import torch

        uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)  # not in every build for ROCm
        return None if uuid is None else str(uuid)

    def settle(self) -> None:
        return None


def _bare(uuid: str) -> str:
    """Without the prefix that NVML gives it and torch does not."""
    return uuid.removeprefix("GPU-").removeprefix("MIG-").lower()
