"""What a compiled step runs, kernel by kernel, mapped back to modules where the compiler says so."""

from __future__ import annotations

from collections.abc import Callable

from archbench.measure.clock import Clock
from archbench.measure.workload import Workload
from archbench.model.profile import KernelMap


def map_kernels(make: Callable[[], Workload], clock: Clock, eager_step_s: float) -> KernelMap:
    raise NotImplementedError
