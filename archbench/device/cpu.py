"""The CPU: it has finished when a call returns, and its memory is the host's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from archbench.device.clock import Backlogged, Step, Timing, checked
from archbench.device.kind import CalibrationSizes, CanarySizes
from archbench.model.axes import DeviceKind
from archbench.model.environment import Environment

if TYPE_CHECKING:
    import torch

SETTLE_S = 0.02
"""OpenMP's threads spin on for up to about 15 ms after their work (libgomp: 300,000 rounds)."""


class HostClock:
    """For devices that have finished when the call returns."""

    def latency(self, step: Step, steps: int = 1) -> Timing:
        start = time.perf_counter_ns()
        for _ in range(steps):
            step()
        return Timing(checked((time.perf_counter_ns() - start) * 1e-9))

    burst = latency  # a CPU has no queue: there is nothing to pipeline

    def backlogged(self, step: Step, steps: int, lead_s: float) -> Backlogged:
        host_s = self.burst(step, steps).host_s
        return Backlogged(host_s, host_s, host_s, held=True)  # the host is the device, and never waits for itself

    def waits_inside(self, step: Step) -> bool:
        return False

    def synchronize(self) -> None:
        return None


class Cpu:
    """See `archbench.device.kind.Kind`."""

    name: DeviceKind = "cpu"
    canary = CanarySizes(image=(1, 64, 56, 56), matrix=384)
    calibration = CalibrationSizes(matrix=512, copy_bytes=128 << 20, precisions=("fp32", "bf16"))
    activity: str | None = None
    records_graphs = False

    def find(self, environment: Environment) -> torch.device:
        import torch

        return torch.device("cpu")

    def use(self, device: torch.device) -> None:
        return None

    def clock(self, device: torch.device) -> HostClock:
        return HostClock()

    def synchronize(self, device: torch.device) -> None:
        return None

    def allocator(self, device: torch.device) -> None:
        return None

    def empty_cache(self) -> None:
        return None

    def release(self) -> None:
        return None

    def uuid(self, device: torch.device) -> None:
        return None

    def settle(self) -> None:
        import torch

        if torch.get_num_threads() > 1:
            time.sleep(SETTLE_S)
