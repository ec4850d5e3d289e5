"""A GPU that exists on paper: a host's clock, a stream that works off a queue, and the torch.cuda that sees them.

It knows nothing of archbench. Its rules are those of the CUDA C++ programming guide and the runtime's reference:

- a launch costs the host some time and returns; the kernel begins when those before it have ended;
- an event stamps when the stream reaches it, on an idle stream at once; recording it costs the host time too;
- the queue holds so many launches and events, and a launch into a full one blocks the host until one has ended;
- waiting, for an event or for the whole device, ends when the work has ended, and then costs a little.

Time is virtual and exact, so that what a program measures can be held against what was true.
"""

from __future__ import annotations

import math
import random
import time
import warnings
from collections import deque

import torch

US = 1e-6
SYNC_COPY_S = 2 * US
"""What `.item()` copies before it waits."""


class HungError(Exception):
    """The host waits for what never ends."""


class SimulatedGpu:
    """Seconds throughout. `now` is the host's clock, `_free_at` the moment when the stream has worked off its queue."""

    def __init__(
        self,
        *,
        launch_s: float = 9 * US,
        depth: int = 1000,
        start_s: float = 3 * US,
        record_s: float = 1 * US,
        wait_s: float = 4 * US,
        wait_device_s: float = 12 * US,
        clock_hz: float = 1.5e9,
        host_jitter: float = 0.0,
        kernel_jitter: float = 0.0,
        hiccup_s: float = 0.0,
        hiccups: float = 0.0,
        seed: int = 0,
    ) -> None:
        """`launch_s`: a launch on the host. `start_s`: from the launch to the kernel's begin on an idle stream.

        `record_s`, `wait_s`, `wait_device_s`: recording an event, waiting for one that has happened, waiting for the
        device. `clock_hz`: what a spin counts. Jitters are relative standard deviations; a share `hiccups` of launches
        costs `hiccup_s` more, as when the host runs something else.
        """
        self.launch_s, self.depth, self.start_s, self.record_s = launch_s, depth, start_s, record_s
        self.wait_s, self.wait_device_s, self.clock_hz = wait_s, wait_device_s, clock_hz
        self._host_jitter, self._kernel_jitter = host_jitter, kernel_jitter
        self._hiccup_s, self._hiccups = hiccup_s, hiccups
        self._random = random.Random(seed)
        self.now = 100.0
        self._free_at = 0.0
        self._ends: deque[float] = deque()
        """When each entry of the queue that may still be in it ends, in order."""
        self._warns = False

    def install(self, monkeypatch) -> None:
        """Put this GPU in the place of torch's, and its host's clock in the place of Python's."""
        gpu = self

        class Event(SimulatedEvent):
            def __init__(self, enable_timing=False, blocking=False):
                super().__init__(gpu, enable_timing)

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: self.synchronize())
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: None)
        monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: self.launch(cycles / self.clock_hz))
        monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", self._set_sync_debug_mode)
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(time, "perf_counter_ns", lambda: round(self.now * 1e9))

    def host(self, seconds: float) -> None:
        """The host does something else: Python, the framework."""
        self.now += seconds * self._factor(self._host_jitter)

    def launch(self, seconds: float, *, cost_s: float | None = None) -> None:
        """Launch a kernel, or a graph of them, that takes so long on the device."""
        self.host(self.launch_s if cost_s is None else cost_s)
        if self._hiccups and self._random.random() < self._hiccups:
            self.now += self._hiccup_s
        self._enqueue(seconds * self._factor(self._kernel_jitter), self.start_s)

    def synchronize_inside(self) -> None:
        """What `.item()` does: a small copy, then a wait for the stream, of which torch warns if told to."""
        if self._warns:
            warnings.warn("called a synchronizing CUDA operation", stacklevel=2)
        self.launch(SYNC_COPY_S)
        self.now = self._ended(self._free_at) + self.wait_s

    def synchronize(self) -> None:
        self.now = self._ended(self._free_at) + self.wait_device_s

    def record(self) -> float:
        """Queue an event and return the moment at which the stream will reach it."""
        self.now += self.record_s
        return self._enqueue(0.0, 0.0)

    def wait(self, stamp: float) -> None:
        self.now = self._ended(stamp) + self.wait_s

    def _enqueue(self, seconds: float, delay_s: float) -> float:
        while self._ends and self._ends[0] <= self.now:
            self._ends.popleft()
        if len(self._ends) >= self.depth:
            self.now = self._ended(self._ends[-self.depth])
        begin = max(self._free_at, self.now + delay_s)
        self._free_at = begin + seconds
        self._ends.append(self._free_at)
        return self._free_at

    def _ended(self, moment: float) -> float:
        if math.isinf(moment):
            raise HungError
        return max(self.now, moment)

    def _factor(self, spread: float) -> float:
        return max(0.2, self._random.gauss(1.0, spread)) if spread else 1.0

    def _set_sync_debug_mode(self, mode) -> None:
        self._warns = mode in ("warn", 1)


