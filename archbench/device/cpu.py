"""The CPU: it has finished when a call returns, its memory is the host's, and others may want its cores.

Wall time against process time would call every step with a pause in it contended, and the load average answers a
minute late. The kernel keeps the exact figure: how long each of our threads stood ready without getting a core
(`/proc/self/task/*/schedstat`, ns), and how long the hypervisor ran somebody else (`steal` in `/proc/stat`, ticks).
What neither sees (a neighbour on the other hyper-thread, or on the memory bus) is the canary's to find.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from archbench.device.environment import allowed_cores, last_level_cache
from archbench.device.health import CpuTimes, Finding, Reading
from archbench.device.kind import CalibrationSizes, CanarySizes, Kind, Rates
from archbench.model.axes import CompileMode, DeviceKind, Precision
from archbench.model.environment import Environment
from archbench.model.units import counted

if TYPE_CHECKING:
    import torch

REST_S = 0.005
"""A process that takes less than a tenth of so long rests. OpenMP's threads spin on for some 15 ms after their work
(libgomp: 300,000 rounds), ONNX Runtime's for 40 ms."""
_MOST_REST_S = 2.0

PREFLIGHT_LOAD_S = 0.25
"""How long a preflight looks at the load: ticks are 10 ms, so this resolves 2 % on two cores."""
SECOND_LOOK_S = 1.0
CPU_CORE = Rates(
    # Between runs on two cores of two EPYCs, with AVX-512 and without. The committed one of imagenet_backbones is of
    # the latter, where a step takes 1.3 times as long; on a Xeon with AMX it takes half of that.
    flops=dict.fromkeys(("fp32", "tf32", "amp-bf16", "amp-fp16", "bf16", "fp16"), 53e9),
    activation_bytes_per_s=4.2e9,
    operator_s=66e-6,
    cores=1,
    start=7.0,
    process=0.05,
    search=0.0,
    compile_cold=(10.0, 0.09),
    compile_cores=1.3,
    compile_warm=(0.2, 0.007),
    graph_check=0.0,
    monitor=0.2,
    memory=0.3,
    noise=0.9,
    basis="constants",
)
"""Of one core: arithmetic and traffic grow with their number."""
EMULATED_FLOPS = 0.9e9
"""Of one core in the 16-bit formats, where it has AVX2 alone and oneDNN no fast convolution for them: 0.8 to 1.2 x 10^9
in resnet18, mobilenet_v2 and efficientnet_b0 on the second EPYC."""


