"""CUDA GPUs: the host only issues work, and the device has a clock and an allocator of its own."""

from __future__ import annotations

import csv
import os
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from archbench.device.gpu_checks import gpu_findings, order_findings
from archbench.device.health import Finding
from archbench.device.kind import (
    MS,
    NS,
    Backlogged,
    CalibrationSizes,
    CanarySizes,
    Clock,
    Kind,
    Rates,
    Step,
    Stopwatch,
    Timing,
    checked,
)
from archbench.device.nvml import NvmlProbe
from archbench.device.visible import describe, is_gone, known_gpus, uuid_of, visible_gpus, what_exists
from archbench.model.axes import DeviceKind, Precision
from archbench.model.environment import Environment, Gpu
from archbench.model.errors import UsageError

if TYPE_CHECKING:
    import torch

FASTEST_HZ = 3e9
"""Cycles a second of a spinning kernel, until one has been timed: no card is faster, so that none spins too short."""
_TERA = 1e12
SYNCHRONIZED = "called a synchronizing CUDA operation"
"""What torch says of each in its debug mode (c10/cuda/CUDAFunctions.cpp)."""
SNAPSHOT_EVENTS = 200_000
"""Allocations and frees that a memory snapshot holds: several times those of the deepest network's step."""

H100 = Rates(
    # Published throughput of ResNet-50 in eager PyTorch on this card: about 2,000 images/s in fp32 with TF32 off, 3,500
    # with it, 7,000 under bf16 autocast; three quarters of the 3.35 TB/s of its memory.
    flops={"fp32": 25e12, "tf32": 60e12, "amp-bf16": 120e12, "amp-fp16": 120e12, "bf16": 150e12, "fp16": 150e12},
    activation_bytes_per_s=2.5e12,
    operator_s=20e-6,  # Python and the dispatcher: 10 to 30 us in public traces of eager PyTorch
    cores=16,
    memory_bytes=80 << 30,
    start=30.0,  # soak_s is 20 of them
    # A review of this code path, before a card was at hand: 4.3 s a process, of which 1.4 s went to counting and
    # predicting and 0.6 s to drawing weights; 35 s a compilation and 6 s from the cache, 1.3 s for a profiler session:
    # means over imagenet_backbones, whose networks have 240 operators on average.
    process=2.3,
    # A convolution of a shape that is new takes 1.3 ms by heuristics (1,741 of them, pytorch/pytorch#187212); to try
    # all plans takes 11 times that (136 ms in place of 12.5 a pass, on an H200, sgl-project/sglang-omni#2176). Of those
    # 240 operators 32 are convolutions of different shapes.
    search=1.8e-3,
    compile_cold=(10.0, 0.104),
    compile_cores=2.0,  # tracing and code generation are one thread; compiling Triton's kernels is about as much again
    compile_warm=(1.0, 0.0207),
    graph_check=1.3,
    monitor=0.15,
    memory=0.2,
    noise=0.05,  # a GPU that is its user's alone settles at once
    basis="constants for one H100 80 GB",
)


def _cuda() -> Any:
    """`torch.cuda`, imported where it is needed: the parent reads this file, too."""
    import torch

    return torch.cuda