class SimulatedEvent:
    """As `torch.cuda.Event`: one that was never recorded has nothing to wait for, and cannot be subtracted."""

    def __init__(self, gpu: SimulatedGpu, enable_timing: bool) -> None:
        self._gpu = gpu
        self._timed = enable_timing
        self._stamp: float | None = None

    def record(self, stream=None) -> None:
        self._stamp = self._gpu.record()

    def query(self) -> bool:
        return self._stamp is None or self._stamp <= self._gpu.now

    def synchronize(self) -> None:
        if self._stamp is not None:
            self._gpu.wait(self._stamp)

    def elapsed_time(self, later) -> float:
        """Milliseconds, negative for events in the wrong order."""
        if not (self._timed and later._timed):
            raise ValueError("Both events must be created with argument 'enable_timing=True'.")
        if self._stamp is None or later._stamp is None:
            raise ValueError("Both events must be recorded before calculating elapsed time.")
        if not (self.query() and later.query()):
            raise RuntimeError("CUDA error: device not ready")
        return (later._stamp - self._stamp) * 1e3


class Part:
    """A stretch of a step: some time on the host, then equal kernels, then perhaps a wait."""

    def __init__(self, count=0, kernel_s=0.0, *, launch_s=None, host_s=0.0, sync=False) -> None:
        self.count, self.kernel_s, self.host_s, self.sync = count, kernel_s, host_s, sync
        self._launch_s = launch_s

    def cost(self, gpu: SimulatedGpu) -> float:
        """A launch on the host."""
        return gpu.launch_s if self._launch_s is None else self._launch_s


class Workload:
    """A step of known truth. `parts` are host times, kernels as (seconds, launches), and syncs, in order."""

    def __init__(self, name: str, *parts: Part) -> None:
        self.name = name
        self._parts = parts

    def device_s(self) -> float:
        """What the device computes in one step."""
        return sum(part.count * part.kernel_s + part.sync * SYNC_COPY_S for part in self._parts)

    def issue_s(self, gpu: SimulatedGpu) -> float:
        """What the host needs to issue one step where nothing makes it wait."""
        return sum(part.host_s + part.count * part.cost(gpu) + part.sync * gpu.launch_s for part in self._parts)

    @property
    def synchronises(self) -> bool:
        return any(part.sync for part in self._parts)

    def step_on(self, gpu: SimulatedGpu):
        """The step as a callable, for this GPU."""

        def step() -> None:
            for part in self._parts:
                if part.host_s:
                    gpu.host(part.host_s)
                for _ in range(part.count):
                    gpu.launch(part.kernel_s, cost_s=part.cost(gpu))
                if part.sync:
                    gpu.synchronize_inside()

        return step


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("launch-bound", Part(120, 4 * US)),
        Workload("device-bound", Part(60, 150 * US)),
        Workload("mixed", Part(40, 4 * US), Part(10, 120 * US)),
        Workload("mixed, launch-heavy", Part(2, 200 * US), Part(100, 4 * US)),
        Workload("graph replay", Part(1, 250 * US, host_s=20 * US)),
        Workload("scaler, device-bound", Part(300, 40 * US), Part(sync=True), Part(12, 30 * US)),
        Workload("scaler, launch-bound", Part(300, 4 * US), Part(sync=True), Part(12, 4 * US)),
        Workload("steps of 0.25 ms", Part(25, 10 * US, launch_s=5 * US)),
        Workload("steps of 300 ms", Part(900, 1e-3 / 3)),
        Workload("more launches than the queue, device-bound", Part(3000, 30 * US)),
        Workload("more launches than the queue, launch-bound", Part(3000, 3 * US)),
    )
}