class CpuProbe:
    """Reads this process's and this machine's CPU times. 0.1 ms, and 0.02 ms more for each thread."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._cores = allowed_cores()
        self._tick_s = 1 / os.sysconf("SC_CLK_TCK")

    def read(self) -> Reading:
        return Reading(at_s=time.perf_counter(), cpu=self.times(), host_only=True)

    def times(self) -> CpuTimes:
        """The CPU times alone, for the probe of another device."""
        busy_s, stolen_s = self._machine_times()
        return CpuTimes(
            cores=len(self._cores),
            own_s=time.process_time(),
            waited_s=self._waits(),
            busy_s=busy_s,
            stolen_s=stolen_s,
        )

    def _machine_times(self) -> tuple[float | None, float | None]:
        """Busy and stolen seconds of our cores: `cpuN user nice system idle iowait irq softirq steal guest ...`."""
        try:
            lines = (self._proc / "stat").read_text().splitlines()
        except OSError:
            return None, None
        busy = stolen = 0
        seen = False
        for line in lines:
            name, *fields = line.split()
            if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in self._cores:
                user, nice, system, _, _, irq, softirq, steal = (int(field) for field in fields[:8])
                busy += user + nice + system + irq + softirq
                stolen += steal
                seen = True
        return (busy * self._tick_s, stolen * self._tick_s) if seen else (None, None)

    def _waits(self) -> tuple[tuple[int, float], ...] | None:
        """`(thread, seconds waited)` of each live thread; `None` where this kernel does not keep it."""
        waits = []
        ran = 0
        try:
            for task in os.listdir(self._proc / "self/task"):
                try:
                    on_cpu, waited, _ = (self._proc / "self/task" / task / "schedstat").read_text().split()
                except ProcessLookupError:
                    continue  # The thread ended between the listing and the reading.
                ran += int(on_cpu)
                waits.append((int(task), int(waited) / 1e9))
        except (OSError, ValueError):
            return None
        return tuple(waits) if ran else None  # All zero: compiled in, but switched off.


class Cpu(Kind):
    """The host's processors: a step is done when its call returns. Members as `archbench.device.kind.Kind` says."""

    name: DeviceKind = "cpu"
    canary = CanarySizes(image=(1, 64, 56, 56), matrix=384, layers=10)
    calibration = CalibrationSizes(
        matrix=512, image=(4, 128, 28, 44), copy_bytes=128 << 20, precisions=("fp32", "bf16")
    )
    process_bytes = 400 << 20
    short_rounds = 2
    is_host = True
    follows_canary = True
    granule = 1
    blocked_convolutions = True

    def rates(self, cores: int | None, hardware_class: str = "") -> Rates:
        cores = cores or os.cpu_count() or 1
        flops = CPU_CORE.flops
        if hardware_class.endswith(" AVX2"):
            flops = {name: EMULATED_FLOPS if name.endswith("16") else rate for name, rate in flops.items()}
        return replace(
            CPU_CORE,
            cores=cores,
            flops={precision: rate * cores for precision, rate in flops.items()},
            activation_bytes_per_s=CPU_CORE.activation_bytes_per_s * cores,
            basis=f"constants for {counted(cores, 'core')}",
        )

    def resolve(self, number: int | None, asked: str) -> str:
        return "cpu"

    def first(self) -> str:
        return "cpu"

    def room(self, environment: Environment) -> int:
        import psutil

        return min(environment.memory_bytes, psutil.virtual_memory().available)

    def refuses(self, precision: Precision, compile_mode: CompileMode) -> str | None:
        """The modes with CUDA graphs compile to the code of those without: inductor counts a `cudagraph_skips`.

        The precisions all run forward and backward, amp-fp16 with its loss scaler (seen by running torch 2.15).
        """
        if precision == "tf32":
            return "TF32 is a number format of NVIDIA GPUs; on a CPU this would be fp32"
        if compile_mode == "reduce-overhead":
            return "reduce-overhead means CUDA graphs; on a CPU this would be compile_mode default"
        if compile_mode == "max-autotune":
            return "max-autotune includes CUDA graphs; on a CPU this would be max-autotune-no-cudagraphs"
        return None

    def preflight(self, device: str) -> Iterator[Finding]:
        from archbench.device.doctor import judge_load, settled_load

        yield judge_load(settled_load(PREFLIGHT_LOAD_S, SECOND_LOOK_S))

    def examine(self, environment: Environment) -> Iterator[Finding]:
        from archbench.device.gpu_checks import absence_findings

        return absence_findings()

    def probe(self, device: str, uuid: str | None, ours: Collection[int]) -> CpuProbe:
        return CpuProbe()

    def find(self, environment: Environment) -> torch.device:
        import torch

        return torch.device("cpu")

    def cache_bytes(self, device: torch.device) -> int | None:
        return last_level_cache()

    def limit_memory(self, device: torch.device, more_bytes: int | None) -> None:
        """By RLIMIT_DATA, which counts what is mapped to be written, what malloc keeps to give again included."""
        import ctypes
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if more_bytes is None:
            resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
            return

        class Mallinfo(ctypes.Structure):
            _fields_ = [(f"field{number}", ctypes.c_size_t) for number in range(10)]

        libc = ctypes.CDLL(None)
        libc.mallinfo2.restype = Mallinfo
        free_inside = int(libc.mallinfo2().field8)
        status = Path("/proc/self/status").read_text()
        held = int(status.partition("VmData:")[2].split()[0]) * 1024 - free_inside
        resource.setrlimit(resource.RLIMIT_DATA, (held + more_bytes, hard))

    def settle(self) -> None:
        end = time.perf_counter() + _MOST_REST_S
        spent = math.inf
        while spent > REST_S / 10 and time.perf_counter() < end:
            before = time.process_time()
            time.sleep(REST_S)
            spent = time.process_time() - before