class CudaClock(Clock):
    """The host's clock around steps that are waited for, and events on the device's own.

    What is waited for inside a timed stretch is an event, not the device: that costs the host less. An event stamps
    when the stream reaches it, on an idle stream at once (CUDA runtime reference, `cudaEventRecord`).
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = _cuda()
        self._device = device
        self._done = self._cuda.Event()  # without timing: cheaper to record and to wait for
        self._before, self._start, self._end = (self._cuda.Event(enable_timing=True) for _ in range(3))
        self._cycles_per_s = FASTEST_HZ

    def latency(self, step: Step, steps: int = 1) -> Timing:
        done = self._done
        self.synchronize()
        stream = self._cuda.current_stream(self._device)
        issue_ns = 0
        start = begun = time.perf_counter_ns()
        for _ in range(steps):
            step()
            issue_ns += time.perf_counter_ns() - begun
            done.record(stream)
            done.synchronize()
            begun = time.perf_counter_ns()
        return Timing(checked((begun - start) * NS), issue_s=issue_ns * NS)

    def burst(self, step: Step, steps: int) -> Timing:
        self.synchronize()
        stream = self._cuda.current_stream(self._device)
        start = time.perf_counter_ns()
        self._start.record(stream)
        for _ in range(steps):
            step()
        issued = time.perf_counter_ns()
        self._end.record(stream)
        self._end.synchronize()
        host_s = checked((time.perf_counter_ns() - start) * NS)
        return Timing(host_s, _between(self._start, self._end), (issued - start) * NS)

    def backlogged(self, step: Step, steps: int, lead_s: float) -> Backlogged:
        """See `Clock`. The backlog is a spinning kernel, which counts cycles: each one tells how fast they are."""
        self.synchronize()
        stream = self._cuda.current_stream(self._device)
        cycles = max(1, int(lead_s * self._cycles_per_s))
        self._before.record(stream)
        self._cuda._sleep(cycles)
        self._start.record(stream)
        begun = time.perf_counter_ns()
        for _ in range(steps):
            step()
        issue_ns = time.perf_counter_ns() - begun
        self._end.record(stream)
        held = not self._start.query()
        self._end.synchronize()
        host_s = (time.perf_counter_ns() - begun) * NS
        self._cycles_per_s = cycles / _between(self._before, self._start)
        return Backlogged(host_s, _between(self._start, self._end), issue_ns * NS, held)

    def waits_inside(self, step: Step) -> bool:
        """See `Clock`: torch warns of the waits that it makes itself, not of those in other libraries."""
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            self._cuda.set_sync_debug_mode("warn")
            try:
                step()
            finally:
                self._cuda.set_sync_debug_mode("default")
        return any(SYNCHRONIZED in str(warning.message) for warning in told)

    def synchronize(self) -> None:
        self._cuda.synchronize(self._device)


class CudaStopwatch(Stopwatch):
    """Events, used again, for making one takes as long as recording it."""

    def __init__(self) -> None:
        self._make = _cuda().Event
        self._events: list[Any] = []
        self._used = 0

    def read(self) -> Any:
        if self._used == len(self._events):
            self._events.append(self._make(enable_timing=True))
        event = self._events[self._used]
        self._used += 1
        event.record()
        return event

    def seconds(self, before: Any, after: Any) -> float:
        return float(before.elapsed_time(after)) * MS

    def restart(self) -> None:
        self._used = 0


def _between(start: Any, end: Any) -> float:
    """Seconds from event to event."""
    return checked(start.elapsed_time(end) * MS)


class CudaAllocator:
    """The caching allocator of a device that has memory of its own. Bytes throughout."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = _cuda()
        self._device = device

    @property
    def backend(self) -> str:
        return str(self._cuda.get_allocator_backend())

    def reset_peaks(self) -> None:
        """Begin the peaks anew at what lives now."""
        self._cuda.reset_peak_memory_stats(self._device)

    def allocated(self) -> int:
        """What lives now."""
        return int(self._cuda.memory_allocated(self._device))

    def peak_allocated(self) -> int:
        """The most that has lived since `reset_peaks`."""
        return int(self._cuda.max_memory_allocated(self._device))

    def peak_reserved(self) -> int:
        """The most that was held from the driver since then, what is cached for later use included."""
        return int(self._cuda.max_memory_reserved(self._device))

    def free(self) -> int:
        """What the driver has left to give."""
        return int(self._cuda.mem_get_info(self._device)[0])

    def snapshot(self, step: Callable[[], object]) -> object:
        """Do one step and return what https://pytorch.org/memory_viz shows, to be pickled."""
        memory = self._cuda.memory
        memory._record_memory_history(max_entries=SNAPSHOT_EVENTS)
        try:
            step()
            self._cuda.synchronize(self._device)
            return memory._snapshot(self._device)
        finally:
            memory._record_memory_history(enabled=None)


class Cuda(Kind):
    """NVIDIA's GPUs, which work behind the host. Members as `archbench.device.kind.Kind` says."""

    name: DeviceKind = "cuda"
    canary = CanarySizes(image=(32, 72, 59, 61), matrix=384, repeats=10)
    calibration = CalibrationSizes(
        matrix=8192, image=(128, 512, 30, 46), copy_bytes=2 << 30, precisions=("fp32", "tf32", "bf16", "fp16")
    )
    activity = "CUDA"
    records_graphs = True
    own_clock = True
    numbered = True
    process_bytes = 700 << 20
    short_rounds = 1  # a context, cuDNN's search and the like take as long as the cell
    granule = 512  # kMinBlockSize of torch's caching allocator
    autocasts_as_cuda = True
    counts_energy = True

    def rates(self, cores: int | None, hardware_class: str = "") -> Rates:
        return H100 if cores is None else replace(H100, cores=cores)

    def resolve(self, number: int | None, asked: str) -> str:
        visible = known_gpus(named=True)
        if (number or 0) >= len(visible.gpus):
            raise UsageError(f"device {asked!r} does not exist: {what_exists(visible)}")
        return f"cuda:{number or 0}"

    def first(self) -> str | None:
        return "cuda:0" if known_gpus(named=False).gpus else None

    def describe(self, device: str) -> tuple[Gpu | None, str | None]:
        return describe(number_of(device))

    def hardware_class(self, processor: str, gpu: Gpu | None) -> str:
        """`NVIDIA H200`, or `NVIDIA H200 MIG 1g.18gb`."""
        return "unknown GPU" if gpu is None else gpu.name

    def room(self, environment: Environment) -> int | None:
        return environment.gpus[0].memory_bytes if environment.gpus else None

    def preflight(self, device: str) -> Iterator[Finding]:
        return gpu_findings(number_of(device))

    def examine(self, environment: Environment) -> Iterator[Finding]:
        yield from order_findings(visible_gpus().gpus, os.environ.get("CUDA_DEVICE_ORDER"))
        yield from gpu_findings(number_of(environment.device), environment)

    def is_gone(self, environment: Environment) -> bool:
        return is_gone(environment)

    def probe(self, device: str, uuid: str | None, ours: Collection[int]) -> NvmlProbe:
        return NvmlProbe(uuid if uuid is not None else uuid_of(number_of(device)), ours=ours)

    def find(self, environment: Environment) -> torch.device:
        import torch

        number = number_of(environment.device)
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
        _cuda().set_device(device)

    def current(self, device: torch.device) -> AbstractContextManager[Any]:
        return _cuda().device(device)  # type: ignore[no-any-return]

    def clock(self, device: torch.device) -> CudaClock:
        return CudaClock(device)

    def stopwatch(self) -> CudaStopwatch:
        return CudaStopwatch()

    def synchronize(self, device: torch.device) -> None:
        _cuda().synchronize(device)

    def allocator(self, device: torch.device) -> CudaAllocator:
        return CudaAllocator(device)

    def limit_memory(self, device: torch.device, more_bytes: int | None) -> None:
        cuda = _cuda()
        if more_bytes is None:
            cuda.set_per_process_memory_fraction(1.0, device)
            return
        cuda.empty_cache()
        whole = cuda.get_device_properties(device).total_memory
        held = cuda.memory_reserved(device)
        cuda.set_per_process_memory_fraction(min(1.0, (held + more_bytes) / whole), device)

    def empty_cache(self) -> None:
        _cuda().empty_cache()

    def release(self) -> None:
        import torch

        torch._C._cuda_clearCublasWorkspaces()
        torch.cuda.empty_cache()

    def cache_bytes(self, device: torch.device) -> int | None:
        return getattr(_cuda().get_device_properties(device), "L2_cache_size", None)

    def uuid(self, device: torch.device) -> str | None:
        uuid = getattr(_cuda().get_device_properties(device), "uuid", None)  # not in every build for ROCm
        return None if uuid is None else str(uuid)


def number_of(device: str) -> int:
    """1 of `cuda:1`."""
    return int(device.partition(":")[2] or 0)


def _bare(uuid: str) -> str:
    """Without the prefix that NVML gives it and torch does not."""
    return uuid.removeprefix("GPU-").removeprefix("MIG-").lower()


class Peak(Struct, frozen=True, kw_only=True):
    """A row of `peaks.csv`: dense peaks at the boost clock in FLOP/s (2 x MAC/s), `None` = no such unit."""

    pattern: str
    """Shell pattern over the whole of NVML's name: a laptop's `RTX 4090 Laptop GPU` is no RTX 4090."""
    fp32: float | None
    tf32: float | None
    bf16: float | None
    fp16: float | None
    source: str


def peak_flops(gpu: str, precision: Precision) -> float | None:
    """Dense peak FLOP/s of a GPU by NVML's name; `None` where the table does not know it, and for a MIG slice.

    fp32 is the plain cores' peak; tf32, bf16 and fp16 the matrix units' with fp32 accumulation and without sparsity.
    Mixed precision counts as its lower one, in which its matrix work is done.
    """
    row = None if " MIG " in gpu else next((peak for peak in peaks() if fnmatchcase(gpu, peak.pattern)), None)
    return None if row is None else getattr(row, precision.removeprefix("amp-"))


@cache
def peaks() -> tuple[Peak, ...]:
    """The vendors' dense peaks in FLOP/s, as `peaks.csv` beside this module has them with their sources."""
    lines = (files("archbench.device") / "peaks.csv").read_text().splitlines()
    return tuple(
        Peak(
            pattern=row["pattern"],
            source=row["source"],
            **{name: float(row[name]) * _TERA if row[name] else None for name in ("fp32", "tf32", "bf16", "fp16")},
        )
        for row in csv.DictReader(lines)
    )
